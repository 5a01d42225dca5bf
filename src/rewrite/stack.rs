//! Several products of one weight as one: which unit delivers the stacked result, and what the others leave behind.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::Flow;
use super::layer::{Conditioning, Refusal};
use super::tail::{Step, step};
use super::unit::{Unit, unsupported};
use crate::model::{NodeExt, NodeId, ValueId};
use crate::proto::NodeProto;

/// What disappears with a set of values.
#[derive(Debug, Clone, Default)]
pub(super) struct Dropped {
    /// Nodes that compute nothing any more.
    pub(super) nodes: BTreeSet<NodeId>,
    /// Terms that disappear from sums, by node: the input slots.
    pub(super) terms: BTreeMap<NodeId, BTreeSet<usize>>,
}

impl Dropped {
    /// Follows `values` to the sums that they are terms of.
    fn follow(flow: &Flow<'_>, values: impl IntoIterator<Item = ValueId>) -> Option<Self> {
        let mut dropped = Self::default();
        let mut pending: Vec<ValueId> = values.into_iter().collect();
        while let Some(value) = pending.pop() {
            let used = flow.index.value(value);
            if used.is_output || !used.captured_by.is_empty() {
                return None;
            }
            for &(reader, slot) in &used.consumers {
                let node = flow.node(reader);
                let gone = match step(flow, node, slot)? {
                    Step::Pass => true,
                    Step::Join if ["Add", "Sub", "Sum", "Gemm"].contains(&node.op_type()) => {
                        let slots = dropped.terms.entry(reader).or_default();
                        slots.insert(slot);
                        !node.is_onnx("Gemm") && slots.len() == node.input.len()
                    }
                    _ => return None,
                };
                if gone && dropped.nodes.insert(reader) {
                    dropped.terms.remove(&reader);
                    pending.extend(flow.index.output(node, 0));
                }
            }
        }
        Some(dropped)
    }
}

/// A sum without some of its terms.
pub(super) fn without_terms(node: &NodeProto, slots: &BTreeSet<usize>) -> NodeProto {
    let kept = |slot: &usize| !slots.contains(slot);
    let only = || node.input[(0..node.input.len()).find(kept).unwrap_or(0)].clone();
    let single = |op_type: &str| NodeProto { op_type: Some(op_type.to_owned()), input: vec![only()], ..node.clone() };
    match node.op_type() {
        "Sub" if slots.contains(&0) => single("Neg"),
        "Add" | "Sub" => single("Identity"),
        "Gemm" => NodeProto { input: node.input[..2].to_vec(), ..node.clone() },
        _ => NodeProto {
            input: (0..node.input.len()).filter(kept).map(|slot| node.input[slot].clone()).collect(),
            ..node.clone()
        },
    }
}

impl Conditioning {
    /// One product, conditioned by its own rows.
    pub(super) fn alone(unit: Unit) -> Self {
        Self { units: vec![(unit, 1.0)], dropped: Dropped::default() }
    }

    /// Products that add up, conditioned by the rows of all; with each comes the scale of its way to the sum.
    pub(super) fn stacked(flow: &Flow<'_>, mut group: Vec<(Unit, f64)>) -> Result<Self, Refusal> {
        group.sort_by_key(|(unit, _)| unit.nodes.last().copied());
        let Some((carrier, others)) = group.split_last() else {
            return Err(unsupported("it has no product"));
        };
        if others.is_empty() {
            return Ok(Self::alone(carrier.0.clone()));
        }
        let stacks = carrier.0.batched.len();
        let is_simple = |unit: &Unit| {
            // Of a stack of weights, the rows of each are joined along one axis.
            unit.rank.is_some() && unit.batched.len() == stacks && (stacks == 0 || unit.merged.is_empty())
        };
        if !group.iter().all(|(unit, _)| is_simple(unit)) {
            return Err(unsupported("products that add up lay out their rows in ways that cannot be joined"));
        }
        let mut dropped = Dropped::follow(flow, others.iter().map(|(unit, _)| unit.result))
            .ok_or_else(|| unsupported("one of the products that add up is also used by itself"))?;
        let coefficient = |(unit, scale): &(Unit, f64)| f64::from(unit.alpha) * scale;
        let carried = coefficient(carrier);
        let mut units: Vec<(Unit, f64)> =
            group.iter().map(|member| (member.0.clone(), coefficient(member) / carried)).collect();
        for (unit, _) in &mut units {
            // A product that another one was added to loses that term with it.
            if dropped.terms.remove(&unit.nodes[0]).is_some() {
                unit.addend = None;
            }
        }
        if units.iter().any(|(unit, _)| unit.addend.is_some()) {
            return Err(unsupported("another term is added inside one of the products that add up"));
        }
        Ok(Self { units, dropped })
    }
}
