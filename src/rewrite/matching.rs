//! Which matrix products are weight gradients, and of which layer.
//!
//! A layer is a forward product `Y = X · W` in which one factor comes from parameters alone. Its weight gradient is a product of
//! X and the gradient of Y. So a candidate is a product Q of which one factor is, up to layout, a factor X of an earlier product
//! F, while the other factor depends on F's result: forward values never depend on backward ones, so the two cannot
//! change places. That alone also finds the gradients of two activations that are multiplied (attention, contrastive losses): the
//! other factor of F must depend on parameters only, which needs to know the data. No name is looked at, except to break ties.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::contraction::{Contraction, Operand};
use super::flow::{Flow, LeafSet};
use super::leaves::{Leaves, Via, weight_leaves};
use super::pairs::{Pair, pairs};
use super::sinks::Sink;
use crate::model::{Dim, NodeExt, NodeId, ValueId};

/// A weight-gradient product.
#[derive(Debug, Clone)]
pub(super) struct Product {
    pub(super) contraction: Contraction,
    /// Which factor is the layer's input; the other one is the gradient of its output.
    pub(super) input: usize,
    /// The forward product.
    pub(super) forward: NodeId,
    /// The layer's weight, as the forward product reads it.
    pub(super) weight: Operand,
}

/// What was found in a graph.
pub(super) struct Matching {
    pub(super) products: Vec<Product>,
    /// The trained leaves.
    pub(super) trained: BTreeSet<ValueId>,
    /// The inputs that change from batch to batch.
    pub(super) data: LeafSet,
    /// Products that look like weight gradients and are none, with what they are.
    pub(super) near_misses: Vec<(NodeId, &'static str)>,
}

impl Matching {
    /// Matches the products of a graph. `declared` are the parameters, where somebody says which they are.
    pub(super) fn new(flow: &Flow<'_>, sinks: &[Sink], declared: Option<&BTreeSet<ValueId>>) -> Self {
        let contractions: Vec<_> =
            flow.index.order().iter().filter_map(|&node| Contraction::parse(flow, node)).collect();
        let descendants: Vec<_> = contractions.iter().map(|c| flow.descendants(c.output)).collect();
        let pairs = pairs(flow, &contractions, &descendants);
        let leaves = Leaves { flow, sinks, declared };
        let search = Search { flow, leaves, contractions: &contractions, descendants: &descendants, pairs: &pairs };
        let data = search.data();
        let layers = search.layers(&data);
        let products = search.products(&layers);
        let trained = search.trained(&products);
        let near_misses = search.near_misses(&data, &products);
        Self { products, trained, data, near_misses }
    }

    /// Whether a value is the same for every batch, as far as the graph tells.
    pub(super) fn is_data_free(&self, flow: &Flow<'_>, value: ValueId) -> bool {
        !flow.leaves(value).intersects(&self.data)
    }
}

struct Search<'a> {
    flow: &'a Flow<'a>,
    leaves: Leaves<'a>,
    contractions: &'a [Contraction],
    descendants: &'a [Vec<bool>],
    pairs: &'a [Pair],
}

impl Search<'_> {
    fn weight_side(&self, pair: &Pair) -> ValueId {
        self.contractions[pair.forward].operands[1 - pair.data].value
    }

    fn weight_root(&self, pair: &Pair) -> ValueId {
        self.contractions[pair.forward].roots[1 - pair.data]
    }

    fn data_side(&self, pair: &Pair) -> ValueId {
        self.contractions[pair.forward].operands[pair.data].value
    }

    /// The inputs that change from batch to batch.
    fn data(&self) -> LeafSet {
        let fed: Vec<ValueId> = self
            .flow
            .index
            .values()
            .map(|(id, _)| id)
            .filter(|&id| self.flow.is_leaf(id) && self.leaves.is_fed(id))
            .collect();
        let mut data = LeafSet::default();
        for &leaf in
            fed.iter().filter(|&&leaf| !self.leaves.may_be_trained(leaf) && !self.leaves.is_frozen_partner(leaf))
        {
            data.insert(leaf);
        }
        // A layer's input whose own gradient is never computed, while its weight's is, is no parameter.
        let weights: BTreeSet<ValueId> = self.pairs.iter().map(|pair| self.weight_root(pair)).collect();
        for pair in self.pairs.iter().filter(|_| self.leaves.declared.is_none()) {
            if !self.pairs.iter().any(|other| other.forward == pair.forward && other.data != pair.data) {
                let leaves = self.flow.leaves(self.data_side(pair));
                for &leaf in fed.iter().filter(|&&leaf| leaves.contains(leaf) && !weights.contains(&leaf)) {
                    data.insert(leaf);
                }
            }
        }
        if !self.pairs.iter().any(|pair| self.flow.leaves(self.data_side(pair)).intersects(&data)) {
            // Every input has a gradient: the first product of two of them is that of the data and a weight.
            let inputs = self.pairs.iter().map(|pair| (pair, self.contractions[pair.forward].roots[pair.data]));
            let first = inputs.filter(|&(_, root)| self.leaves.is_fed(root)).min_by_key(|&(pair, root)| {
                (self.contractions[pair.forward].node, !self.leaves.varies(root), pair.data)
            });
            first.into_iter().for_each(|(_, root)| data.insert(root));
        }
        data
    }

    /// The pairs whose forward product is a layer: a weight made of parameters alone, and no arithmetic among weights.
    fn layers(&self, data: &LeafSet) -> Vec<Pair> {
        let weighted: Vec<Pair> = self
            .pairs
            .iter()
            .filter(|pair| {
                let weight = self.weight_side(pair);
                !self.flow.leaves(weight).intersects(data)
                    && self.leaves.leaves_of(weight).any(|leaf| self.leaves.may_be_trained(leaf))
            })
            .copied()
            .collect();
        let computed: BTreeSet<ValueId> =
            weighted.iter().map(|pair| self.weight_root(pair)).filter(|&root| !self.flow.is_leaf(root)).collect();
        let arithmetic: Vec<Vec<bool>> = computed.into_iter().map(|root| self.flow.ancestors(root)).collect();
        let makes_weight = |pair: &Pair| {
            let forward = &self.contractions[pair.forward];
            !self.flow.leaves(forward.output).intersects(data) && arithmetic.iter().any(|above| above[forward.node.0])
        };
        weighted.iter().filter(|pair| !makes_weight(pair)).copied().collect()
    }

    /// Chooses one layer for each product.
    fn products(&self, layers: &[Pair]) -> Vec<Product> {
        let forward: BTreeSet<NodeId> = layers.iter().map(|pair| self.contractions[pair.forward].node).collect();
        let mut candidates: BTreeMap<usize, Vec<&Pair>> = BTreeMap::new();
        for pair in layers {
            // A product that a layer depends on is part of the forward pass itself.
            if !forward.iter().any(|layer| self.descendants[pair.product][layer.0]) {
                candidates.entry(pair.product).or_default().push(pair);
            }
        }
        // The clearest choices first, so that a tie is broken among what is left.
        let mut order: Vec<_> = candidates.into_iter().collect();
        order.sort_by_key(|(_, pairs)| (Reverse(pairs.iter().map(|pair| self.evidence(pair)).max()), pairs.len()));
        let mut taken = BTreeSet::new();
        let mut products = Vec::new();
        for (product, pairs) in order {
            let best = pairs.into_iter().max_by_key(|pair| {
                (self.evidence(pair), !taken.contains(&pair.forward), self.names_agree(pair), Reverse(pair.forward))
            });
            if let Some(pair) = best {
                taken.insert(pair.forward);
                products.push(Product {
                    contraction: self.contractions[product].clone(),
                    input: pair.input,
                    forward: self.contractions[pair.forward].node,
                    weight: self.contractions[pair.forward].operands[1 - pair.data].clone(),
                });
            }
        }
        products.sort_by_key(|product| product.contraction.node);
        products
    }

    /// What speaks for a pair: the gradient meets this very weight elsewhere (in the gradient of the layer's input), a gradient of the
    /// weight's shape is made from the product, and the sizes fit.
    fn evidence(&self, pair: &Pair) -> (bool, bool, bool) {
        let gradient = &self.contractions[pair.product].operands[1 - pair.input];
        let weight = &self.contractions[pair.forward].operands[1 - pair.data];
        let gradient_root = self.contractions[pair.product].roots[1 - pair.input];
        let is_pair =
            |a: ValueId, b: ValueId| self.flow.equal(a, gradient_root) && self.flow.equal(b, self.weight_root(pair));
        let meets = self.contractions.iter().any(|c| {
            let [left, right] = c.roots;
            is_pair(left, right) || is_pair(right, left)
        });
        let size = |dim: Option<&Dim>| dim.and_then(Dim::known);
        let fits = size(gradient.kept(self.flow)).is_some_and(|m| size(weight.kept(self.flow)) == Some(m));
        (meets, self.arrives(pair, |_| true), fits)
    }

    fn names_agree(&self, pair: &Pair) -> bool {
        let weight = self.flow.name(self.weight_root(pair));
        self.arrives(pair, |sink| self.flow.name(sink.value).contains(weight))
    }

    /// Whether a sink of the weight's shape, of which `also` holds, depends on the product.
    fn arrives(&self, pair: &Pair, also: impl Fn(&Sink) -> bool) -> bool {
        let node = self.contractions[pair.product].node;
        let shape = self.flow.shape(self.weight_root(pair));
        self.leaves.sinks.iter().any(|sink| {
            sink.fits(shape) && also(sink) && self.is_below(sink.value, node, &self.descendants[pair.product])
        })
    }

    fn is_below(&self, value: ValueId, node: NodeId, descendants: &[bool]) -> bool {
        self.flow.maker(value).is_some_and(|(maker, _)| maker == node || descendants[maker.0])
    }

    /// The parameters: those that a layer's weight is laid out from, and those it is derived from. Each claims a sink of its shape
    /// below the layer's product, as long as there is one.
    fn trained(&self, products: &[Product]) -> BTreeSet<ValueId> {
        if let Some(declared) = self.leaves.declared {
            return declared.clone();
        }
        let mut trained: BTreeSet<ValueId> = self.leaves.sinks.iter().filter_map(|sink| sink.parameter).collect();
        let mut open: Vec<&Sink> = self.leaves.sinks.iter().filter(|sink| sink.parameter.is_none()).collect();
        for via in [Via::Layout, Via::Derived] {
            for product in products {
                let below = self.flow.descendants(product.contraction.output);
                let weight_leaves = weight_leaves(self.flow, product.weight.value).into_iter();
                let mut leaves: Vec<ValueId> = weight_leaves.filter(|&(_, v)| v == via).map(|(leaf, _)| leaf).collect();
                leaves.retain(|leaf| self.leaves.may_be_trained(*leaf) && !trained.contains(leaf));
                // Where a runtime feeds the parameters, constants are none.
                leaves.sort_by_key(|&leaf| (!self.leaves.is_fed(leaf), self.is_multiplier(leaf, &below)));
                for leaf in leaves {
                    let fits = |sink: &&Sink| {
                        sink.fits(self.flow.shape(leaf)) && self.is_below(sink.value, product.contraction.node, &below)
                    };
                    let named = |sink: &&Sink| fits(sink) && self.flow.name(sink.value).contains(self.flow.name(leaf));
                    if let Some(at) = open.iter().position(|s| named(s)).or_else(|| open.iter().position(|s| fits(s))) {
                        open.remove(at);
                        trained.insert(leaf);
                    }
                }
            }
        }
        trained
    }

    /// Whether a node below a product multiplies by this leaf: the gradient of `w · c` with respect to w is multiplied by c.
    fn is_multiplier(&self, leaf: ValueId, below: &[bool]) -> bool {
        self.flow
            .index
            .value(leaf)
            .consumers
            .iter()
            .any(|(reader, _)| below[reader.0] && self.flow.node(*reader).is_onnx("Mul"))
    }

    /// What each product is that shares a factor with an earlier one like a weight gradient does, and was not taken.
    fn near_misses(&self, data: &LeafSet, products: &[Product]) -> Vec<(NodeId, &'static str)> {
        let mut found = BTreeMap::new();
        let weights: Vec<ValueId> = products.iter().map(|product| self.flow.root(product.weight.value)).collect();
        for pair in self.pairs {
            let node = self.contractions[pair.product].node;
            if products.iter().any(|product| product.contraction.node == node) {
                continue;
            }
            let factor = self.contractions[pair.product].roots[pair.input];
            let what = if weights.iter().any(|&weight| self.flow.equal(weight, factor)) {
                "it is the gradient of a layer's input: a weight times the gradient of the output"
            } else if self.flow.leaves(self.weight_side(pair)).intersects(data) {
                "it is the gradient of a product of two activations: no factor of that is made of parameters alone"
            } else {
                "it is the gradient of arithmetic among weights, or part of the forward pass"
            };
            found.entry(node).or_insert(what);
        }
        found.into_iter().collect()
    }
}
