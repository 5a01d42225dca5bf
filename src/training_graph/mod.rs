//! Training graphs from forward models: loss, backward pass and update in standard ONNX operators.
//!
//! A [`Recipe`] makes a [`TrainingGraph`] from a forward model. It is one valid ONNX file: parameters and what the optimizer
//! carries are inputs with defaults, their updated values are outputs, rates are scalar inputs, and the metadata property
//! `isaac.training` holds a [`TrainingMap`], which says which is which. Its weight-gradient products are then conditioned like
//! those of any other training graph (see [`crate::rewrite`]); for ζ and K-FAC, [`TrainingGraph::conditioned`] adds a second
//! backward pass, with labels that are sampled from the model.
//!
//! ```
//! use isaac::model::Model;
//! use isaac::optimizer::{Optimizer, Update};
//! use isaac::rewrite::{Analysis, Choice};
//! use isaac::training_graph::{Damping, Distance, Labelled, Loss, Method, Recipe, Selection, TrainingGraph};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let output = tempfile::NamedTempFile::new()?;
//! let model = Model::load("tests/fixtures/mlp_gemm_ts17/forward.onnx".as_ref())?;
//! let distance = Distance::CrossEntropy { class_axis: None, ignore_index: None };
//! let recipe = Recipe {
//!     loss: Loss::Labelled(Labelled { distance, prediction: None, example_weights: false }),
//!     update: Some(Update { optimizer: Optimizer::Sgd, weight_decay: 0.0, clip_norm: None }),
//!     selection: Selection::default(),
//! };
//! let graph = TrainingGraph::new(&model, &recipe)?;
//! let analysis = Analysis::new(graph.model(), &[])?;
//! let chosen = analysis.choose(&Choice::default())?;
//! let edit = graph.conditioned(&chosen, Method::ZetaStar, Damping { lambda_a: 1.0, lambda_g: f32::INFINITY })?;
//! graph.model().save(&edit, output.path())?;
//! # assert_eq!(chosen.rewritten().count(), 3);
//! # Ok(())
//! # }
//! ```

mod condition;
mod constants;
mod deliver;
mod descent;
mod distribution;
mod error;
mod evaluation;
mod layer_normalization;
mod loss;
mod parameters;
mod prepare;
mod random;
mod separate;
mod target;

use std::collections::BTreeSet;

use crate::autodiff::Backward;
use crate::model::{Builder, Edit, GraphEdit, GraphId, Model, ONNX_DOMAIN, TRAINING_METADATA, TrainingMap, Types};
use crate::optimizer::Update;
use crate::proto::NodeProto;
use deliver::Trained;
use descent::Rate;
use distribution::Distribution;
use prepare::{Prepared, prepare};
use random::Random;

pub use condition::{Damping, Method};
pub use constants::ConstantWeights;
pub use error::TrainingGraphError;
pub use loss::{Distance, Labelled, Loss};
pub use parameters::Selection;

/// The oldest version of the ONNX IR in which an input may have a default that a host can override, and all operators of
/// the opsets that are written.
const IR_VERSION: i64 = 8;

/// What training graph to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// What is made small.
    pub loss: Loss,
    /// What is done with the gradients; `None`: they are the outputs.
    pub update: Option<Update>,
    /// What is trained.
    pub selection: Selection,
}

/// A forward model with its loss, its backward pass and the update.
#[derive(Debug)]
pub struct TrainingGraph<'a> {
    forward: &'a Model,
    /// The forward model as it runs in training.
    prepared: Model,
    model: Model,
    map: TrainingMap,
    /// The position in `model` of the first node of the backward pass.
    backward_start: usize,
    /// The nodes of the backward pass.
    backward: Vec<NodeProto>,
    /// The gradient of the loss with respect to the prediction, or that times the learning rate: what the backward pass begins with.
    seed: String,
    /// The output of the forward model that the loss is computed from.
    prediction: String,
    /// The distribution of its labels, where the loss stands for one.
    distribution: Option<Distribution>,
    random: Option<Random>,
}

impl<'a> TrainingGraph<'a> {
    /// Makes the training graph of `model`, which has to import opset 14 or later (see [`crate::upgrade`]).
    ///
    /// # Errors
    /// An older operator set, a recipe that does not fit the model, or operators that cannot be differentiated: all of them.
    pub fn new(model: &'a Model, recipe: &Recipe) -> Result<Self, TrainingGraphError> {
        let Prepared { model: prepared, random, statistics } = prepare(model, &recipe.selection)?;
        let path = model.path();
        let request = |what| TrainingGraphError::Request { path: path.to_owned(), what };
        let graph = prepared.graph();
        let index = prepared.index(GraphId::Main)?;
        let types = Types::infer(graph, &index);
        let opset = prepared.opset(ONNX_DOMAIN).unwrap_or(1);
        let name = |what| TrainingGraphError::Name { path: path.to_owned(), what };
        let mut candidates = recipe.selection.candidates(graph, &index).map_err(name)?;
        let output = recipe.loss.output(model).map_err(name)?;
        // What a batch normalization updates itself has a gradient of zero.
        candidates.retain(|&value| statistics.iter().all(|state| state.name != index.value(value).name));

        let mut b = Builder::new(&index, opset, "loss/");
        let mut target = recipe.loss.target(&mut b, &output, &index, &types).map_err(request)?;
        let backward_pass = Backward::new(&prepared, graph, &index, &types);
        let rated = recipe
            .update
            .as_ref()
            .map(|update| (update, Rate::new(&mut b, update, &backward_pass, &candidates, &mut target.seed)));
        let mut edit = GraphEdit { more_nodes: b.into_nodes(), ..GraphEdit::default() };
        let backward_start = graph.nodes().len() + edit.more_nodes.len();

        let mut b = Builder::new(&index, opset, "gradient/");
        let gradients = backward_pass.gradients(&mut b, std::slice::from_ref(&target.seed), &candidates)?;
        if gradients.is_empty() {
            let doubt = ConstantWeights::of(model)?.doubt().map(|doubt| format!("; {doubt}")).unwrap_or_default();
            return Err(request(format!(
                "the loss '{}' depends on no floating-point initializer that is trained{doubt}",
                target.loss
            )));
        }
        let mut backward = b.into_nodes();

        let trained = Trained::new(graph, &index, &gradients, &mut edit).map_err(request)?;
        let mut map = TrainingMap {
            data: data_inputs(model),
            labels: target.label_names(),
            classes: target.classes,
            loss: Some(target.loss.clone()),
            state: statistics,
            ..TrainingMap::default()
        };
        let mut b = Builder::new(&index, opset, "update/");
        match rated {
            None => trained.deliver(&mut b, &mut backward, &mut edit, &mut map),
            Some((update, rate)) => trained.update(&mut b, update, rate, &mut edit, &mut map),
        }
        if let Some(random) = &random {
            map.scalars.insert("seed".into(), random.seed().to_owned());
        }
        edit.more_nodes.extend(backward.iter().cloned());
        edit.more_nodes.extend(b.into_nodes());
        edit.more_inputs.extend(target.labels);
        edit.more_outputs.extend(target.new_output.map(|tensor| tensor.declare(&target.loss)));
        let edit = Edit {
            metadata: [(TRAINING_METADATA.to_owned(), map.to_json())].into(),
            ir_version: Some(model.ir_version().max(IR_VERSION)),
            ..edit.into()
        };
        let with_loss = prepared.edited(&edit)?;
        let distribution = target.distribution;
        Ok(Self {
            forward: model,
            prepared,
            model: with_loss,
            map,
            backward_start,
            backward,
            seed: target.seed.1,
            prediction: output,
            distribution,
            random,
        })
    }

    /// The training graph with plain gradients.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The forward model that it was made from.
    pub fn forward(&self) -> &'a Model {
        self.forward
    }

    /// The output of the forward model that the loss compares with labels, or that is the loss.
    pub fn prediction(&self) -> &str {
        &self.prediction
    }

    /// Which of its inputs and outputs is which.
    pub fn map(&self) -> &TrainingMap {
        &self.map
    }
}

/// Inputs without a default.
fn data_inputs(model: &Model) -> Vec<String> {
    let defaults: BTreeSet<&str> = model.graph().initializers().iter().map(|initializer| initializer.name()).collect();
    let inputs = model.graph().inputs().iter().map(|input| input.name());
    inputs.filter(|name| !defaults.contains(name)).map(str::to_owned).collect()
}
