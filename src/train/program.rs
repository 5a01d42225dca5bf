//! What a training run executes.

use super::data::{Input, Role};
use crate::model::{Edit, TensorType};
use crate::runtime::{Evaluation, Program, RuntimeError};
use crate::training_graph::{Recipe, TrainingGraph, TrainingGraphError};

/// The program of a training graph that was made from a forward model: with the changes that condition it, and with a graph beside it
/// whose outputs are the loss and the prediction.
///
/// # Errors
/// A recipe without an update, or external data that cannot be read.
pub fn program(graph: &TrainingGraph<'_>, recipe: &Recipe, conditioned: &Edit) -> Result<Program, ProgramError> {
    let training = Program::new(graph.model().edited(conditioned).map_err(RuntimeError::from)?)?;
    let model = graph.forward().edited(&graph.evaluation(recipe)?).map_err(RuntimeError::from)?;
    let outputs = training.map.loss.iter().cloned().chain([graph.prediction().to_owned()]).collect();
    let evaluation = Evaluation { model: model.embedded().map_err(RuntimeError::from)?, outputs };
    Ok(Program { evaluation: Some(evaluation), ..training })
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
    /// The graphs cannot be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
