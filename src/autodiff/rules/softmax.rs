//! Softmax and its logarithm, along one axis (opset 13 and later).

use super::{Rule, all};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;

pub(super) const RULES: &[(&str, Rule)] = &[("Softmax", all(softmax)), ("LogSoftmax", all(log_softmax))];

/// dx = y · (dy - Σ dy · y).
fn softmax(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let weighted = s.b.op("Mul", &[&s.dy(), s.y(0)]);
    let sum = s.b.sum(&weighted, &[s.node.int("axis", -1)], true);
    let common = s.b.op("Mul", &[s.y(0), &sum]);
    let gradient = s.b.op("Sub", &[&weighted, &common]);
    s.give(0, gradient);
    Ok(())
}

/// dx = dy - eʸ Σ dy.
fn log_softmax(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let probabilities = s.b.op("Exp", &[s.y(0)]);
    let sum = s.b.sum(&s.dy(), &[s.node.int("axis", -1)], true);
    let common = s.b.op("Mul", &[&probabilities, &sum]);
    let gradient = s.b.op("Sub", &[&s.dy(), &common]);
    s.give(0, gradient);
    Ok(())
}
