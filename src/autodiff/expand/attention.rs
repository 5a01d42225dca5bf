//! Attention (opset 23), in the operators of its specification: softmax(scale · Q Kᵀ + bias) V, by head.

use super::scene::Scene;
use crate::autodiff::step::Refusal;
use crate::model::{Builder, NodeExt, is_float};
use crate::proto::{NodeProto, TensorProto, tensor_proto::DataType};

/// The operators that an Attention is made of.
pub(super) fn written_out(scene: &Scene<'_>, node: &NodeProto) -> Result<Vec<NodeProto>, Refusal> {
    for (slot, what) in [(4, "a cache of keys"), (5, "a cache of values"), (6, "lengths of its keys")] {
        if node.input_name(slot).is_some() {
            return Err(what.into());
        }
    }
    let [result, more @ ..] = &node.output[..] else { return Err("it has no output".into()) };
    if more.iter().any(|name| !name.is_empty()) {
        return Err("it gives more than its first output".into());
    }
    if ["left_window_size", "right_window_size"].iter().any(|name| node.int(name, -1) >= 0) {
        return Err("a sliding window".into());
    }
    let attention = Attention::read(scene, node)?;
    let mut b = scene.builder(node);
    let [q, k, v] = [(0, attention.heads), (1, attention.key_heads), (2, attention.key_heads)]
        .map(|(slot, heads)| attention.by_head(&mut b, slot, heads));
    let k = b.transpose(&k, &[0, 1, 3, 2]);
    let [k, v] = [k, v].map(|value| attention.repeated(&mut b, &value));
    let product = b.op("MatMul", &[&q, &k]);
    let mut scores = attention.scaled(&mut b, &product, &q);
    if attention.softcap > 0.0 {
        let cap = b.scalar(attention.softcap.into(), attention.elem);
        let share = b.op("Div", &[&scores, &cap]);
        let squashed = b.op("Tanh", &[&share]);
        scores = b.op("Mul", &[&squashed, &cap]);
    }
    let scores = attention.masked(&mut b, scores, scene);
    let weights = attention.softmax(&mut b, &scores);
    let mut y = b.op("MatMul", &[&weights, &v]);
    if attention.is_flat {
        let by_row = b.transpose(&y, &[0, 2, 1, 3]);
        let shape = b.ints(&[0, 0, -1]);
        y = b.op("Reshape", &[&by_row, &shape]);
    }
    b.name(&y, result);
    Ok(b.into_nodes())
}

struct Attention<'a> {
    node: &'a NodeProto,
    elem: i32,
    /// Whether the heads are side by side in the last axis, and not an axis of their own.
    is_flat: bool,
    heads: i64,
    key_heads: i64,
    /// The size of a query's head.
    head_size: Option<i64>,
    softcap: f32,
}

impl<'a> Attention<'a> {
    fn read(scene: &Scene<'_>, node: &'a NodeProto) -> Result<Self, Refusal> {
        let is_flat = match scene.shape(node, 0).map(<[_]>::len) {
            Some(3) => true,
            Some(4) => false,
            Some(rank) => return Err(format!("a query with {rank} axes")),
            None => return Err("the rank of its query cannot be told".into()),
        };
        let heads = |attribute: &str, slot: usize| {
            let own = if is_flat { Some(node.int(attribute, 0)) } else { scene.size(node, slot, 1) };
            own.filter(|&count| count > 0).ok_or_else(|| format!("{attribute} cannot be told"))
        };
        let (heads, key_heads) = (heads("q_num_heads", 0)?, heads("kv_num_heads", 1)?);
        if heads % key_heads != 0 {
            return Err(format!("{heads} heads of queries and {key_heads} of keys"));
        }
        let width = scene.size(node, 0, -1);
        Ok(Self {
            node,
            elem: scene.elem(node, 0),
            is_flat,
            heads,
            key_heads,
            head_size: if is_flat { width.map(|width| width / heads) } else { width },
            softcap: node.float("softcap", 0.0),
        })
    }

    /// Input `slot` as [batch, heads, rows, head size].
    fn by_head(&self, b: &mut Builder<'_>, slot: usize, heads: i64) -> String {
        let value = self.node.input.get(slot).map_or("", String::as_str);
        if !self.is_flat {
            return value.to_owned();
        }
        let shape = b.ints(&[0, 0, heads, -1]);
        let apart = b.op("Reshape", &[value, &shape]);
        b.transpose(&apart, &[0, 2, 1, 3])
    }

    /// Each head of keys or values as often as there are queries to one.
    fn repeated(&self, b: &mut Builder<'_>, value: &str) -> String {
        let times = self.heads / self.key_heads;
        if times == 1 {
            return value.to_owned();
        }
        let apart = b.unsqueeze(value, &[2]);
        let copies = b.ints(&[1, 1, times, 1, 1]);
        let copies = b.op("Expand", &[&apart, &copies]);
        let shape = b.op("Shape", &[value]);
        let [batch, matrix] = [&[0][..], &[2, 3]].map(|axes| {
            let axes = b.ints(axes);
            b.op("Gather", &[&shape, &axes])
        });
        let heads = b.ints(&[self.heads]);
        let shape = b.concat(&[batch, heads, matrix], 0);
        b.op("Reshape", &[&copies, &shape])
    }

    /// Times the attribute `scale`, by default 1/√(head size).
    fn scaled(&self, b: &mut Builder<'_>, product: &str, q: &str) -> String {
        let given = NodeExt::attribute(self.node, "scale").and_then(|attribute| attribute.f).map(f64::from);
        let scale = given.or_else(|| Some(1.0 / (self.head_size? as f64).sqrt()));
        if let Some(scale) = scale {
            let scale = b.scalar(scale, self.elem);
            return b.op("Mul", &[product, &scale]);
        }
        let shape = b.op("Shape", &[q]);
        let last = b.ints(&[-1]);
        let size = b.op("Gather", &[&shape, &last]);
        let size = b.cast(&size, self.elem);
        let root = b.op("Sqrt", &[&size]);
        b.op("Div", &[product, &root])
    }

    /// The mask is added, or says where -∞ is not; of a causal one, no key behind the query counts.
    fn masked(&self, b: &mut Builder<'_>, mut scores: String, scene: &Scene<'_>) -> String {
        if let Some(mask) = self.node.input_name(3) {
            scores = if is_float(scene.elem(self.node, 3)) {
                b.op("Add", &[&scores, mask])
            } else {
                let never = b.scalar(f64::NEG_INFINITY, self.elem);
                b.op("Where", &[mask, &scores, &never])
            };
        }
        if self.node.int("is_causal", 0) != 0 {
            let shape = b.op("Shape", &[&scores]);
            let (from, to) = (b.ints(&[2]), b.ints(&[4]));
            let sizes = b.op("Slice", &[&shape, &from, &to]);
            let one = TensorProto::of_ints(&[1]);
            let ones = b.with("ConstantOfShape", &[&sizes], |node| node.with_tensor("value", one));
            let lower = b.with("Trilu", &[&ones], |node| node.with_int("upper", 0));
            let seen = b.cast(&lower, DataType::Bool as i32);
            let never = b.scalar(f64::NEG_INFINITY, self.elem);
            scores = b.op("Where", &[&seen, &scores, &never]);
        }
        scores
    }

    /// In the attribute's precision, where one is given.
    fn softmax(&self, b: &mut Builder<'_>, scores: &str) -> String {
        let precision = self.node.int("softmax_precision", self.elem.into()) as i32;
        if precision == self.elem {
            return b.with("Softmax", &[scores], |node| node.with_int("axis", -1));
        }
        let precise = b.cast(scores, precision);
        let weights = b.with("Softmax", &[&precise], |node| node.with_int("axis", -1));
        b.cast(&weights, self.elem)
    }
}
