//! Softmax and its logarithm, along one axis.

use super::{Rule, all};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;

pub(super) const RULES: &[(&str, Rule)] = &[("Softmax", all(softmax)), ("LogSoftmax", all(log_softmax))];

/// Before opset 13 all axes from one on were one.
fn need_one_axis(s: &Step<'_, '_>) -> Result<(), Refusal> {
    let last = s.rank(0).map(|rank| rank as i64 - 1);
    let axis = s.node.int("axis", 1);
    if s.b.opset() >= 13 || axis == -1 || Some(axis) == last {
        Ok(())
    } else {
        Err("before opset 13, over several axes".into())
    }
}

fn axis(s: &Step<'_, '_>) -> i64 {
    s.node.int("axis", if s.b.opset() >= 13 { -1 } else { 1 })
}

/// dx = y · (dy - Σ dy · y).
fn softmax(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    need_one_axis(s)?;
    let weighted = s.b.op("Mul", &[&s.dy(), s.y(0)]);
    let sum = s.b.sum(&weighted, &[axis(s)], true);
    let common = s.b.op("Mul", &[s.y(0), &sum]);
    let gradient = s.b.op("Sub", &[&weighted, &common]);
    s.give(0, gradient);
    Ok(())
}

/// dx = dy - eʸ Σ dy.
fn log_softmax(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    need_one_axis(s)?;
    let probabilities = s.b.op("Exp", &[s.y(0)]);
    let sum = s.b.sum(&s.dy(), &[axis(s)], true);
    let common = s.b.op("Mul", &[&probabilities, &sum]);
    let gradient = s.b.op("Sub", &[&s.dy(), &common]);
    s.give(0, gradient);
    Ok(())
}
