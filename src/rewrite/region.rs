//! Which part of a parameter a term of its gradient is for.

use std::collections::BTreeSet;

use super::flow::Flow;
use crate::model::{NodeExt, NodeId};
use crate::proto::NodeProto;

/// Index sets of more elements are not compared.
const MAX_INDICES: i64 = 1 << 20;

/// A node that takes a gradient as a part of a larger tensor, or a part out of it.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    node: NodeId,
    /// Which part, where the node has several: an input of a Concat, an output of a Split.
    part: usize,
    /// The indices along one axis that the part is written to, where they are constant.
    written: Option<(i64, BTreeSet<i64>)>,
}

impl PartialEq for Cut {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node && self.part == other.part
    }
}

impl Cut {
    /// The cut of `node` on the way from its input `slot` to its output number `output`.
    pub(super) fn new(flow: &Flow<'_>, node: NodeId, slot: usize, output: usize) -> Self {
        Self { node, part: slot.max(output), written: written(flow, flow.node(node), slot) }
    }

    /// Whether no element of the larger tensor is in both parts.
    fn is_disjoint(&self, other: &Self, flow: &Flow<'_>) -> bool {
        if self.node == other.node {
            return matches!(flow.node(self.node).op_type(), "Concat" | "ConcatTraining");
        }
        match (&self.written, &other.written) {
            (Some((axis, own)), Some((other_axis, others))) => axis == other_axis && own.is_disjoint(others),
            _ => false,
        }
    }
}

/// Whether two terms that went through these cuts may meet in an element of the parameter.
pub(super) fn may_overlap(a: &[Cut], b: &[Cut], flow: &Flow<'_>) -> bool {
    a.iter().zip(b).find(|(a, b)| a != b).is_none_or(|(a, b)| !a.is_disjoint(b, flow))
}

/// The indices along one axis of the result that the gradient at `slot` is written to.
fn written(flow: &Flow<'_>, node: &NodeProto, slot: usize) -> Option<(i64, BTreeSet<i64>)> {
    let ints = |slot| flow.ints(flow.index.input(node, slot)?);
    let size = |axis: i64| {
        let shape = flow.shape(flow.index.input(node, slot)?)?;
        shape.get(usize::try_from(axis).ok()?)?.known().map(|size| size as i64)
    };
    let wrap = |at: i64, size: i64| if at < 0 { at + size } else { at };
    let set = |mut indices: std::ops::Range<i64>| {
        (indices.end - indices.start <= MAX_INDICES).then(|| indices.by_ref().collect())
    };
    match node.op_type() {
        "SliceGrad" => {
            let sizes = ints(1)?;
            let (starts, ends) = (ints(2)?, ints(3)?);
            let axes = ints(4).unwrap_or_else(|| (0..starts.len() as i64).collect());
            let step_is_one = flow.index.input(node, 5).is_none() || ints(5)?.iter().all(|&step| step == 1);
            let ([axis], [start], [end], true) = (&axes[..], &starts[..], &ends[..], step_is_one) else { return None };
            let axis = wrap(*axis, sizes.len() as i64);
            let size = *sizes.get(usize::try_from(axis).ok()?)?;
            Some((axis, set(wrap(*start, size).clamp(0, size)..wrap(*end, size).clamp(0, size))?))
        }
        "Pad" => {
            let pads = node.ints("pads").map(<[i64]>::to_vec).or_else(|| ints(1))?;
            let rank = pads.len() / 2;
            let padded: Vec<usize> = (0..rank).filter(|&i| pads[i] != 0 || pads[rank + i] != 0).collect();
            let [i] = padded[..] else { return None };
            let axes = ints(3).unwrap_or_else(|| (0..rank as i64).collect());
            let axis = wrap(axes[i], flow.shape(flow.index.input(node, slot)?)?.len() as i64);
            Some((axis, set(pads[i]..pads[i] + size(axis)?)?))
        }
        "GatherGrad" if slot == 2 => Some((node.int("axis", 0), ints(1)?.into_iter().collect())),
        "ScatterND" if slot == 2 => {
            let indices = flow.index.input(node, 1)?;
            // The first coordinate of each written element or row.
            let width = flow.shape(indices)?.last()?.known()? as usize;
            Some((0, flow.constant_ints(indices)?.into_iter().step_by(width.max(1)).collect()))
        }
        "ScatterElements" if slot == 2 => {
            Some((node.int("axis", 0), flow.constant_ints(flow.index.input(node, 1)?)?.into_iter().collect()))
        }
        _ => None,
    }
}
