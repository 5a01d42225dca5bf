//! How far the gradient of a weight goes: from its product to where it is used, without meeting the data again.
//!
//! What depends on a product that is the gradient of an *activation* is a whole backward pass. What depends on one that is the gradient of a
//! weight is a tail: layout, sums with other gradients, arithmetic with weights, the update.

use std::collections::BTreeSet;

use super::contraction::Contraction;
use super::flow::{Flow, LeafSet};
use super::tail::step;
use crate::model::{NodeExt, NodeId, Producer, ValueId};
use crate::proto::NodeProto;

/// The nodes that the result of `product` goes through by layout, scale, slices and sums alone; the product is the first of them.
pub(super) fn linear(flow: &Flow<'_>, product: &Contraction) -> BTreeSet<NodeId> {
    reach(flow, product, |node, slots| slots.iter().any(|&slot| step(flow, node, slot).is_some()))
}

/// The nodes that the result of `product` goes through as the gradient of a weight does. In a sum, what is added is no input of the graph that
/// the product depends on already, unless it may be a weight (an update subtracts from it; a loss subtracts its targets). What it is combined with in any
/// other way does not depend on the data, or is a single number.
pub(super) fn of_weight_gradient(
    flow: &Flow<'_>,
    product: &Contraction,
    data: &LeafSet,
    weights: &BTreeSet<ValueId>,
) -> BTreeSet<NodeId> {
    let is_source = |leaf: ValueId| product.operands.iter().any(|operand| flow.leaves(operand.value).contains(leaf));
    reach(flow, product, |node, slots| {
        let others = || (0..node.input.len()).filter(|slot| !slots.contains(slot));
        let mut inputs = others().filter_map(|slot| flow.index.input(node, slot));
        let is_tail = |slot: &usize| step(flow, node, *slot).is_some();
        if slots.iter().any(is_tail) {
            // The factors of a Gemm that adds a gradient to its product are another matter.
            return node.is_onnx("Gemm")
                || !inputs.map(|input| flow.root(input)).any(|root| {
                    matches!(flow.index.value(root).producer, Producer::Input(_))
                        && is_source(root)
                        && !weights.contains(&root)
                });
        }
        inputs.all(|input| !flow.leaves(input).intersects(data) || flow.is_scalar(input))
    })
}

/// Follows the result of `product` through the nodes that let it pass, given the slots that it arrives at.
fn reach(flow: &Flow<'_>, product: &Contraction, passes: impl Fn(&NodeProto, &[usize]) -> bool) -> BTreeSet<NodeId> {
    let mut reached = BTreeSet::from([product.node]);
    // In order of execution, so that a node is looked at when all that arrives at it is known.
    let mut pending: BTreeSet<(usize, NodeId)> = readers(flow, product.node).collect();
    while let Some((_, id)) = pending.pop_first() {
        let node = flow.node(id);
        let arrives = |slot: &usize| {
            let maker = flow.index.input(node, *slot).and_then(|input| flow.maker(input));
            maker.is_some_and(|(maker, _)| reached.contains(&maker))
        };
        let slots: Vec<usize> = (0..node.input.len()).filter(arrives).collect();
        // What a subgraph reads of the graph around it cannot be told apart; its node lets all of it pass.
        if slots.is_empty() || passes(node, &slots) {
            reached.insert(id);
            pending.extend(readers(flow, id));
        }
    }
    reached
}

/// The nodes that read a result of `node`, themselves or in a subgraph, with their places in the order of execution.
fn readers(flow: &Flow<'_>, node: NodeId) -> impl Iterator<Item = (usize, NodeId)> {
    let node = flow.node(node);
    let outputs = (0..node.output.len()).filter_map(|slot| flow.index.output(node, slot));
    outputs.flat_map(|output| {
        let value = flow.index.value(output);
        let readers = value.consumers.iter().map(|(reader, _)| reader).chain(&value.captured_by);
        readers.map(|&reader| (flow.place(reader), reader))
    })
}
