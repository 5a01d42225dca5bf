//! Training an exported model.
//!
//! [`program`] makes what an engine runs (see [`crate::runtime`]), and a [`Trainer`] runs it:
//!
//! - [`data`]: examples, from files to batches.
//! - [`metrics`]: how good predictions are.
//! - [`schedule`]: rates that change over a run.
//! - [`report`]: what is told of a run, to several places.
//! - [`sweep`], [`find_rate`]: runs that look for good settings.

mod checkpoint;
pub mod data;
mod divergence;
mod evaluation;
pub mod find_rate;
mod identity;
pub mod metrics;
mod program;
mod random;
pub mod report;
pub mod schedule;
pub mod sweep;
mod trainer;

pub use checkpoint::{Checkpoint, CheckpointError, Progress};
pub use divergence::{Divergence, Fault};
pub use evaluation::Examination;
pub use identity::Identity;
pub use program::{ProgramError, inputs, program};
pub use trainer::{Checkpoints, Ended, Rates, Settings, Task, TrainError, Trainer};
