//! What is told of a run while it trains and afterwards, and the places that it is told to.
//!
//! | | |
//! |---|---|
//! | [`progress()`] | a progress bar on a terminal, lines on anything else |
//! | [`CsvFiles`] | tables of steps and epochs |
//! | [`EventFile`] | what TensorBoard reads |
//! | [`PlotFile`] | a picture of the curves; [`plot::draw`] lays several runs over each other |
//! | [`Summary`] | the JSON object that ends a run |

mod csv;
mod number;
pub mod plot;
mod progress;
mod record;
mod summary;
mod tensorboard;

use std::io;

pub use self::csv::CsvFiles;
pub use self::plot::PlotFile;
pub use self::progress::{Length, progress};
pub use self::record::{EpochRecord, Scores, StepRecord};
pub use self::summary::Summary;
pub use self::tensorboard::EventFile;

/// Is told of every step and epoch of a run.
pub trait Observer {
    /// A step has ended.
    ///
    /// # Errors
    /// What the place that it is written to says.
    fn step(&mut self, record: &StepRecord) -> io::Result<()>;

    /// An epoch has ended.
    ///
    /// # Errors
    /// What the place that it is written to says.
    fn epoch(&mut self, record: &EpochRecord) -> io::Result<()>;

    /// The run has ended, and its results are safe.
    ///
    /// # Errors
    /// What the place that it is written to says.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Nobody is told.
impl Observer for () {
    fn step(&mut self, _: &StepRecord) -> io::Result<()> {
        Ok(())
    }

    fn epoch(&mut self, _: &EpochRecord) -> io::Result<()> {
        Ok(())
    }
}
