//! Training in tract: against what PyTorch recorded, and the operator against its formula in double precision.

mod arrays;
mod carried;
#[path = "../../../../tests/common/mod.rs"]
mod common;
mod models;
mod operator;
mod steps;
