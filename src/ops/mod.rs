//! `ai.isaac::IsaacGemm`, the ONNX Runtime operator that `libisaac.so` registers.
//!
//! ONNX Runtime calls [`RegisterCustomOps`] when a session option names the library. The operator's schema is
//! `onnx/IsaacGemm.md`. All `extern` code of the crate is in this room; files without `unsafe` code don't allow it:
//!
//! | file | job |
//! |---|---|
//! | `register` | the entry point, the operator tables for each provider and element type, and the callbacks, each guarded against unwinding |
//! | `infer` | the shape-inference callback |
//! | `api`, `info`, `context` | what the runtime offers: statuses, a node's attributes, a call's tensors and threads |
//! | `gemm` | the runtime's own matrix product, called from within a kernel |
//! | `attributes`, `shapes`, `element` | what a node says, what its tensors say, in which types |
//! | `call`, `pool` | one call: checks, then [`crate::curvature`], in memory that later calls reuse |
//! | `kernel`, `products` | a node on the CPU |
//! | `cuda` | a node on a CUDA device: the same checks, then kernels of our own |
//!
//! The bindings are `ort::sys`, not `ort`'s operator traits: those hand out one `&mut` kernel to concurrent runs of a
//! session, and let a panic unwind into the host.

mod api;
mod attributes;
mod call;
mod context;
mod cuda;
mod element;
mod gemm;
mod infer;
mod info;
mod kernel;
mod pool;
mod products;
mod register;
mod shapes;

pub use register::RegisterCustomOps;

/// What the operator is, whichever runtime runs it.
pub mod portable {
    pub use super::Error;
    pub use super::attributes::{Attributes, Layout, Source};
    pub use super::call::{Call, INPUTS, Inputs, Tensor, Workspace, input};
    pub use super::element::Element;
    pub use super::pool::Pool;
    pub use super::shapes::output_shape;
}

/// The operator's domain.
pub const DOMAIN: &str = "ai.isaac";
/// The operator's name.
pub const OPERATOR: &str = "IsaacGemm";
/// The operator's version.
pub const VERSION: i32 = 1;

/// Why a node can't be created or run. The callbacks put the node's name in front.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each is")]
pub enum Error {
    #[error("attribute {name}: {problem}")]
    Attribute { name: &'static str, problem: String },
    #[error("{name} must be greater than zero, not {value}")]
    Damping { name: &'static str, value: f64 },
    #[error("{name} is given neither as an attribute nor as an input")]
    NoDamping { name: &'static str },
    #[error("input {name}: {problem}")]
    Input { name: &'static str, problem: String },
    #[error("{problem}; G has the shape {gradients:?}, A has the shape {inputs:?}{}", of_sampled(sampled))]
    Shapes { problem: String, gradients: Vec<usize>, inputs: Vec<usize>, sampled: Option<Vec<usize>> },
    #[error(transparent)]
    Curvature(#[from] crate::curvature::Error),
    #[error(
        "the curvature matrix of order {order}, damped by lambda = {lambda:e}, {}; that was in an earlier call, whose result \
         is NaN: pivot {pivot} failed; use a larger lambda",
        crate::curvature::BREAKDOWN
    )]
    Breakdown { lambda: f32, order: usize, pivot: usize },
    #[error("CUDA: {0}")]
    Cuda(String),
    #[error("ONNX Runtime: {0}")]
    Runtime(String),
}

/// What the operator says within a runtime's message, if it says that a layer's curvature broke down. The error of a call comes
/// back from a runtime as text.
pub(crate) fn breakdown(message: &str) -> Option<&str> {
    message.contains(crate::curvature::BREAKDOWN).then(|| {
        let start = message.rfind(&format!("{OPERATOR} node ")).unwrap_or(0);
        message[start..].trim_end()
    })
}

fn of_sampled(shape: &Option<Vec<usize>>) -> String {
    shape.as_ref().map_or_else(String::new, |shape| format!(", GBar has the shape {shape:?}"))
}
