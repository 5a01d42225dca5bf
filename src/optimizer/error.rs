use std::path::PathBuf;

use crate::model::ModelError;

/// Why the optimizer operators of a model cannot be written out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// The graph cannot be executed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An operator that is not as its specification says.
    #[error("{}: {node}: {what}", path.display())]
    Operator {
        /// The model file.
        path: PathBuf,
        /// The operator.
        node: String,
        /// What is wrong with it.
        what: String,
    },
}
