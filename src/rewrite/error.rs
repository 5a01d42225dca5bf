use std::path::PathBuf;

use super::select::SelectError;
use crate::model::ModelError;

/// Why a model cannot be rewritten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// The file cannot be loaded or written, or its graph cannot be executed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The gradient is one symbolic operator; no product exists yet.
    #[error(
        "{}: the gradient is the symbolic operator {node}: its products have to be written out before they can be rewritten \
         (autodiff::lower_gradients)",
        path.display()
    )]
    SymbolicGradient {
        /// The model file.
        path: PathBuf,
        /// The operator.
        node: String,
    },
    /// A model without a backward pass.
    #[error(
        "{} is a forward model, as far as can be told: it holds no weight-gradient product; --loss makes a training graph of \
         it; if it is one already, --param says which of its inputs are trained",
        path.display()
    )]
    Forward {
        /// The model file.
        path: PathBuf,
    },
    /// The names given with `--param` fit nothing.
    #[error("no floating-point graph input or initializer is called '{glob}'; there are: {}", known.join(", "))]
    UnknownParameter {
        /// What was asked for.
        glob: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A layer whose output has no gradient for sampled labels.
    #[error("there is no gradient of {value} for sampled labels")]
    NotSampled {
        /// The gradient of the layer's output for the given labels.
        value: String,
    },
    /// The metadata that names the parameters cannot be read.
    #[error("{}: metadata 'isaac.training': {what}", path.display())]
    Metadata {
        /// The model file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The layer selection is at fault.
    #[error(transparent)]
    Select(#[from] SelectError),
}
