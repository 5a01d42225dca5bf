//! Training an exported model: data, loop, checkpoints, reports.

mod program;

pub use program::program;
