//! Layers: a trained weight with all products of its gradient, and whether it may be rewritten.

use std::collections::{BTreeMap, BTreeSet};

use super::bias::Bias;
use super::flow::Flow;
use super::leaves::{Via, weight_leaves};
use super::matching::{Layer, Matching};
use super::stack::Dropped;
use super::tail::{Tails, Term, TermKind};
use super::unit::{Unit, unsupported};
use crate::model::{Dim, GraphId, NodeExt, NodeId, ValueId};

/// Why a layer is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The weight is used as W and as Wᵀ: there is no single input side.
    TiedTranspose,
    /// The weight is also an embedding table.
    TiedEmbedding,
    /// The trained parameter reaches the layer through a computation.
    Derived,
    /// The gradient has another term that is no weight-gradient product.
    OtherTerm,
    /// The gradient comes out of one node.
    Opaque,
    /// The products are laid out in a way that the rewriter does not handle.
    Unsupported,
    /// `--layers` or `--method gradient` leaves it out.
    NotSelected,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::TiedTranspose,
        Self::TiedEmbedding,
        Self::Derived,
        Self::OtherTerm,
        Self::Opaque,
        Self::Unsupported,
        Self::NotSelected,
    ];

    /// The code in reports and on the command line.
    pub fn code(self) -> &'static str {
        match self {
            Self::TiedTranspose => "tied-transpose",
            Self::TiedEmbedding => "tied-embedding",
            Self::Derived => "derived",
            Self::OtherTerm => "other-term",
            Self::Opaque => "opaque",
            Self::Unsupported => "unsupported",
            Self::NotSelected => "not-selected",
        }
    }

    /// Whether a user may lift it: each product is then conditioned by itself, and ζ* need not be an ascent direction.
    pub fn can_be_allowed(self) -> bool {
        matches!(self, Self::TiedTranspose | Self::TiedEmbedding | Self::Derived | Self::OtherTerm)
    }
}

/// A reason with what it means in this graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// A sentence about this layer.
    pub detail: String,
}

/// One trained weight and the products that its gradient is made of.
#[derive(Debug, Clone)]
pub struct LayerGradient {
    /// Position in forward order, from 1.
    pub index: usize,
    /// The graph it was found in.
    pub graph: GraphId,
    /// The parameter's name.
    pub weight: String,
    /// The names of the values that its product nodes make, sorted.
    pub product_outputs: Vec<String>,
    /// How the products are written: `gemm`, `matmul`, `fused-matmul`, or the operator of an opaque one.
    pub pattern: String,
    /// n: features of the layer's input.
    pub in_features: Option<u64>,
    /// m: features of the layer's output.
    pub out_features: Option<u64>,
    /// The axes that make up the rows of one product.
    pub rows: Option<Vec<Dim>>,
    /// Why it is left alone by default.
    pub refusal: Option<Refusal>,
    /// Why it cannot be rewritten, whatever is allowed.
    pub(super) obstacle: Option<Refusal>,
    pub(super) products: BTreeSet<usize>,
    pub(super) conditioning: Vec<Conditioning>,
    /// The bias that can be conditioned with it.
    pub(super) bias: Option<Bias>,
    forward: NodeId,
}

/// Products that are conditioned together, their rows stacked: one operator.
#[derive(Debug, Clone)]
pub(super) struct Conditioning {
    /// The units, with the factor that each one's gradient takes relative to the last one's. The last one, in file order,
    /// delivers the result.
    pub(super) units: Vec<(Unit, f64)>,
    /// What the others leave behind.
    pub(super) dropped: Dropped,
}

/// Finds the layers of a graph, in forward order.
pub(super) fn layers(flow: &Flow<'_>, graph: GraphId, matching: &Matching) -> Vec<LayerGradient> {
    let tails = Tails::new(flow, matching);
    let mut by_weight: BTreeMap<ValueId, BTreeMap<usize, Use>> = BTreeMap::new();
    for (i, product) in matching.products.iter().enumerate() {
        for layer in &product.layers {
            for (leaf, via) in weight_leaves(flow, layer.weight.value) {
                if matching.trained.contains(&leaf) {
                    by_weight.entry(leaf).or_default().insert(i, Use { layer, via });
                }
            }
        }
    }
    let mut found: Vec<LayerGradient> = by_weight
        .into_iter()
        .map(|(weight, uses)| Builder { flow, matching, tails: &tails, graph, weight }.build(&uses))
        .collect();
    found.extend(opaque_layers(flow, graph));
    found.sort_by_key(|layer| layer.forward);
    found
}

/// The forward product that a product belongs to, and how the parameter gets into its weight.
struct Use<'a> {
    layer: &'a Layer,
    via: Via,
}

struct Builder<'a> {
    flow: &'a Flow<'a>,
    matching: &'a Matching,
    tails: &'a Tails<'a>,
    graph: GraphId,
    weight: ValueId,
}

impl Builder<'_> {
    fn build(&self, uses: &BTreeMap<usize, Use<'_>>) -> LayerGradient {
        let found = || uses.keys().map(|&i| &self.matching.products[i]);
        let (first, first_use) = uses.first_key_value().expect("a layer has a product");
        let first = &self.matching.products[*first];
        let [gradient, input] = [1 - first.input, first.input].map(|side| &first.contraction.operands[side]);
        let weight = first_use.layer.weight.clone().straightened(self.flow);
        let size = |by_weight: Option<&Dim>, by_operand: Option<&Dim>| {
            by_weight.and_then(Dim::known).or_else(|| by_operand.and_then(Dim::known))
        };
        let mut outputs: Vec<String> = found().map(|p| self.flow.name(p.contraction.output).to_owned()).collect();
        outputs.sort();
        let mut layer = LayerGradient {
            index: 0,
            graph: self.graph,
            weight: self.flow.name(self.weight).to_owned(),
            product_outputs: outputs,
            pattern: pattern(self.flow.node(first.contraction.node).op_type()),
            in_features: size(weight.summed(self.flow), input.kept(self.flow)),
            out_features: size(weight.kept(self.flow), gradient.kept(self.flow)),
            rows: None,
            refusal: None,
            obstacle: None,
            products: uses.keys().copied().collect(),
            conditioning: Vec::new(),
            bias: None,
            forward: uses.values().map(|u| u.layer.node).min().expect("a layer has a product"),
        };
        let is_direct = uses.values().all(|u| u.via == Via::Layout);
        let shape = if is_direct { self.flow.shape(self.weight) } else { None };
        let units: Result<BTreeMap<usize, Unit>, Refusal> =
            uses.keys().map(|&i| Ok((i, Unit::plan(self.flow, &self.matching.products[i], shape)?))).collect();
        match units {
            Ok(units) => {
                layer.rows = units.values().next().and_then(|unit| unit.rows(self.flow));
                let stacks = self.veto(uses).map_or_else(Err, |()| self.stack(&units));
                layer.conditioning = match stacks {
                    Ok(stacks) => stacks,
                    Err(refusal) => {
                        layer.refusal = Some(refusal);
                        units.into_values().map(Conditioning::alone).collect()
                    }
                };
                if let [Conditioning { units, .. }] = layer.conditioning.as_slice()
                    && let [(unit, _)] = units.as_slice()
                {
                    layer.bias = Bias::find(self.flow, unit);
                }
            }
            Err(obstacle) => {
                layer.refusal = Some(self.veto(uses).err().unwrap_or_else(|| obstacle.clone()));
                layer.obstacle = Some(obstacle);
            }
        }
        layer
    }

    /// The reasons of PATTERNS that do not depend on how the graph is written.
    fn veto(&self, uses: &BTreeMap<usize, Use<'_>>) -> Result<(), Refusal> {
        let refuse = |reason, detail: String| Err(Refusal { reason, detail });
        if let Some(derived) = uses.values().find(|u| u.via == Via::Derived) {
            let weight = self.flow.maker(self.flow.root(derived.layer.weight.value));
            let by = weight.map_or_else(String::new, |(node, _)| format!(" ({})", self.flow.node(node).label()));
            return refuse(Reason::Derived, format!("the parameter reaches the layer through a computation{by}"));
        }
        for terms in self.gradients(uses.keys()) {
            let own = |term: &&Term| matches!(term.kind, TermKind::Product(i) if uses.contains_key(&i));
            for mine in terms.iter().filter(own) {
                for other in terms.iter().filter(|other| mine.overlaps(other, self.flow)) {
                    match other.kind {
                        TermKind::Product(i) if uses.contains_key(&i) => {
                            if self.input_first(mine) != self.input_first(other) {
                                let detail =
                                    "the weight is used as W and as its transpose: there is no single input side";
                                return refuse(Reason::TiedTranspose, detail.into());
                            }
                        }
                        TermKind::Product(_) => {
                            return refuse(Reason::OtherTerm, "its gradient is added to that of another weight".into());
                        }
                        TermKind::Scatter(node) => {
                            let by = self.flow.node(node).label();
                            return refuse(
                                Reason::TiedEmbedding,
                                format!("the same table gets an embedding's gradient from {by}"),
                            );
                        }
                        TermKind::Other(node) => {
                            let by = self.flow.node(node).label();
                            return refuse(Reason::OtherTerm, format!("its gradient has another term, from {by}"));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// For each place where the parameter's gradient is used: the terms that add up to it.
    fn gradients<'p>(&self, products: impl Iterator<Item = &'p usize>) -> impl Iterator<Item = Vec<Term>> {
        let outputs = products.map(|&i| self.matching.products[i].contraction.output);
        let ends: BTreeSet<ValueId> = outputs.flat_map(|output| self.tails.ends(output)).collect();
        ends.into_iter().map(|end| self.tails.terms(end))
    }

    /// Whether the term brings the input features to the parameter's first axis; `None` if that cannot be told.
    fn input_first(&self, term: &Term) -> Option<bool> {
        match term.kind {
            TermKind::Product(i) => term.swapped.map(|odd| odd != (self.matching.products[i].input == 0)),
            _ => None,
        }
    }

    /// Groups the units that add up in the same part of the parameter.
    fn stack(&self, units: &BTreeMap<usize, Unit>) -> Result<Vec<Conditioning>, Refusal> {
        let mut together: BTreeMap<usize, BTreeSet<usize>> = units.keys().map(|&i| (i, BTreeSet::from([i]))).collect();
        let mut scales = BTreeMap::new();
        for terms in self.gradients(units.keys()) {
            for mine in &terms {
                let TermKind::Product(i) = mine.kind else {
                    continue;
                };
                for other in terms.iter().filter(|other| mine.overlaps(other, self.flow)) {
                    let TermKind::Product(j) = other.kind else {
                        continue;
                    };
                    if mine.region != other.region {
                        return Err(unsupported("its products are for different parts of the weight that may overlap"));
                    }
                    if i != j && (mine.scale.runtime != other.scale.runtime || mine.swapped.is_none()) {
                        return Err(unsupported("its products reach their sum by ways that cannot be compared"));
                    }
                    together.entry(i).or_default().insert(j);
                    scales.insert(i, mine.scale.factor);
                }
            }
        }
        let groups: BTreeSet<BTreeSet<usize>> = together.into_values().collect();
        groups
            .into_iter()
            .map(|group| {
                let group = group.iter().map(|i| (units[i].clone(), scales.get(i).copied().unwrap_or(1.0))).collect();
                Conditioning::stacked(self.flow, group)
            })
            .collect()
    }
}

fn pattern(op_type: &str) -> String {
    match op_type {
        "Gemm" | "FusedGemm" => "gemm".into(),
        "MatMul" => "matmul".into(),
        _ => "fused-matmul".into(),
    }
}

/// Weights whose gradient comes out of one node: (operator, output with the gradient, input with the weight).
const OPAQUE: [(&str, usize, usize); 6] = [
    ("ConvGrad", 1, 2),
    ("ConvTransposeGrad", 1, 2),
    ("LSTMGrad", 1, 1),
    ("LSTMGrad", 2, 2),
    ("GRUGrad", 1, 1),
    ("GRUGrad", 2, 2),
];

fn opaque_layers(flow: &Flow<'_>, graph: GraphId) -> Vec<LayerGradient> {
    let mut found: BTreeMap<ValueId, LayerGradient> = BTreeMap::new();
    for &id in flow.index.order() {
        let node = flow.node(id);
        for &(op_type, output, weight) in OPAQUE.iter().filter(|(op_type, ..)| node.is("com.microsoft", op_type)) {
            let (Some(gradient), Some(weight)) = (flow.index.output(node, output), flow.index.input(node, weight))
            else {
                continue;
            };
            let weight = flow.root(weight);
            if !flow.is_leaf(weight) {
                continue;
            }
            let forward = flow.index.value(weight).consumers.first().map_or(id, |&(reader, _)| reader);
            let layer = found.entry(weight).or_insert_with(|| LayerGradient {
                index: 0,
                graph,
                weight: flow.name(weight).to_owned(),
                product_outputs: Vec::new(),
                pattern: op_type.to_owned(),
                in_features: None,
                out_features: None,
                rows: None,
                obstacle: None,
                refusal: Some(Refusal {
                    reason: Reason::Opaque,
                    detail: format!("its gradient comes out of one node, {}", node.label()),
                }),
                products: BTreeSet::new(),
                conditioning: Vec::new(),
                bias: None,
                forward,
            });
            layer.product_outputs.push(flow.name(gradient).to_owned());
        }
    }
    found.into_values().collect()
}
