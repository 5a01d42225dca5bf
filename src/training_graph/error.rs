use std::path::PathBuf;

use crate::autodiff::AutodiffError;
use crate::model::{IndexError, Model, ModelError};
use crate::rewrite::RewriteError;
use crate::upgrade::UpgradeError;

/// Why no training graph can be made from a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingGraphError {
    /// The graph cannot be differentiated.
    #[error(transparent)]
    Autodiff(#[from] AutodiffError),
    /// The products of the backward pass cannot be replaced.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// A file cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The graph cannot be executed.
    #[error("{}: {source}", path.display())]
    Graph {
        /// The model file.
        path: PathBuf,
        /// What is wrong with it.
        source: IndexError,
    },
    /// The operator set is too old, and the model cannot be brought to a newer one.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The request does not fit the model.
    #[error("{}: {what}", path.display())]
    Request {
        /// The model file.
        path: PathBuf,
        /// What does not fit, and what there is.
        what: String,
    },
}

impl TrainingGraphError {
    pub(super) fn graph(model: &Model, source: IndexError) -> Self {
        Self::Graph { path: model.path().to_owned(), source }
    }
}
