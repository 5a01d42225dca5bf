use std::path::PathBuf;

use crate::model::ModelError;

/// An operator that stands between the loss and a parameter, and cannot be differentiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The node: operator and name.
    pub node: String,
    /// Why.
    pub why: String,
    /// Parameters whose gradient goes through it.
    pub parameters: Vec<String>,
}

/// Why a model cannot be differentiated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AutodiffError {
    /// The graph cannot be executed, or an edit of the model left none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The operator set is too old.
    #[error("{}: the backward pass is written in operators of opset 12 or later, and the model imports {opset}", path.display())]
    Opset {
        /// The model file.
        path: PathBuf,
        /// The imported version.
        opset: i64,
    },
    /// Operators without a gradient: all of them.
    #[error("{}: {} cannot be differentiated:{}", path.display(), counted(blocked.len()), list(blocked))]
    Unsupported {
        /// The model file.
        path: PathBuf,
        /// Each of them.
        blocked: Vec<Blocked>,
    },
    /// A Gradient operator that is not as its specification says.
    #[error("{}: {node}: {what}", path.display())]
    GradientOperator {
        /// The model file.
        path: PathBuf,
        /// The operator.
        node: String,
        /// What is wrong with it.
        what: String,
    },
    /// The request does not fit the model.
    #[error("{}: {what}", path.display())]
    Request {
        /// The model file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

fn counted(operators: usize) -> String {
    if operators == 1 { "1 operator".to_owned() } else { format!("{operators} operators") }
}

fn list(blocked: &[Blocked]) -> String {
    let line = |b: &Blocked| {
        let more = b.parameters.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let first: Vec<&str> = b.parameters.iter().take(3).map(String::as_str).collect();
        format!("\n  {}: {} (on the way to {}{more})", b.node, b.why, first.join(", "))
    };
    blocked.iter().map(line).collect()
}
