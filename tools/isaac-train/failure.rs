//! What keeps the tool from doing what it was asked to.

use isaac::model::ModelError;
use isaac::runtime::RuntimeError;
use isaac::train::data::DataError;
use isaac::train::{ProgramError, TrainError};
use isaac::upgrade::UpgradeError;
use isaac::weights::WeightsError;

use crate::options::conditioning;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("no run of the sweep came to a finite loss at the end of an epoch; nothing was written")]
    NoBest,
    #[error("cannot write {path}")]
    Write { path: String, source: std::io::Error },
    #[error("cannot write to standard output")]
    Print(#[source] std::io::Error),
    #[error("Ctrl-C cannot be caught: {0}")]
    Interrupts(String),
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// Whether another command line would help.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Usage(_) => true,
            Self::Program(ProgramError::Rewrite(error)) => conditioning::is_usage(error),
            Self::Program(ProgramError::TrainingGraph(error)) => conditioning::is_usage_of_forward(error),
            _ => false,
        }
    }
}
