//! ISAAC Newton for ONNX: second-order training for exported models.
//!
//! ISAAC Newton (Petersen et al., ICLR 2023) replaces a layer's weight gradient gᵀa by ζ\* = gᵀ(I + aaᵀ/(bλ))⁻¹a, for the
//! b rows of the layer's input a and of the gradient g of its output: curvature from the input alone, nearly free when the batch is
//! smaller than the layer. In an ONNX training graph, gᵀa is a node. This crate finds such nodes and replaces them by the
//! operator `ai.isaac::IsaacGemm`, and it is that operator:
//!
//! - [`model`]: an ONNX model file in memory; what no edit touches is written back byte for byte.
//! - [`rewrite`]: finds the weight-gradient products of a training graph, decides which may be replaced, and replaces them.
//! - [`upgrade`]: brings a model of an old operator set to a newer one.
//! - [`autodiff`]: writes out gradients in standard ONNX operators.
//! - [`optimizer`]: update rules, as graphs; ONNX's own optimizers, in standard operators.
//! - [`training_graph`]: makes a training graph from a forward model.
//! - [`runtime`], [`train`]: run a training graph, from data on disk to a trained model.
//! - [`tensors`], [`weights`]: tensors in files, and trained ones back into the forward model.
//! - [`curvature`]: the mathematics, on plain arrays.
//! - [`ops`]: the operator for ONNX Runtime. Built as a `cdylib`, this crate is `libisaac.so`, which any ONNX Runtime from 1.17 on
//!   loads.
//!
//! The programs `isaac-rewrite` and `isaac-train` are thin faces of it:
//!
//! ```
//! use isaac::model::Model;
//! use isaac::rewrite::{Analysis, Choice, Direction};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let output = tempfile::NamedTempFile::new()?;
//! let model = Model::load("tests/fixtures/gpt2_hf_ts15/training_model.onnx".as_ref())?;
//! let analysis = Analysis::new(&model, &[])?.require_training_graph()?;
//! let chosen = analysis.choose(&Choice::default())?;
//! for (layer, refusal) in chosen.layers() {
//!     println!("{} {}: {:?}", layer.index, layer.weight, refusal.map(|refusal| refusal.reason));
//! }
//! model.save(&chosen.edit(&Direction::Fixed { lambda_a: 1.0 })?, output.path())?;
//! # assert_eq!(chosen.rewritten().count(), 4);
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

pub mod autodiff;
pub mod curvature;
mod digest;
pub mod model;
pub mod ops;
pub mod optimizer;
pub mod proto;
mod replace;
pub mod rewrite;
pub mod runtime;
pub mod tensors;
pub mod train;
pub mod training_graph;
pub mod upgrade;
pub mod weights;

pub use replace::check_writable;
