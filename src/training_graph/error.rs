use std::path::PathBuf;

use crate::autodiff::AutodiffError;
use crate::model::ModelError;
use crate::rewrite::RewriteError;

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
    /// The graph cannot be executed, or an edit of the model left none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The operator set is too old.
    #[error("{}: training graphs are written in operators of opset 14 or later, and the model imports {opset}", path.display())]
    Opset {
        /// The model file.
        path: PathBuf,
        /// The imported version.
        opset: i64,
    },
    /// What is asked for by name is not in the model, or several things could be meant.
    #[error("{}: {what}", path.display())]
    Name {
        /// The model file.
        path: PathBuf,
        /// The name, and what there is.
        what: String,
    },
    /// The request does not fit the model.
    #[error("{}: {what}", path.display())]
    Request {
        /// The model file.
        path: PathBuf,
        /// What does not fit, and what there is.
        what: String,
    },
}
