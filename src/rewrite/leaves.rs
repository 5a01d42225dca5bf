//! Which of a graph's inputs and initializers can be parameters, and how they get into a layer's weight.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::{Flow, is_layout};
use super::sinks::{Sink, is_accumulator};
use crate::model::{Dim, NodeExt, NodeId, Producer, ValueId};

/// How a parameter gets into a layer's weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Via {
    /// Only its layout changes.
    Layout,
    /// Through a computation.
    Derived,
}

/// The leaves that a weight is made of, and how each gets into it.
pub(super) fn weight_leaves(flow: &Flow<'_>, weight: ValueId) -> BTreeMap<ValueId, Via> {
    let mut found = BTreeMap::new();
    let mut pending = vec![weight];
    while let Some(value) = pending.pop() {
        let Some((maker, _)) = flow.maker(value) else {
            found.entry(value).or_insert(Via::Layout);
            continue;
        };
        let node = flow.node(maker);
        let input = |slot| flow.index.input(node, slot);
        match node.op_type() {
            _ if is_layout(node) => pending.extend(input(0)),
            "Split" | "SplitTraining" | "Slice" | "Gather" | "Neg" => pending.extend(input(0)),
            "Concat" | "ConcatTraining" => pending.extend(flow.index.inputs(node)),
            "Mul" if input(0).is_some_and(|factor| flow.constant_scalar(factor).is_some()) => pending.extend(input(1)),
            "Mul" | "Div" if input(1).is_some_and(|factor| flow.constant_scalar(factor).is_some()) => {
                pending.extend(input(0))
            }
            _ => {
                let leaves = flow.leaves(value);
                for (leaf, _) in flow.index.values().filter(|&(id, _)| flow.is_leaf(id) && leaves.contains(id)) {
                    found.insert(leaf, Via::Derived);
                }
            }
        }
    }
    found
}

/// The leaves of a graph, as far as they may be parameters.
#[derive(Clone, Copy)]
pub(super) struct Leaves<'a> {
    pub(super) flow: &'a Flow<'a>,
    pub(super) sinks: &'a [Sink],
    /// The parameters, where somebody says which they are.
    pub(super) declared: Option<&'a BTreeSet<ValueId>>,
}

impl Leaves<'_> {
    /// The leaves that a value depends on.
    pub(super) fn leaves_of(&self, value: ValueId) -> impl Iterator<Item = ValueId> {
        let leaves = self.flow.leaves(value);
        self.flow.index.values().map(|(id, _)| id).filter(|&id| self.flow.is_leaf(id) && leaves.contains(id))
    }

    /// An input that has to be fed: no initializer is its default.
    pub(super) fn is_fed(&self, leaf: ValueId) -> bool {
        let value = self.flow.index.value(leaf);
        matches!(value.producer, Producer::Input(_))
            && !self.flow.graph.initializers().iter().any(|initializer| initializer.name() == value.name)
    }

    /// Whether a leaf can be a parameter: floating point, with a sink of its shape, and no accumulation buffer.
    pub(super) fn may_be_trained(&self, leaf: ValueId) -> bool {
        if let Some(declared) = self.declared {
            return declared.contains(&leaf);
        }
        let value = self.flow.index.value(leaf);
        let is_buffer = |&(node, slot): &(NodeId, usize)| slot == 0 && is_accumulator(self.flow.node(node));
        value.tensor_type.as_ref().is_none_or(|tensor| tensor.is_float())
            && !value.consumers.iter().any(is_buffer)
            && self.sinks.iter().any(|sink| sink.fits(self.flow.shape(leaf)))
    }

    /// Whether some of its sizes change from batch to batch.
    pub(super) fn varies(&self, leaf: ValueId) -> bool {
        self.flow.shape(leaf).is_some_and(|shape| shape.iter().any(|dim| matches!(dim, Dim::Symbol(_))))
    }

    /// A fed tensor that is combined, element by element, with a parameter of its shape: a mask, a frozen base weight.
    pub(super) fn is_frozen_partner(&self, leaf: ValueId) -> bool {
        let Some(own) = self.flow.shape(leaf).filter(|own| own.len() >= 2 && !self.varies(leaf)) else {
            return false;
        };
        self.flow.index.value(leaf).consumers.iter().any(|&(reader, slot)| {
            let node = self.flow.node(reader);
            let elementwise = ["Mul", "Add", "Sub", "Div"].iter().any(|op| node.is_onnx(op));
            let other = if elementwise { self.flow.index.input(node, 1 - slot) } else { None };
            other.is_some_and(|other| {
                self.leaves_of(other).any(|l| self.may_be_trained(l))
                    && self.leaves_of(other).all(|l| self.may_be_trained(l) || !self.is_fed(l))
                    && self.flow.shape(other).is_none_or(|shape| shape == own)
            })
        })
    }
}
