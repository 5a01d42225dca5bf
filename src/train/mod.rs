//! Training: what steers it, and what is told of it.
//!
//! - [`metrics`]: how good predictions are.
//! - [`schedule`]: rates that change over a run.
//! - [`report`]: what is told of a run, to several places.

pub mod metrics;
pub mod report;
pub mod schedule;
