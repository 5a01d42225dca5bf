//! CausalConvWithState and LinearAttention (opset 27), in the operators of their specifications: the layers of models that carry a state from token to
//! token.

use super::gated::swish;
use super::scene::Scene;
use crate::autodiff::step::Refusal;
use crate::model::{Builder, NodeExt};
use crate::proto::NodeProto;

/// More tokens are not written out.
const MAX_TOKENS: i64 = 4096;

/// Each channel's convolution with the tokens before, of which the state holds the last.
pub(super) fn causal_convolution(scene: &Scene<'_>, node: &NodeProto) -> Result<Vec<NodeProto>, Refusal> {
    let sizes = [-1, 0].map(|axis| scene.size(node, 1, axis));
    let [Some(kernel), Some(channels)] = sizes else { return Err("the sizes of its weight are not known".into()) };
    let (x, elem) = (&node.input[0], scene.elem(node, 0));
    let mut b = scene.builder(node);
    let tokens = match node.input_name(3) {
        Some(state) => b.concat(&[state.to_owned(), x.clone()], 2),
        None => {
            let pads = b.ints(&[0, 0, kernel - 1, 0, 0, 0]);
            b.op("Pad", &[x, &pads])
        }
    };
    let inputs: Vec<&str> =
        [Some(tokens.as_str()), node.input_name(1), node.input_name(2)].into_iter().flatten().collect();
    let mut y = b.with("Conv", &inputs, |node| node.with_int("group", channels));
    match node.string("activation", "none") {
        b"none" => {}
        b"silu" | b"swish" => y = swish(&mut b, &y, 1.0, elem),
        other => return Err(format!("activation {}", String::from_utf8_lossy(other))),
    }
    let result = |slot: usize| node.output.get(slot).filter(|name| !name.is_empty());
    if let Some(result) = result(0) {
        b.name(&y, result);
    }
    if let Some(result) = result(1) {
        // The last kernel - 1 tokens, counted from where so many are left.
        let end = b.ints(&[i64::MAX]);
        let axis = b.ints(&[2]);
        let length = b.op("Shape", &[x]);
        let start = b.op("Gather", &[&length, &axis]);
        let state = b.op("Slice", &[&tokens, &start, &end, &axis]);
        b.name(&state, result);
    }
    Ok(b.into_nodes())
}

/// The sum of key ⊗ value over tokens, which fades or is corrected from one to the next, and what the queries read of it.
pub(super) fn linear_attention(scene: &Scene<'_>, node: &NodeProto) -> Result<Vec<NodeProto>, Refusal> {
    let attention = LinearAttention::read(scene, node)?;
    let mut b = scene.builder(node);
    let [q, k, v] = [(0, attention.heads), (1, attention.key_heads), (2, attention.key_heads)]
        .map(|(slot, heads)| attention.tokens(&mut b, node.input_name(slot).unwrap_or_default(), heads));
    let optional = |b: &mut Builder<'_>, slot: usize| {
        // One rate for all heads is broadcast.
        let heads = if scene.size(node, slot, 2) == Some(1) { 1 } else { attention.key_heads };
        Some(attention.tokens(b, node.input_name(slot)?, heads))
    };
    let (decay, beta) = (optional(&mut b, 4), optional(&mut b, 5));
    let mut state = match node.input_name(3) {
        Some(state) => state.to_owned(),
        None => attention.zeros(&mut b, &k[0], &v[0]),
    };
    let mut results = Vec::new();
    for t in 0..q.len() {
        // Keys are columns, values and queries are rows.
        let key = b.transpose(&k[t], &[0, 1, 3, 2]);
        if let Some(decay) = &decay {
            let column = b.transpose(&decay[t], &[0, 1, 3, 2]);
            let factor = b.op("Exp", &[&column]);
            state = b.op("Mul", &[&state, &factor]);
        }
        let mut value = v[t].clone();
        if let Some(beta) = &beta {
            let known = b.op("MatMul", &[&k[t], &state]);
            let new = b.op("Sub", &[&value, &known]);
            value = b.op("Mul", &[&new, &beta[t]]);
        }
        let added = b.op("MatMul", &[&key, &value]);
        state = b.op("Add", &[&state, &added]);
        results.push(attention.read_out(&mut b, &q[t], &state));
    }
    let result = |slot: usize| node.output.get(slot).filter(|name| !name.is_empty());
    if let Some(result) = result(0) {
        let all = b.concat(&results, 1);
        b.name(&all, result);
    }
    if let Some(result) = result(1) {
        b.name(&state, result);
    }
    Ok(b.into_nodes())
}

struct LinearAttention {
    elem: i32,
    heads: i64,
    key_heads: i64,
    tokens: i64,
    scale: f64,
}

impl LinearAttention {
    fn read(scene: &Scene<'_>, node: &NodeProto) -> Result<Self, Refusal> {
        let (heads, key_heads) = (node.int("q_num_heads", 0), node.int("kv_num_heads", 0));
        if heads < 1 || key_heads < 1 || heads % key_heads != 0 {
            return Err(format!("{heads} heads of queries and {key_heads} of keys"));
        }
        let tokens = scene.size(node, 0, 1).ok_or("its number of tokens is not known")?;
        if !(1..=MAX_TOKENS).contains(&tokens) {
            return Err(format!("it has {tokens} tokens, and from 1 to {MAX_TOKENS} can be written out"));
        }
        let rule = node.string("update_rule", "gated_delta");
        let has = [4, 5].map(|slot| node.input_name(slot).is_some());
        let needs = match rule {
            b"linear" => [false, false],
            b"gated" => [true, false],
            b"delta" => [false, true],
            b"gated_delta" => [true, true],
            other => return Err(format!("update_rule {}", String::from_utf8_lossy(other))),
        };
        if has != needs {
            return Err(format!("update_rule {} and the inputs decay and beta", String::from_utf8_lossy(rule)));
        }
        if node.input_name(3).is_some() && scene.elem(node, 3) != scene.elem(node, 0) {
            return Err("its state is of another type than its query".into());
        }
        let width = scene.size(node, 0, 2).ok_or("the size of its heads is not known")?;
        let scale = match node.float("scale", 0.0) {
            0.0 => 1.0 / ((width / heads) as f64).sqrt(),
            scale => scale.into(),
        };
        Ok(Self { elem: scene.elem(node, 0), heads, key_heads, tokens, scale })
    }

    /// By token: [batch, heads, 1, size] of a packed [batch, tokens, heads · size].
    fn tokens(&self, b: &mut Builder<'_>, packed: &str, heads: i64) -> Vec<String> {
        let parts = b.split(packed, 1, &vec![1; self.tokens as usize]);
        let shape = b.ints(&[0, heads, 1, -1]);
        parts.iter().map(|part| b.op("Reshape", &[part, &shape])).collect()
    }

    /// The state before the first token: [batch, heads, key size, value size].
    fn zeros(&self, b: &mut Builder<'_>, key: &str, value: &str) -> String {
        let key = b.transpose(key, &[0, 1, 3, 2]);
        let shape = b.op("MatMul", &[&key, value]);
        b.filled_like(&shape, 0.0, self.elem)
    }

    /// [batch, 1, heads · value size]: what one token's queries read of the state, which several of them may share.
    fn read_out(&self, b: &mut Builder<'_>, query: &str, state: &str) -> String {
        let groups = b.ints(&[0, self.key_heads, self.heads / self.key_heads, -1]);
        let query = b.op("Reshape", &[query, &groups]);
        let read = b.op("MatMul", &[&query, state]);
        let scale = b.scalar(self.scale, self.elem);
        let scaled = b.op("Mul", &[&read, &scale]);
        let packed = b.ints(&[0, 1, -1]);
        b.op("Reshape", &[&scaled, &packed])
    }
}
