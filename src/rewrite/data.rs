//! Which of a graph's inputs change from batch to batch.

use std::collections::{BTreeMap, BTreeSet};

use super::contraction::Contraction;
use super::flow::LeafSet;
use super::leaves::Leaves;
use super::pairs::Pair;
use super::reach;
use crate::model::{NodeId, ValueId};

/// The fed inputs that are data, given the candidates for weight gradients.
pub(super) fn data_leaves(leaves: Leaves<'_>, contractions: &[Contraction], pairs: &[Pair]) -> LeafSet {
    let flow = leaves.flow;
    let is_fed_leaf = |&id: &ValueId| flow.is_leaf(id) && leaves.is_fed(id);
    let fed: Vec<ValueId> = flow.index.values().map(|(id, _)| id).filter(is_fed_leaf).collect();
    let mut data = LeafSet::default();
    for &leaf in fed.iter().filter(|&&leaf| !leaves.may_be_trained(leaf) && !leaves.is_frozen_partner(leaf)) {
        data.insert(leaf);
    }
    if leaves.declared.is_some() {
        return data;
    }
    let data_side = |pair: &Pair| contractions[pair.forward].operands[pair.data].value;
    let weight_root = |pair: &Pair| contractions[pair.forward].roots[1 - pair.data];
    // A weight that is an input itself has its gradient at the end of a tail; a candidate without one belongs to an activation.
    let products: BTreeSet<usize> = pairs.iter().map(|pair| pair.product).collect();
    let tails: BTreeMap<usize, BTreeSet<NodeId>> =
        products.into_iter().map(|product| (product, reach::linear(flow, &contractions[product]))).collect();
    let arrives = |pair: &&Pair| {
        let root = weight_root(pair);
        let tail = &tails[&pair.product];
        !flow.is_leaf(root)
            || leaves.sinks.iter().any(|sink| {
                sink.fits(flow.shape(root)) && flow.maker(sink.value).is_some_and(|(maker, _)| tail.contains(&maker))
            })
    };
    let pairs: Vec<&Pair> = pairs.iter().filter(arrives).collect();
    // A layer's input whose own gradient is never computed, while its weight's is, is no parameter.
    let weights: BTreeSet<ValueId> = pairs.iter().map(|pair| weight_root(pair)).collect();
    for pair in &pairs {
        if !pairs.iter().any(|other| other.forward == pair.forward && other.data != pair.data) {
            let below = flow.leaves(data_side(pair));
            for &leaf in fed.iter().filter(|&&leaf| below.contains(leaf) && !weights.contains(&leaf)) {
                data.insert(leaf);
            }
        }
    }
    if !pairs.iter().any(|pair| flow.leaves(data_side(pair)).intersects(&data)) {
        // Every input has a gradient: the first product of two of them is that of the data and a weight.
        let inputs = pairs.iter().map(|pair| (pair, contractions[pair.forward].roots[pair.data]));
        let first = inputs
            .filter(|&(_, root)| leaves.is_fed(root))
            .min_by_key(|&(pair, root)| (contractions[pair.forward].node, !leaves.varies(root), pair.data));
        first.into_iter().for_each(|(_, root)| data.insert(root));
    }
    data
}
