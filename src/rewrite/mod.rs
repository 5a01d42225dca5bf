//! Finds the weight-gradient products of a training graph and replaces them by `ai.isaac::IsaacGemm`.
//!
//! The work goes in four steps. *Find*: every product of a layer's input and the gradient of its output, whatever operators
//! it is written with, becomes part of a [`LayerGradient`], one for each trained weight. *Choose*: layers for which ζ* would not be an ascent
//! direction are refused with a [`Reason`], and the user selects among the others. *Replace*: only the records are read; sums,
//! layouts and names around a product stay as they are. *Report*: what was found and done, for people and for programs.
//!
//! ```
//! use isaac::model::Model;
//! use isaac::rewrite::{Analysis, Choice, Direction};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let output = tempfile::NamedTempFile::new()?;
//! let model = Model::load("tests/fixtures/mlp_gemm_ts17/training_model.onnx".as_ref())?;
//! let analysis = Analysis::new(&model, &[])?;
//! let chosen = analysis.choose(&Choice::default())?;
//! assert_eq!(chosen.rewritten().count(), 3);
//! model.save(&chosen.edit(&Direction::Fixed { lambda_a: 1.0 })?, output.path())?;
//! # Ok(())
//! # }
//! ```

mod bias;
mod contraction;
mod data;
mod direction;
mod emit;
mod error;
mod flow;
mod layer;
mod leaves;
mod matching;
mod pairs;
mod reach;
mod region;
mod report;
mod select;
mod sinks;
mod stack;
mod tail;
mod unit;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Edit, GraphId, Index, Model, NodeExt, NodeId, ONNX_DOMAIN, PREVIEW_TRAINING_DOMAIN, Producer, TRAINING_METADATA,
    ValueId, fits,
};
use bias::Bias;
use emit::Emitter;
use flow::Flow;
use matching::Matching;

pub use direction::Direction;
pub(crate) use emit::{ADDEND, OPERATOR};
pub use emit::{DOMAIN, VERSION};
pub use error::RewriteError;
pub use layer::{LayerGradient, Reason, Refusal};
pub use report::{Explanation, Kind, LayerReport, Report};
pub use select::{SelectError, Selector};

/// What was found in a model.
#[derive(Debug)]
pub struct Analysis<'a> {
    model: &'a Model,
    graphs: BTreeMap<GraphId, GraphAnalysis>,
    layers: Vec<LayerGradient>,
    is_training_graph: bool,
}

#[derive(Debug)]
struct GraphAnalysis {
    index: Index,
    near_misses: Vec<matching::NearMiss>,
}

/// Products that look like weight gradients and are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss<'a> {
    /// What they are called.
    pub products: Vec<String>,
    /// The factor that they share.
    pub factor: &'a str,
    /// What they are.
    pub what: &'static str,
}

/// Which layers to rewrite.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Layers that fit any of these; all if there is none.
    pub layers: Vec<Selector>,
    /// Refusals to lift.
    pub allow: BTreeSet<Reason>,
    /// Whether a layer's bias is conditioned with its weight, as one matrix whose last input is one in each row.
    pub with_bias: bool,
}

impl<'a> Analysis<'a> {
    /// Finds the layers of `model`. `parameters` are globs on the names of graph inputs or initializers that are trained, for graphs
    /// that do not tell.
    ///
    /// # Errors
    /// A graph that cannot be executed, a symbolic Gradient operator, or a glob that fits nothing.
    pub fn new(model: &'a Model, parameters: &[String]) -> Result<Self, RewriteError> {
        let mut graphs = BTreeMap::new();
        let mut layers = Vec::new();
        let mut is_training = false;
        for (id, graph) in model.graphs() {
            if let Some(node) = graph.nodes().iter().find(|node| node.is(PREVIEW_TRAINING_DOMAIN, "Gradient")) {
                let path = model.path().to_owned();
                return Err(RewriteError::SymbolicGradient { path, node: node.label() });
            }
            let index = model.index(id)?;
            let flow = Flow::new(graph, &index);
            let updates: Vec<(&str, &str)> = match id {
                GraphId::Main => Vec::new(),
                GraphId::Algorithm(i) => model.training_info()[i].update_binding().collect(),
            };
            let declared = declared_parameters(model, &index, parameters)?;
            let matching = Matching::new(&flow, &sinks::sinks(&flow, &updates), declared.as_ref());
            layers.extend(layer::layers(&flow, id, &matching));
            is_training |= graph.nodes().iter().any(sinks::is_training_only);
            graphs.insert(id, GraphAnalysis { near_misses: matching.near_misses, index });
        }
        for (i, layer) in layers.iter_mut().enumerate() {
            layer.index = i + 1;
        }
        let is_training_graph = is_training || !layers.is_empty();
        Ok(Self { model, graphs, layers, is_training_graph })
    }

    /// The model.
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// Refuses a model without a backward pass.
    ///
    /// # Errors
    /// [`RewriteError::Forward`] if nothing in the model is for training.
    pub fn require_training_graph(self) -> Result<Self, RewriteError> {
        if self.is_training_graph {
            Ok(self)
        } else {
            Err(RewriteError::Forward { path: self.model.path().to_owned() })
        }
    }

    /// How many products were replaced by the operator before.
    pub fn conditioned(&self) -> usize {
        let nodes = self.model.graphs().flat_map(|(_, graph)| graph.nodes());
        nodes.filter(|node| node.is(DOMAIN, OPERATOR)).count()
    }

    /// All layers in forward order, refused ones too.
    pub fn layers(&self) -> &[LayerGradient] {
        &self.layers
    }

    /// Products that look like weight gradients and are none, those with the same factor together.
    pub fn near_misses(&self) -> impl Iterator<Item = NearMiss<'_>> {
        self.graphs.iter().flat_map(|(id, analysis)| {
            let label = |node: &NodeId| self.model.graph_of(*id).nodes()[node.0].label();
            analysis.near_misses.iter().map(move |miss| NearMiss {
                products: miss.nodes.iter().map(label).collect(),
                factor: &analysis.index.value(miss.factor).name,
                what: miss.what,
            })
        })
    }

    /// Decides for each layer whether it is rewritten.
    ///
    /// # Errors
    /// A selector that fits no layer.
    pub fn choose(&self, choice: &Choice) -> Result<Chosen<'_>, SelectError> {
        let weights: Vec<&str> = self.layers.iter().map(|layer| layer.weight.as_str()).collect();
        let selected = select::select(&choice.layers, &weights)?;
        let not_selected = |detail: &str| Refusal { reason: Reason::NotSelected, detail: detail.to_owned() };
        let mut refusals: Vec<Option<Refusal>> = self
            .layers
            .iter()
            .map(|layer| match &layer.refusal {
                Some(refusal) if !choice.allow.contains(&refusal.reason) => Some(refusal.clone()),
                _ if layer.obstacle.is_some() => layer.obstacle.clone(),
                _ if !selected.contains(&layer.index) => Some(not_selected("--layers leaves it out")),
                _ => None,
            })
            .collect();
        // A product that serves two weights can be replaced only for both.
        while let Some(at) = (0..refusals.len()).find(|&at| refusals[at].is_none() && self.is_blocked(at, &refusals)) {
            refusals[at] = Some(not_selected("a product of it is also one of a weight that is left alone"));
        }
        let mut taken = BTreeSet::new();
        let with_bias = self.layers.iter().zip(&refusals).map(|(layer, refusal)| {
            let bias = layer.bias.as_ref().filter(|_| choice.with_bias && refusal.is_none());
            // Layers whose outputs are added have one bias.
            bias.is_some_and(|bias| taken.insert((layer.graph, bias.sum)))
        });
        let with_bias = with_bias.collect();
        Ok(Chosen { analysis: self, refusals, with_bias })
    }

    fn is_blocked(&self, at: usize, refusals: &[Option<Refusal>]) -> bool {
        let layer = &self.layers[at];
        self.layers.iter().zip(refusals).any(|(other, refusal)| {
            refusal.is_some() && other.graph == layer.graph && !other.products.is_disjoint(&layer.products)
        })
    }
}

/// The decision for every layer of an [`Analysis`].
#[derive(Debug)]
pub struct Chosen<'a> {
    analysis: &'a Analysis<'a>,
    refusals: Vec<Option<Refusal>>,
    /// By layer: whether its bias is conditioned with it.
    with_bias: Vec<bool>,
}

impl Chosen<'_> {
    /// Each layer, and why it is left alone.
    pub fn layers(&self) -> impl Iterator<Item = (&LayerGradient, Option<&Refusal>)> {
        self.analysis.layers.iter().zip(self.refusals.iter().map(Option::as_ref))
    }

    /// The layers that are rewritten.
    pub fn rewritten(&self) -> impl Iterator<Item = &LayerGradient> {
        self.layers().filter(|(_, refusal)| refusal.is_none()).map(|(layer, _)| layer)
    }

    /// The same model, none of whose layers is rewritten.
    pub fn none(mut self, why: &str) -> Self {
        for refusal in self.refusals.iter_mut().filter(|refusal| refusal.is_none()) {
            *refusal = Some(Refusal { reason: Reason::NotSelected, detail: why.to_owned() });
        }
        self.with_bias.fill(false);
        self
    }

    /// The bias that is conditioned with this layer.
    fn bias<'l>(&self, layer: &'l LayerGradient) -> Option<&'l Bias> {
        layer.bias.as_ref().filter(|_| self.with_bias[layer.index - 1])
    }

    /// The changes that put the operator in the place of the chosen layers' products.
    ///
    /// # Errors
    /// [`RewriteError::NotSampled`] for ζ, if the gradient of a layer's output is not among those for sampled labels.
    pub fn edit(&self, direction: &Direction<'_>) -> Result<Edit, RewriteError> {
        let model = self.analysis.model;
        let mut edit = Edit::default();
        for (id, graph) in model.graphs() {
            let layers: Vec<&LayerGradient> = self.rewritten().filter(|layer| layer.graph == id).collect();
            let Some(analysis) = self.analysis.graphs.get(&id).filter(|_| !layers.is_empty()) else {
                continue;
            };
            let flow = Flow::new(graph, &analysis.index);
            let mut emitter = Emitter::new(&flow, direction, model.opset(ONNX_DOMAIN).unwrap_or(1));
            let mut done = BTreeSet::new();
            for layer in layers {
                for conditioning in &layer.conditioning {
                    // Two weights may share a product.
                    if conditioning.units.iter().all(|(unit, _)| done.insert(unit.nodes[0])) {
                        emitter.replace(conditioning, self.bias(layer))?;
                    }
                }
            }
            edit.graphs.insert(id, emitter.finish());
        }
        if !edit.graphs.is_empty() && model.opset(DOMAIN).is_none() {
            edit.opsets.insert(DOMAIN.to_owned(), VERSION);
        }
        Ok(edit)
    }
}

/// Whether a model has operators that only training needs, or the metadata of a training graph that we wrote.
pub fn is_marked_for_training(model: &Model) -> bool {
    model.metadata(TRAINING_METADATA).is_some()
        || model.graphs().any(|(_, graph)| graph.nodes().iter().any(sinks::is_training_only))
}

/// The parameters that the user names, or else the metadata of a training graph that we wrote.
fn declared_parameters(
    model: &Model,
    index: &Index,
    globs: &[String],
) -> Result<Option<BTreeSet<ValueId>>, RewriteError> {
    if globs.is_empty() {
        let names = report::metadata_parameters(model)?;
        return Ok(names.map(|names| names.iter().filter_map(|name| index.find(name)).collect()));
    }
    let leaves: Vec<(ValueId, &str)> = index
        .values()
        .filter(|(_, value)| {
            !matches!(value.producer, Producer::Node(..))
                && value.tensor_type.as_ref().is_none_or(|tensor| tensor.is_float())
        })
        .map(|(id, value)| (id, value.name.as_str()))
        .collect();
    let mut declared = BTreeSet::new();
    for glob in globs {
        let found: Vec<ValueId> = leaves.iter().filter(|(_, name)| fits(glob, name)).map(|(id, _)| *id).collect();
        if found.is_empty() {
            let known = leaves.iter().map(|(_, name)| (*name).to_owned()).collect();
            return Err(RewriteError::UnknownParameter { glob: glob.clone(), known });
        }
        declared.extend(found);
    }
    Ok(Some(declared))
}
