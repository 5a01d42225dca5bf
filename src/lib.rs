//! ISAAC Newton for ONNX.
#![deny(unsafe_code)]

pub mod autodiff;
pub mod curvature;
pub mod model;
pub mod ops;
pub mod proto;
pub mod rewrite;
