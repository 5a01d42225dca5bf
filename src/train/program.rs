//! What a training run executes.

use super::data::{Input, Role};
use crate::model::{Model, TensorType};
use crate::rewrite::{Analysis, Chosen, LayerReport, RewriteError};
use crate::runtime::{Evaluation, Program, RuntimeError};
use crate::training_graph::{Damping, Method, Recipe, TrainingGraph, TrainingGraphError};

/// The program of a forward model, and its layers: its training graph, of whose layers `choose` says which are conditioned, and beside it
/// a graph whose outputs are the loss and the prediction.
///
/// # Errors
/// A recipe without an update or one that does not fit the model, a choice that does not, or external data that cannot be read.
pub fn program(
    model: &Model,
    recipe: &Recipe,
    method: Method,
    choose: impl for<'a> FnOnce(&'a Analysis<'_>) -> Result<Chosen<'a>, RewriteError>,
) -> Result<(Program, Vec<LayerReport>), ProgramError> {
    let graph = TrainingGraph::new(model, recipe)?;
    let analysis = Analysis::new(graph.model(), &[])?;
    let chosen = choose(&analysis)?;
    // What a step feeds takes their place.
    let damping = Damping { lambda_a: 1.0, lambda_g: f32::INFINITY };
    let conditioned = graph.conditioned(&chosen, method, damping)?;
    let training = Program::new(graph.model().edited(&conditioned).map_err(RuntimeError::from)?)?;
    let model = model.edited(&graph.evaluation(recipe)?).map_err(RuntimeError::from)?;
    let outputs = training.map.loss.iter().cloned().chain([graph.prediction().to_owned()]).collect();
    let evaluation = Evaluation { model: model.embedded().map_err(RuntimeError::from)?, outputs };
    Ok((Program { evaluation: Some(evaluation), ..training }, LayerReport::all(&chosen)))
}

/// The inputs of a program that examples are fed to.
pub fn inputs(program: &Program) -> Vec<Input> {
    let map = &program.map;
    let declared = program.training.graph().inputs();
    let input = |name: &String, role| {
        let declared = declared.iter().find(|input| input.name() == name)?;
        Some(Input { name: name.clone(), tensor_type: TensorType::of(declared)?, role })
    };
    let data = map.data.iter().filter_map(|name| input(name, Role::Data));
    // Labels come first, and if there is more, weights of the examples.
    let roles = std::iter::once(Role::Labels).chain(std::iter::repeat(Role::Weights));
    let labels = map.labels.iter().zip(roles).filter_map(|(name, role)| input(name, role));
    data.chain(labels).collect()
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The training graph is at fault.
    #[error(transparent)]
    TrainingGraph(#[from] TrainingGraphError),
    /// Its layers cannot be conditioned as asked.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// The graphs cannot be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
