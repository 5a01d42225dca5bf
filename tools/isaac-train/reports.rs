//! The places that a run is told to.

use std::io;

use isaac::train::report::{EpochRecord, Observer, StepRecord};

/// Places by what the command line calls them. One that fails is told no more, and the run goes on: what it trains is worth more.
#[derive(Default)]
pub(crate) struct Reports {
    places: Vec<(&'static str, Box<dyn Observer>)>,
    failure: Option<io::Error>,
}

impl Reports {
    pub(crate) fn add(&mut self, name: &'static str, place: Box<dyn Observer>) {
        self.places.push((name, place));
    }

    fn tell(&mut self, mut tell: impl FnMut(&mut dyn Observer) -> io::Result<()>) {
        let Self { places, failure } = self;
        places.retain_mut(|(name, place)| match tell(place.as_mut()) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("isaac-train: {name} cannot be written, and is left as it is: {error}");
                failure.get_or_insert(error);
                false
            }
        });
    }
}

impl Observer for Reports {
    fn step(&mut self, record: &StepRecord) -> io::Result<()> {
        self.tell(|place| place.step(record));
        Ok(())
    }

    fn epoch(&mut self, record: &EpochRecord) -> io::Result<()> {
        self.tell(|place| place.epoch(record));
        Ok(())
    }

    /// Fails if any place has failed.
    fn finish(&mut self) -> io::Result<()> {
        self.tell(|place| place.finish());
        self.failure.take().map_or(Ok(()), Err)
    }
}
