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
use super::data::data_leaves;
use super::flow::{Flow, LeafSet, is_layout};
use super::leaves::{Leaves, Via, weight_leaves};
use super::pairs::{Pair, pairs};
use super::reach;
use super::sinks::Sink;
use crate::model::{Dim, NodeExt, NodeId, ValueId};

/// A weight-gradient product.
#[derive(Debug, Clone)]
pub(super) struct Product {
    pub(super) contraction: Contraction,
    /// Its position among the contractions.
    position: usize,
    /// Which factor is the layer's input; the other one is the gradient of its output.
    pub(super) input: usize,
    /// The layers that it is for: one, unless equal products of several layers were merged.
    pub(super) layers: Vec<Layer>,
}

/// A forward product with a weight.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// The product.
    pub(super) node: NodeId,
    /// The weight, as the product reads it.
    pub(super) weight: Operand,
}

/// Products with the same factor that look like weight gradients and are none.
#[derive(Debug)]
pub(super) struct NearMiss {
    /// The products, in file order.
    pub(super) nodes: Vec<NodeId>,
    /// The factor that they share with each other and with an earlier product; of a weight, the parameter.
    pub(super) factor: ValueId,
    /// What they are.
    pub(super) what: &'static str,
}

/// What was found in a graph.
pub(super) struct Matching {
    pub(super) products: Vec<Product>,
    /// The trained leaves.
    pub(super) trained: BTreeSet<ValueId>,
    /// The inputs that change from batch to batch.
    pub(super) data: LeafSet,
    /// Products that look like weight gradients and are none.
    pub(super) near_misses: Vec<NearMiss>,
}

impl Matching {
    /// Matches the products of a graph. `declared` are the parameters, where somebody says which they are.
    pub(super) fn new(flow: &Flow<'_>, sinks: &[Sink], declared: Option<&BTreeSet<ValueId>>) -> Self {
        let contractions: Vec<_> =
            flow.index.order().iter().filter_map(|&node| Contraction::parse(flow, node)).collect();
        let descendants: Vec<_> = contractions.iter().map(|c| flow.descendants(c.output)).collect();
        let pairs = pairs(flow, &contractions, &descendants);
        let leaves = Leaves { flow, sinks, declared };
        let data = data_leaves(leaves, &contractions, &pairs);
        let candidates: BTreeSet<usize> = pairs.iter().map(|pair| pair.product).collect();
        let roots: BTreeSet<ValueId> =
            pairs.iter().map(|pair| contractions[pair.forward].roots[1 - pair.data]).collect();
        let parts_of = |&root: &ValueId| weight_leaves(flow, root).into_iter().filter(|(_, via)| *via == Via::Layout);
        let weights = roots.iter().flat_map(parts_of).map(|(leaf, _)| leaf).collect();
        let tail =
            |&product: &usize| (product, reach::of_weight_gradient(flow, &contractions[product], &data, &weights));
        let tails = candidates.iter().map(tail).collect();
        let search =
            Search { flow, leaves, contractions: &contractions, descendants: &descendants, tails, pairs: &pairs };
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
    /// By contraction: the nodes that depend on it.
    descendants: &'a [Vec<bool>],
    /// By product: the nodes that its result goes through as the gradient of a weight does.
    tails: BTreeMap<usize, BTreeSet<NodeId>>,
    pairs: &'a [Pair],
}

impl Search<'_> {
    fn weight_side(&self, pair: &Pair) -> ValueId {
        self.contractions[pair.forward].operands[1 - pair.data].value
    }

    fn weight_root(&self, pair: &Pair) -> ValueId {
        self.contractions[pair.forward].roots[1 - pair.data]
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
            // A product that a layer depends on is part of the forward pass itself; one that comes to no gradient without meeting the
            // data again is the gradient of an activation.
            let is_forward = forward.iter().any(|layer| self.descendants[pair.product][layer.0]);
            if !is_forward && self.comes_to_gradient(pair) {
                candidates.entry(pair.product).or_default().push(pair);
            }
        }
        // The clearest choices first, so that a tie is broken among what is left.
        let mut order: Vec<_> = candidates.into_iter().collect();
        order.sort_by_key(|(_, pairs)| {
            let best = pairs.iter().map(|pair| (self.evidence(pair), self.names_agree(pair))).max();
            (Reverse(best), pairs.len())
        });
        let mut taken = BTreeSet::new();
        let mut chosen: Vec<(usize, Vec<&Pair>)> = Vec::new();
        for (product, pairs) in &order {
            let best = pairs.iter().copied().max_by_key(|pair| {
                (self.evidence(pair), !taken.contains(&pair.forward), self.names_agree(pair), Reverse(pair.forward))
            });
            taken.extend(best.map(|pair| pair.forward));
            chosen.push((*product, best.into_iter().collect()));
        }
        // Equal products of several layers may have been merged: the result then arrives at more gradients than one.
        for ((product, pairs), (_, own)) in order.iter().zip(&mut chosen) {
            let arrivals = self.arrivals(*product, own[0]).count();
            let best = self.evidence(own[0]);
            for pair in pairs {
                if own.len() < arrivals && self.evidence(pair) == best && taken.insert(pair.forward) {
                    own.push(pair);
                }
            }
        }
        let layer = |pair: &&Pair| Layer {
            node: self.contractions[pair.forward].node,
            weight: self.contractions[pair.forward].operands[1 - pair.data].clone(),
        };
        let mut products: Vec<Product> = chosen
            .iter()
            .map(|(product, pairs)| Product {
                contraction: self.contractions[*product].clone(),
                position: *product,
                input: pairs[0].input,
                layers: pairs.iter().map(layer).collect(),
            })
            .collect();
        products.sort_by_key(|product| product.contraction.node);
        products
    }

    /// Whether the tail of a product comes to a sink that can be the gradient of a parameter in the pair's weight.
    fn comes_to_gradient(&self, pair: &Pair) -> bool {
        let mut sinks = self.leaves.sinks.iter().filter(|sink| self.is_in_tail(sink.value, pair.product));
        let parameters: Vec<ValueId> = self.leaves.leaves_of(self.weight_side(pair)).collect();
        let fits = |sink: &Sink| {
            parameters.iter().any(|&leaf| self.leaves.may_be_trained(leaf) && sink.fits(self.flow.shape(leaf)))
        };
        // Where the parameters are declared, their gradients may be delivered in any form.
        sinks.any(|sink| self.leaves.declared.is_some() || fits(sink))
    }

    /// What speaks for a pair, the strongest first: the gradient meets this very weight elsewhere (in the gradient of the layer's input);
    /// the weight meets what is made from the product (in its update); a gradient of the weight's shape is made from the product;
    /// the sizes fit; the gradient is made from what the layer's output is used with.
    fn evidence(&self, pair: &Pair) -> [bool; 5] {
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
        let arrives = self.arrivals(pair.product, pair).next().is_some();
        [meets, self.is_updated(pair), arrives, fits, self.is_adjoint(pair)]
    }

    /// Whether the product is added to the weight, or something below it also reads the weight by a way that does not go through the product.
    fn is_updated(&self, pair: &Pair) -> bool {
        let root = self.weight_root(pair);
        let tail = &self.tails[&pair.product];
        let Contraction { node, addend, .. } = &self.contractions[pair.product];
        let is_added_to = addend.is_some_and(|(addend, _)| self.flow.root(addend) == root);
        let meets_in_tail = || {
            tail.iter().filter(|&id| id != node).any(|&id| {
                let mut reads = self.flow.index.inputs(self.flow.node(id));
                reads.any(|read| !self.is_in_tail(read, pair.product) && self.flow.leaves(read).contains(root))
            })
        };
        self.flow.is_leaf(root) && (is_added_to || meets_in_tail())
    }

    /// Whether the node that makes the gradient reads what the layer's output is used with: the derivative of a product `y · z` with respect
    /// to y is made from z, that of any other `f(y, z)` from y, z or f(y, z).
    fn is_adjoint(&self, pair: &Pair) -> bool {
        let gradient = self.contractions[pair.product].roots[1 - pair.input];
        let Some((maker, _)) = self.flow.maker(gradient) else { return false };
        let partners = self.partners(self.contractions[pair.forward].output);
        let mut reads = self.flow.index.inputs(self.flow.node(maker)).map(|read| self.flow.root(read));
        reads.any(|read| partners.iter().any(|&value| self.flow.equal(value, read)))
    }

    /// What a value is used with, behind layout and sums.
    fn partners(&self, value: ValueId) -> Vec<ValueId> {
        let mut found = Vec::new();
        let mut pending = vec![value];
        while let Some(value) = pending.pop() {
            for &(reader, slot) in &self.flow.index.value(value).consumers {
                let node = self.flow.node(reader);
                let output = self.flow.index.output(node, 0);
                if is_layout(node) || node.is_onnx("Add") {
                    pending.extend(output);
                    continue;
                }
                let is_product = self.contractions.iter().any(|c| c.node == reader);
                let others = (0..node.input.len()).filter(|&other| !is_product || other != slot);
                let inputs = others.filter_map(|slot| self.flow.index.input(node, slot));
                found.extend(inputs.chain(output.filter(|_| !is_product)).map(|value| self.flow.root(value)));
            }
        }
        found
    }

    fn names_agree(&self, pair: &Pair) -> bool {
        let weight = self.flow.name(self.weight_root(pair));
        self.arrivals(pair.product, pair).any(|sink| self.flow.name(sink.value).contains(weight))
    }

    /// The sinks of the weight's shape that the tail of a product comes to.
    fn arrivals(&self, product: usize, pair: &Pair) -> impl Iterator<Item = &Sink> {
        let shape = self.flow.shape(self.weight_root(pair));
        self.leaves.sinks.iter().filter(move |sink| sink.fits(shape) && self.is_in_tail(sink.value, product))
    }

    fn is_in_tail(&self, value: ValueId, product: usize) -> bool {
        self.flow.maker(value).is_some_and(|(maker, _)| self.tails[&product].contains(&maker))
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
                let weights = product.layers.iter().map(|layer| layer.weight.value);
                let weight_leaves = weights.flat_map(|weight| weight_leaves(self.flow, weight));
                let mut leaves: Vec<ValueId> = weight_leaves.filter(|&(_, v)| v == via).map(|(leaf, _)| leaf).collect();
                leaves.retain(|leaf| self.leaves.may_be_trained(*leaf) && !trained.contains(leaf));
                // Where a runtime feeds the parameters, constants are none.
                leaves.sort_by_key(|&leaf| (!self.leaves.is_fed(leaf), self.is_multiplier(leaf, product.position)));
                for leaf in leaves {
                    let shape = self.flow.shape(leaf);
                    let fits = |sink: &&Sink| sink.fits(shape) && self.is_in_tail(sink.value, product.position);
                    let named = |sink: &&Sink| fits(sink) && self.flow.name(sink.value).contains(self.flow.name(leaf));
                    if let Some(at) = open.iter().position(named).or_else(|| open.iter().position(fits)) {
                        open.remove(at);
                        trained.insert(leaf);
                    }
                }
            }
        }
        trained
    }

    /// Whether the tail of a product multiplies by this leaf: the gradient of `w · c` with respect to w is multiplied by c.
    fn is_multiplier(&self, leaf: ValueId, product: usize) -> bool {
        let consumers = &self.flow.index.value(leaf).consumers;
        consumers
            .iter()
            .any(|(reader, _)| self.tails[&product].contains(reader) && self.flow.node(*reader).is_onnx("Mul"))
    }

    /// What the products are that share a factor with an earlier one like a weight gradient does, and were not taken. A layer that is
    /// applied in every step of a sequence is one such earlier product after the other, and has a gradient of its input for each.
    fn near_misses(&self, data: &LeafSet, products: &[Product]) -> Vec<NearMiss> {
        let mut found = BTreeMap::new();
        let weights: Vec<ValueId> = products
            .iter()
            .flat_map(|product| &product.layers)
            .map(|layer| self.flow.root(layer.weight.value))
            .collect();
        let parameter = |weight| {
            let leaves = weight_leaves(self.flow, weight);
            leaves.into_iter().find(|(_, via)| *via == Via::Layout).map(|(leaf, _)| leaf)
        };
        for pair in self.pairs {
            let node = self.contractions[pair.product].node;
            let is_taken = |product: &Product| {
                product.contraction.node == node || product.layers.iter().any(|layer| layer.node == node)
            };
            if products.iter().any(is_taken) {
                continue;
            }
            let factor = self.contractions[pair.product].roots[pair.input];
            let is_weight = weights.iter().any(|&weight| self.flow.equal(weight, factor));
            let subject = parameter(factor).filter(|_| is_weight).unwrap_or(factor);
            let what = if is_weight {
                "it is the gradient of a layer's input: a weight times the gradient of the output"
            } else if self.flow.leaves(self.weight_side(pair)).intersects(data) {
                "it is the gradient of a product of two activations: no factor of that is made of parameters alone"
            } else {
                "it is the gradient of arithmetic among weights, or part of the forward pass"
            };
            found.entry(node).or_insert((subject, what));
        }
        let mut grouped: Vec<NearMiss> = Vec::new();
        for (node, (factor, what)) in found {
            match grouped.iter_mut().find(|miss| miss.what == what && self.flow.equal(miss.factor, factor)) {
                Some(miss) => miss.nodes.push(node),
                None => grouped.push(NearMiss { nodes: vec![node], factor, what }),
            }
        }
        grouped
    }
}
