//! RNN, GRU and LSTM, step by step (ONNX operator specifications; the names of weights and gates are theirs).
//!
//! The products with the input are one for all steps, X Wᵀ; those with the state are one a step.

use super::scene::Scene;
use crate::autodiff::step::Refusal;
use crate::model::{Builder, NodeExt};
use crate::proto::NodeProto;

/// More steps are not written out.
const MAX_STEPS: i64 = 4096;

/// The activations that take no parameters.
const ACTIVATIONS: [&str; 5] = ["Tanh", "Sigmoid", "Relu", "Softsign", "Softplus"];

/// What a recurrent operator does at each step.
struct Network<'a> {
    node: &'a NodeProto,
    hidden: i64,
    /// Of all directions, one after the other.
    activations: Vec<&'static str>,
    is_reverse: Vec<bool>,
    steps: i64,
    /// Whether the batch is the first axis, and not the second.
    is_batch_first: bool,
}

/// One direction's weights.
struct Direction<'a> {
    hidden: i64,
    activations: &'a [&'static str],
    /// Rᵀ; of a GRU whose reset gate comes before the product, that of the gates and that of the new state.
    r: Vec<String>,
    recurrent_bias: Option<String>,
    peepholes: Option<Vec<String>>,
    resets_after_product: bool,
}

/// The steps of a recurrent operator.
pub(super) fn unrolled(scene: &Scene<'_>, node: &NodeProto) -> Result<Vec<NodeProto>, Refusal> {
    let network = Network::read(scene, node)?;
    let mut b = scene.builder(node);
    let x = if network.is_batch_first { b.transpose(&node.input[0], &[1, 0, 2]) } else { node.input[0].clone() };
    let states = network.initial_states(&mut b, &x, scene);
    let [w, r] = [1, 2].map(|slot| network.by_direction(&mut b, scene, slot, 0));
    let [biases, peepholes] =
        [3, 7].map(|slot| network.has(slot).then(|| network.by_direction(&mut b, scene, slot, 0)));
    let per_direction = network.activations.len() / network.is_reverse.len();
    let (mut all, mut last) = (Vec::new(), Vec::new());
    for (i, &is_reverse) in network.is_reverse.iter().enumerate() {
        let resets_after_product = node.int("linear_before_reset", 0) != 0;
        let r = match node.op_type() {
            "GRU" if !resets_after_product => b.split(&r[i], 0, &[2 * network.hidden, network.hidden]),
            _ => vec![r[i].clone()],
        };
        let mut direction = Direction {
            hidden: network.hidden,
            activations: &network.activations[i * per_direction..(i + 1) * per_direction],
            r: r.iter().map(|r| b.transpose(r, &[1, 0])).collect(),
            recurrent_bias: None,
            peepholes: peepholes.as_ref().map(|all| b.split(&all[i], 0, &[network.hidden; 3])),
            resets_after_product: node.op_type() == "GRU" && resets_after_product,
        };
        let bias = biases.as_ref().map(|all| direction.take_bias(&mut b, &all[i], network.gates()));
        let steps = network.products_with_input(&mut b, &x, &w[i], bias);
        let mut order: Vec<usize> = (0..steps.len()).collect();
        if is_reverse {
            order.reverse();
        }
        let mut state: Vec<String> = states.iter().map(|by_direction| by_direction[i].clone()).collect();
        let mut results = vec![String::new(); steps.len()];
        for at in order {
            state = match node.op_type() {
                "LSTM" => direction.lstm(&mut b, &steps[at], &state),
                "GRU" => vec![direction.gru(&mut b, &steps[at], &state[0])],
                _ => vec![direction.rnn(&mut b, &steps[at], &state[0])],
            };
            results[at].clone_from(&state[0]);
        }
        all.push(results);
        last.push(state);
    }
    network.give(&mut b, &all, &last);
    Ok(b.into_nodes())
}

impl<'a> Network<'a> {
    fn read(scene: &Scene<'_>, node: &'a NodeProto) -> Result<Self, Refusal> {
        let is_batch_first = node.int("layout", 0) != 0;
        let steps = scene.size(node, 0, is_batch_first.into()).ok_or("its number of steps is not known")?;
        if !(1..=MAX_STEPS).contains(&steps) {
            return Err(format!("it has {steps} steps, and from 1 to {MAX_STEPS} can be written out"));
        }
        if [0, 1, 2].iter().any(|&slot| node.input_name(slot).is_none()) {
            return Err("it has no input or no weights".into());
        }
        let lengths = scene.ints(node, 4).is_some_and(|lengths| lengths.iter().all(|&length| length == steps));
        if node.input_name(4).is_some() && !lengths {
            return Err("its sequences may be shorter than its number of steps".into());
        }
        for attribute in ["clip", "input_forget"] {
            if node.attribute.iter().any(|a| a.name() == attribute && (a.f() != 0.0 || a.i() != 0)) {
                return Err(format!("attribute {attribute}"));
            }
        }
        let hidden = scene.size(node, 2, -1).or_else(|| NodeExt::attribute(node, "hidden_size")?.i);
        let hidden = hidden.filter(|size| (1..1 << 31).contains(size)).ok_or("its hidden size is not known")?;
        let is_reverse = match node.string("direction", "forward") {
            b"forward" => vec![false],
            b"reverse" => vec![true],
            b"bidirectional" => vec![false, true],
            other => return Err(format!("direction {}", String::from_utf8_lossy(other))),
        };
        let activations = activations(node, is_reverse.len())?;
        Ok(Self { node, hidden, activations, is_reverse, steps, is_batch_first })
    }

    fn has(&self, slot: usize) -> bool {
        self.node.input_name(slot).is_some()
    }

    fn gates(&self) -> i64 {
        match self.node.op_type() {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        }
    }

    /// Input `slot` of each direction, which are stacked along `axis`. Where the graph stacks them, they are taken from before, so that the
    /// gradient of one direction's weights is its own.
    fn by_direction(&self, b: &mut Builder<'_>, scene: &Scene<'_>, slot: usize, axis: i64) -> Vec<String> {
        let stack = &self.node.input[slot];
        let count = self.is_reverse.len();
        let parts = match scene.stacked(self.node, slot, axis) {
            Some(parts) if parts.len() == count => parts.to_vec(),
            _ if count == 1 => vec![stack.clone()],
            _ => b.split(stack, axis, &vec![1; count]),
        };
        parts.iter().map(|part| b.squeeze(part, &[axis])).collect()
    }

    /// The states before the first step, by direction: zeros where none are given.
    fn initial_states(&self, b: &mut Builder<'_>, x: &str, scene: &Scene<'_>) -> Vec<Vec<String>> {
        let slots = if self.node.op_type() == "LSTM" { &[5, 6][..] } else { &[5] };
        let mut zeros = None;
        let states = slots.iter().map(|&slot| {
            if self.has(slot) {
                return self.by_direction(b, scene, slot, self.is_batch_first.into());
            }
            let zeros = zeros.get_or_insert_with(|| {
                let shape = b.op("Shape", &[x]);
                let (at, size) = (b.ints(&[1]), b.ints(&[self.hidden]));
                let batch = b.op("Gather", &[&shape, &at]);
                let shape = b.concat(&[batch, size], 0);
                b.filled(&shape, 0.0, scene.elem(self.node, 0))
            });
            vec![zeros.clone(); self.is_reverse.len()]
        });
        states.collect()
    }

    /// Xₜ Wᵀ + bias of each step.
    fn products_with_input(&self, b: &mut Builder<'_>, x: &str, w: &str, bias: Option<String>) -> Vec<String> {
        let w = b.transpose(w, &[1, 0]);
        let mut product = b.op("MatMul", &[x, &w]);
        if let Some(bias) = bias {
            product = b.op("Add", &[&product, &bias]);
        }
        let steps = b.split(&product, 0, &vec![1; self.steps as usize]);
        steps.iter().map(|step| b.squeeze(step, &[0])).collect()
    }

    /// The results: the states after all steps, and after the last one, of each direction.
    fn give(&self, b: &mut Builder<'_>, all: &[Vec<String>], last: &[Vec<String>]) {
        let result = |slot: usize| self.node.output.get(slot).filter(|name| !name.is_empty());
        if let Some(result) = result(0) {
            let directions: Vec<String> = all
                .iter()
                .map(|steps| {
                    let steps: Vec<String> = steps.iter().map(|step| b.unsqueeze(step, &[0, 1])).collect();
                    b.concat(&steps, 0)
                })
                .collect();
            let mut y = b.concat(&directions, 1);
            if self.is_batch_first {
                y = b.transpose(&y, &[2, 0, 1, 3]);
            }
            b.name(&y, result);
        }
        let axis = self.is_batch_first.into();
        for slot in 1..=last[0].len() {
            if let Some(result) = result(slot) {
                let directions: Vec<String> = last.iter().map(|state| b.unsqueeze(&state[slot - 1], &[axis])).collect();
                let state = b.concat(&directions, axis);
                b.name(&state, result);
            }
        }
    }
}

fn activations(node: &NodeProto, directions: usize) -> Result<Vec<&'static str>, Refusal> {
    let default: &[&'static str] = match node.op_type() {
        "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
        "GRU" => &["Sigmoid", "Tanh"],
        _ => &["Tanh"],
    };
    let Some(attribute) = NodeExt::attribute(node, "activations").filter(|a| !a.strings.is_empty()) else {
        return Ok(default.repeat(directions));
    };
    if attribute.strings.len() != default.len() * directions {
        return Err(format!("{} activations for {directions} directions", attribute.strings.len()));
    }
    let known = |name: &[u8]| ACTIVATIONS.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(name));
    let all = attribute.strings.iter().map(|name| {
        known(name).ok_or_else(|| format!("activation {}, which takes parameters", String::from_utf8_lossy(name)))
    });
    all.collect()
}

impl Direction<'_> {
    /// The bias that is added to the product with the input; that of the product with the state is kept where it cannot go
    /// there too.
    fn take_bias(&mut self, b: &mut Builder<'_>, bias: &str, gates: i64) -> String {
        let halves = b.split(bias, 0, &[gates * self.hidden; 2]);
        if self.resets_after_product {
            self.recurrent_bias = Some(halves[1].clone());
            return halves[0].clone();
        }
        b.op("Add", &[&halves[0], &halves[1]])
    }

    fn activate(&self, b: &mut Builder<'_>, which: usize, value: &str) -> String {
        b.op(self.activations[which], &[value])
    }

    /// H = f(X Wᵀ + H Rᵀ + bias).
    fn rnn(&self, b: &mut Builder<'_>, x: &str, h: &str) -> String {
        let product = b.op("MatMul", &[h, &self.r[0]]);
        let sum = b.op("Add", &[x, &product]);
        self.activate(b, 0, &sum)
    }

    /// z and r are f(X Wᵀ + H Rᵀ + bias); ĥ = g(X Wᵀ + (r · H) Rᵀ + bias), or r times the product; H = (1 - z) · ĥ + z · H, as ĥ + z · (H - ĥ).
    fn gru(&self, b: &mut Builder<'_>, x: &str, h: &str) -> String {
        let sizes = [2 * self.hidden, self.hidden];
        let x = b.split(x, 1, &sizes);
        let mut to_gates = b.op("MatMul", &[h, &self.r[0]]);
        let mut to_new = None;
        if self.resets_after_product {
            if let Some(bias) = &self.recurrent_bias {
                to_gates = b.op("Add", &[&to_gates, bias]);
            }
            let parts = b.split(&to_gates, 1, &sizes);
            to_gates = parts[0].clone();
            to_new = Some(parts[1].clone());
        }
        let sum = b.op("Add", &[&x[0], &to_gates]);
        let gates = self.activate(b, 0, &sum);
        let gates = b.split(&gates, 1, &[self.hidden; 2]);
        let from_state = match to_new {
            Some(product) => b.op("Mul", &[&gates[1], &product]),
            None => {
                let reset = b.op("Mul", &[&gates[1], h]);
                b.op("MatMul", &[&reset, &self.r[1]])
            }
        };
        let sum = b.op("Add", &[&x[1], &from_state]);
        let new = self.activate(b, 1, &sum);
        let change = b.op("Sub", &[h, &new]);
        let kept = b.op("Mul", &[&gates[0], &change]);
        b.op("Add", &[&new, &kept])
    }

    /// i, o, f and c̃ are f(X Wᵀ + H Rᵀ + P · C + bias), g for c̃, which has no P; C = f · C + i · c̃; H = o · h(C). P of o is times the new C.
    fn lstm(&self, b: &mut Builder<'_>, x: &str, state: &[String]) -> Vec<String> {
        let (h, c) = (&state[0], &state[1]);
        let product = b.op("MatMul", &[h, &self.r[0]]);
        let sum = b.op("Add", &[x, &product]);
        let gates = b.split(&sum, 1, &[self.hidden; 4]);
        let gate = |b: &mut Builder<'_>, at: usize, peephole: usize, c: &str| {
            let mut sum = gates[at].clone();
            if let Some(peepholes) = &self.peepholes {
                let seen = b.op("Mul", &[&peepholes[peephole], c]);
                sum = b.op("Add", &[&sum, &seen]);
            }
            self.activate(b, 0, &sum)
        };
        let (i, f) = (gate(b, 0, 0, c), gate(b, 2, 2, c));
        let new = self.activate(b, 1, &gates[3]);
        let (kept, added) = (b.op("Mul", &[&f, c]), b.op("Mul", &[&i, &new]));
        let c = b.op("Add", &[&kept, &added]);
        let o = gate(b, 1, 1, &c);
        let shown = self.activate(b, 2, &c);
        vec![b.op("Mul", &[&o, &shown]), c]
    }
}
