//! RotaryEmbedding (opset 23).

use super::{Rule, first};
use crate::autodiff::step::{Refusal, Step};
use crate::proto::NodeProto;

pub(super) const RULES: &[(&str, Rule)] = &[("RotaryEmbedding", first(1, rotary_embedding))];

/// Pairs of elements are rotated; the gradient is rotated back.
fn rotary_embedding(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let (dy, sine) = (s.dy(), s.b.op("Neg", &[s.x(2)]));
    let mut inputs = vec![dy.as_str(), s.x(1), &sine];
    if s.has(3) {
        inputs.push(s.x(3));
    }
    let attribute = s.node.attribute.clone();
    let gradient = s.b.with("RotaryEmbedding", &inputs, |node| NodeProto { attribute, ..node });
    s.give(0, gradient);
    Ok(())
}
