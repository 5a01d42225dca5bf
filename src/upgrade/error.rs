use std::path::PathBuf;

use super::OLDEST;
use crate::model::ModelError;

/// Why a model cannot be brought to a newer operator set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The graph cannot be executed, or the upgraded model cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The operator set is older than those that are understood.
    #[error("{}: models of opset {OLDEST} or later can be trained, and this one imports {opset}", path.display())]
    TooOld {
        /// The model file.
        path: PathBuf,
        /// The imported version.
        opset: i64,
    },
    /// Operators that cannot be written in the newer set: all of them.
    #[error(
        "{}: {} operators of opset {opset} cannot be written in those of opset {}:{}",
        path.display(), blocked.len(), super::OPSET, list(blocked)
    )]
    Unsupported {
        /// The model file.
        path: PathBuf,
        /// The imported version.
        opset: i64,
        /// Each node, and why.
        blocked: Vec<(String, String)>,
    },
}

fn list(blocked: &[(String, String)]) -> String {
    blocked.iter().map(|(node, why)| format!("\n  {node}: {why}")).collect()
}
