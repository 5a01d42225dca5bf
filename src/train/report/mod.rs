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

/// Every one of them is told, also after one has failed; the first error is returned.
impl Observer for Vec<Box<dyn Observer>> {
    fn step(&mut self, record: &StepRecord) -> io::Result<()> {
        all(self, |observer| observer.step(record))
    }

    fn epoch(&mut self, record: &EpochRecord) -> io::Result<()> {
        all(self, |observer| observer.epoch(record))
    }

    fn finish(&mut self) -> io::Result<()> {
        all(self, |observer| observer.finish())
    }
}

fn all(
    observers: &mut [Box<dyn Observer>],
    mut tell: impl FnMut(&mut dyn Observer) -> io::Result<()>,
) -> io::Result<()> {
    observers.iter_mut().map(|observer| tell(observer.as_mut())).fold(Ok(()), Result::and)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    struct Place {
        fails: bool,
        told: Rc<RefCell<Vec<String>>>,
    }

    impl Place {
        fn tell(&self, what: &str) -> io::Result<()> {
            self.told.borrow_mut().push(what.to_owned());
            if self.fails { Err(io::Error::other(what.to_owned())) } else { Ok(()) }
        }
    }

    impl Observer for Place {
        fn step(&mut self, _: &StepRecord) -> io::Result<()> {
            self.tell("step")
        }

        fn epoch(&mut self, _: &EpochRecord) -> io::Result<()> {
            self.tell("epoch")
        }

        fn finish(&mut self) -> io::Result<()> {
            self.tell("finish")
        }
    }

    #[test]
    fn every_place_is_told_and_the_error_comes_back() {
        let told = Rc::new(RefCell::new(Vec::new()));
        let place = |fails| Box::new(Place { fails, told: Rc::clone(&told) }) as Box<dyn Observer>;
        let mut places = vec![place(true), place(false)];
        assert_eq!(places.step(&record::tests::step(1)).unwrap_err().to_string(), "step");
        assert_eq!(places.epoch(&record::tests::epoch(1)).unwrap_err().to_string(), "epoch");
        assert_eq!(places.finish().unwrap_err().to_string(), "finish");
        assert_eq!(*told.borrow(), ["step", "step", "epoch", "epoch", "finish", "finish"]);
    }
}
