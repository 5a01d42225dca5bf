//! Conditions that follow from the graph: exporters compare sizes that are known.

use super::scene::Scene;
use crate::model::{Dim, Producer, ValueId};

/// No condition is followed further back.
const MAX_DEPTH: usize = 20;

/// The value of a boolean scalar, where it can be told.
pub(super) fn truth(scene: &Scene<'_>, value: ValueId) -> Option<bool> {
    follow(scene, value, MAX_DEPTH)
}

fn follow(scene: &Scene<'_>, value: ValueId, depth: usize) -> Option<bool> {
    if let Some(constant) = scene.graph.constant_bools(scene.index, value) {
        return single(&constant).copied();
    }
    let Producer::Node(id, _) = scene.index.value(value).producer else { return None };
    let node = &scene.graph.nodes()[id.0];
    let input = |slot| scene.index.input(node, slot);
    let of = |slot| follow(scene, input(slot)?, depth.checked_sub(1)?);
    let number = |slot| single(scene.types.content(input(slot)?)?).and_then(Dim::known);
    let compared = |test: fn(&u64, &u64) -> bool| Some(test(&number(0)?, &number(1)?));
    match node.op_type() {
        _ if !matches!(node.domain(), "" | "ai.onnx") => None,
        "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" => of(0),
        "Cast" => of(0).or_else(|| number(0).map(|number| number != 0)),
        "Not" => of(0).map(|truth| !truth),
        "And" => Some(of(0)? && of(1)?),
        "Or" => Some(of(0)? || of(1)?),
        "Equal" => compared(u64::eq),
        "Less" => compared(u64::lt),
        "LessOrEqual" => compared(u64::le),
        "Greater" => compared(u64::gt),
        "GreaterOrEqual" => compared(u64::ge),
        _ => None,
    }
}

fn single<T>(list: &[T]) -> Option<&T> {
    if let [single] = list { Some(single) } else { None }
}
