//! Training: what steers it, and what is told of it.
//!
//! - [`metrics`]: how good predictions are.
//! - [`schedule`]: rates that change over a run.

pub mod metrics;
pub mod schedule;
