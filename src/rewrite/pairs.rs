//! Candidates: products that share a factor with an earlier product the way a weight gradient does.

use super::contraction::{Axes, Contraction, rank, transpose_permutation};
use super::flow::Flow;
use crate::model::ValueId;

/// A product and a forward product it may be the weight gradient of. Positions of factors are 0 (left) and 1 (right).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    /// The backward product, by position among the contractions.
    pub(super) product: usize,
    /// Which factor of it is the layer's input.
    pub(super) input: usize,
    /// The forward product.
    pub(super) forward: usize,
    /// Which factor of that is the layer's input.
    pub(super) data: usize,
}

/// All pairs that share a factor up to layout, with the other factor of the product below the result of the forward product.
pub(super) fn pairs(flow: &Flow<'_>, contractions: &[Contraction], descendants: &[Vec<bool>]) -> Vec<Pair> {
    let mut found = Vec::new();
    for product in (0..contractions.len()).filter(|&c| contractions[c].is_of_matrices(flow)) {
        for input in [0, 1] {
            let gradient = contractions[product].operands[1 - input].value;
            let Some((maker, _)) = flow.maker(gradient) else {
                continue;
            };
            // A product of a value with itself has no data side and no weight side.
            let is_layer = |&forward: &usize| {
                let [left, right] = contractions[forward].roots;
                descendants[forward][maker.0] && !flow.equal(left, right)
            };
            for forward in (0..contractions.len()).filter(is_layer) {
                for data in [0, 1] {
                    let pair = Pair { product, input, forward, data };
                    let roots = [contractions[product].roots[input], contractions[forward].roots[data]];
                    if flow.equal_up_to_layout(roots[0], roots[1]) && pair.axes_agree(flow, contractions) {
                        found.push(pair);
                    }
                }
            }
        }
    }
    found
}

impl Pair {
    fn is_same_factor(&self, flow: &Flow<'_>, contractions: &[Contraction]) -> bool {
        let [own, other] = [contractions[self.product].roots[self.input], contractions[self.forward].roots[self.data]];
        flow.equal(own, other)
    }

    /// The layer sums over features, its gradient over rows: the same axis of the common factor cannot be summed over in both.
    fn axes_agree(&self, flow: &Flow<'_>, contractions: &[Contraction]) -> bool {
        let place = |c: usize, side: usize, summed: bool| {
            let operand = &contractions[c].operands[side];
            let last_is_summed = match &operand.axes {
                Axes::SummedFirst => false,
                Axes::KeptFirst => true,
                Axes::Permuted(_) => return None,
            };
            let is_last = last_is_summed == summed || rank(flow, operand.value) == Some(1);
            feature_place(flow, operand.value, if is_last { 1 } else { 2 })
        };
        match (place(self.product, self.input, false), place(self.forward, self.data, true)) {
            // Of a constant and its transpose, the one has first what the other has last.
            (Some(kept), Some(summed)) => (kept == summed) == self.is_same_factor(flow, contractions),
            _ => true,
        }
    }
}

/// Where an axis of `value`, counted from the end, lies in the value at the root of its layout chain; `None` if that cannot be told.
fn feature_place(flow: &Flow<'_>, mut value: ValueId, mut from_end: usize) -> Option<usize> {
    while let Some(before) = flow.layout_input(value) {
        let node = flow.node(flow.maker(value)?.0);
        match node.op_type() {
            "Transpose" => {
                let permutation = transpose_permutation(flow, value)?;
                let rank = permutation.len();
                from_end = rank - permutation[rank.checked_sub(from_end)?];
            }
            "Identity" | "Cast" => {}
            // The last axis usually stays the last one; of the others nothing can be said.
            _ if from_end == 1 => {}
            _ => return None,
        }
        value = before;
    }
    Some(from_end)
}
