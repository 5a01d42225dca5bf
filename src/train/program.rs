//! What a training run executes.

use crate::model::Edit;
use crate::runtime::{Evaluation, Program, RuntimeError};
use crate::training_graph::{Recipe, TrainingGraph, TrainingGraphError};

/// The program of a training graph that was made from a forward model: with the changes that condition it, and with a graph beside it
/// whose outputs are the loss and the prediction.
///
/// # Errors
/// A recipe without an update, or external data that cannot be read.
pub fn program(graph: &TrainingGraph<'_>, recipe: &Recipe, conditioned: &Edit) -> Result<Program, ProgramError> {
    let training = Program::new(&graph.model().edited(conditioned).map_err(RuntimeError::from)?)?;
    let model = graph.forward().edited(&graph.evaluation(recipe)?).map_err(RuntimeError::from)?;
    let outputs = training.map.loss.iter().cloned().chain([graph.prediction().to_owned()]).collect();
    let evaluation = Evaluation { model: model.embedded().map_err(RuntimeError::from)?, outputs };
    Ok(Program { evaluation: Some(evaluation), ..training })
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
