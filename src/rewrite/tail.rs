//! The way from a product to the gradient of its parameter: layout, scale, slices, and sums with other terms.

use std::collections::{BTreeMap, BTreeSet};

use super::contraction::transpose_permutation;
use super::flow::{Flow, is_layout};
use super::matching::Matching;
use super::region::{Cut, may_overlap};
use crate::model::{NodeExt, NodeId, ValueId};
use crate::proto::NodeProto;

/// Expanding a gradient stops after so many steps.
const MAX_STEPS: usize = 100_000;

/// A scale that the tail applies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    /// The product of the constant factors.
    pub(super) factor: f64,
    /// Scalar factors that are known only at run time.
    pub(super) runtime: Vec<ValueId>,
}

/// What adds up to a gradient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TermKind {
    /// A weight-gradient product, by position among the products.
    Product(usize),
    /// Rows added into a table: the gradient of an embedding.
    Scatter(NodeId),
    /// Anything else that depends on the data.
    Other(NodeId),
}

/// One term of a gradient, and its way there.
#[derive(Debug, Clone)]
pub(super) struct Term {
    pub(super) kind: TermKind,
    /// Whether an odd number of transposes lies on the way; `None` if axes move in another way.
    pub(super) swapped: Option<bool>,
    pub(super) scale: Scale,
    /// The slicing nodes on the way back from the gradient, with the slot that the term comes from: which part it is.
    pub(super) region: Vec<Cut>,
}

impl Term {
    /// Whether two terms may add up in some element of the parameter.
    pub(super) fn overlaps(&self, other: &Self, flow: &Flow<'_>) -> bool {
        may_overlap(&self.region, &other.region, flow)
    }
}

/// How a node of the tail passes a gradient on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The same elements, all of them, possibly scaled or summed over broadcast axes.
    Pass,
    /// A sum, of which this is one term.
    Join,
    /// A part of a larger tensor.
    Slice,
}

/// What `node` does with a gradient that arrives at `slot`; `None` where the tail ends.
pub(super) fn step(flow: &Flow<'_>, node: &NodeProto, slot: usize) -> Option<Step> {
    let scalar = |slot| flow.index.input(node, slot).is_some_and(|value| flow.is_scalar(value));
    let step = match (node.domain(), node.op_type()) {
        _ if is_layout(node) && slot == 0 => Step::Pass,
        ("" | "ai.onnx", "Neg" | "ReduceSum") if slot == 0 => Step::Pass,
        ("" | "ai.onnx", "Mul") if scalar(1 - slot) => Step::Pass,
        ("" | "ai.onnx", "Div") if slot == 0 && scalar(1) => Step::Pass,
        ("com.microsoft", "Scale") if slot == 0 => Step::Pass,
        ("" | "ai.onnx", "Add" | "Sub" | "Sum") => Step::Join,
        ("" | "ai.onnx", "Gemm") if slot == 2 => Step::Join,
        (_, "Concat" | "ConcatTraining") => Step::Slice,
        (_, "Split" | "SplitTraining" | "Slice" | "SliceGrad" | "Pad") if slot == 0 => Step::Slice,
        (_, "GatherGrad" | "ScatterND" | "ScatterElements") if slot == 2 => Step::Slice,
        ("" | "ai.onnx", "ScatterND" | "ScatterElements") if slot == 0 => Step::Join,
        _ => return None,
    };
    Some(step)
}

/// The tails of all products of a graph.
pub(super) struct Tails<'a> {
    flow: &'a Flow<'a>,
    matching: &'a Matching,
    /// By the value that a product makes.
    products: BTreeMap<ValueId, usize>,
}

impl<'a> Tails<'a> {
    pub(super) fn new(flow: &'a Flow<'a>, matching: &'a Matching) -> Self {
        let products = matching.products.iter().enumerate().map(|(i, p)| (p.contraction.output, i)).collect();
        Self { flow, matching, products }
    }

    /// The values at which the tail of `start` ends: its gradient is used there in another way than being passed on.
    pub(super) fn ends(&self, start: ValueId) -> Vec<ValueId> {
        let mut seen = BTreeSet::from([start]);
        let mut pending = vec![start];
        let mut ends = Vec::new();
        while let Some(value) = pending.pop() {
            let used = self.flow.index.value(value);
            let mut is_end = used.is_output || used.consumers.is_empty() || !used.captured_by.is_empty();
            for &(reader, slot) in &used.consumers {
                let node = self.flow.node(reader);
                if step(self.flow, node, slot).is_none() {
                    is_end = true;
                    continue;
                }
                let outputs = (0..node.output.len()).filter_map(|slot| self.flow.index.output(node, slot));
                pending.extend(outputs.filter(|&output| seen.insert(output)));
            }
            if is_end {
                ends.push(value);
            }
        }
        ends
    }

    /// The terms that add up to `end`; what does not depend on the data (weight decay, the parameter itself) is none.
    pub(super) fn terms(&self, end: ValueId) -> Vec<Term> {
        let way = Term {
            kind: TermKind::Product(usize::MAX),
            swapped: Some(false),
            scale: Scale { factor: 1.0, runtime: Vec::new() },
            region: Vec::new(),
        };
        let mut terms = Vec::new();
        let mut steps = 0;
        self.expand(end, &way, &mut terms, &mut steps);
        terms
    }

    fn expand(&self, value: ValueId, way: &Term, terms: &mut Vec<Term>, steps: &mut usize) {
        *steps += 1;
        let Some((maker, output)) = self.flow.maker(value) else {
            return;
        };
        if self.matching.is_data_free(self.flow, value) || *steps > MAX_STEPS {
            return;
        }
        let node = self.flow.node(maker);
        if let Some(&product) = self.products.get(&value) {
            terms.push(Term { kind: TermKind::Product(product), ..way.clone() });
            if let Some((addend, beta)) =
                self.matching.products[product].contraction.addend.filter(|(_, beta)| *beta != 0.0)
            {
                self.expand(addend, &way.scaled(beta.into()), terms, steps);
            }
            return;
        }
        let before = terms.len();
        let mut passed = false;
        for slot in 0..node.input.len() {
            let Some(input) = self.flow.index.input(node, slot) else {
                continue;
            };
            let Some(kind) = step(self.flow, node, slot) else {
                continue;
            };
            if kind == Step::Pass && passed {
                continue;
            }
            passed = true;
            let mut way = self.passed(way, value, node, slot);
            if kind == Step::Slice {
                // A slice is known by where it is cut: an input of a Concat, an output of a Split.
                way.region.push(Cut::new(self.flow, maker, slot, output));
            }
            self.expand(input, &way, terms, steps);
        }
        let found = terms[before..].iter().any(|term| matches!(term.kind, TermKind::Product(_)));
        if is_scatter(node) && !found {
            terms.truncate(before);
            terms.push(Term { kind: TermKind::Scatter(maker), ..way.clone() });
        } else if !passed {
            terms.push(Term { kind: TermKind::Other(maker), ..way.clone() });
        }
    }

    /// `way`, with what `node` does to the gradient at `slot` on the way to `output`.
    fn passed(&self, way: &Term, output: ValueId, node: &NodeProto, slot: usize) -> Term {
        let other = |slot| self.flow.index.input(node, slot);
        match node.op_type() {
            "Transpose" => {
                let permutation = transpose_permutation(self.flow, output).unwrap_or_default();
                let rank = permutation.len();
                let kept = permutation.iter().copied().eq(0..rank);
                let swap = (0..rank.saturating_sub(2)).chain(rank.checked_sub(1)).chain(rank.checked_sub(2));
                let swapped = rank >= 2 && permutation.iter().copied().eq(swap);
                let swapped = if swapped { way.swapped.map(|odd| !odd) } else { way.swapped.filter(|_| kept) };
                Term { swapped, ..way.clone() }
            }
            "Neg" => way.scaled(-1.0),
            "Sub" if slot == 1 => way.scaled(-1.0),
            "Mul" => way.scaled_by(self.flow, other(1 - slot), |factor| factor),
            "Div" => way.scaled_by(self.flow, other(1), |factor| 1.0 / factor),
            // com.microsoft::Scale multiplies or divides; which of the two matters only to a comparison of two such scales.
            "Scale" => way.at_run_time(other(1)),
            "Gemm" => way.scaled(node.float("beta", 1.0).into()),
            _ => way.clone(),
        }
    }
}

impl Term {
    fn scaled(&self, factor: f64) -> Self {
        let mut term = self.clone();
        term.scale.factor *= factor;
        term
    }

    fn scaled_by(&self, flow: &Flow<'_>, factor: Option<ValueId>, of: impl Fn(f64) -> f64) -> Self {
        match factor.and_then(|id| flow.constant_scalar(id)) {
            Some(constant) => self.scaled(of(constant)),
            None => self.at_run_time(factor),
        }
    }

    fn at_run_time(&self, factor: Option<ValueId>) -> Self {
        let mut term = self.clone();
        term.scale.runtime.extend(factor);
        term
    }
}

/// Whether a node adds rows into a table.
fn is_scatter(node: &NodeProto) -> bool {
    matches!(node.op_type(), "GatherGrad" | "ScatterND" | "ScatterElements" | "GatherNDGrad" | "GatherElementsGrad")
}
