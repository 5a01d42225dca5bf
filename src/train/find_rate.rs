//! A learning rate that suits a task: the range test of Smith (2017), "Cyclical Learning Rates for Training Neural Networks".

use std::sync::atomic::{AtomicBool, Ordering};

use super::report::{EpochRecord, Observer, StepRecord};
use super::trainer::{Settings, Task, TrainError, Trainer};
use crate::runtime::Engine;

/// What one step in the running mean of the losses keeps of those before.
const MEMORY: f64 = 0.9;
/// The test ends where the mean is so many times its lowest value.
const RISE: f64 = 4.0;

/// The losses of a range test.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeTest {
    /// For each step, the rate and the running mean of the losses.
    pub points: Vec<(f64, f64)>,
}

impl RangeTest {
    /// Runs `settings`, whose learning rate is to rise, until the loss does, or `stop` is set.
    ///
    /// # Errors
    /// Whatever fails, but not that training diverges, which ends the test.
    pub fn run(
        engine: &mut dyn Engine,
        task: &Task<'_>,
        settings: &Settings,
        stop: &AtomicBool,
    ) -> Result<Self, TrainError> {
        let end = AtomicBool::new(false);
        let mut watch = Watch { stop, end: &end, weight: 0.0, sum: 0.0, points: Vec::new() };
        match Trainer::new(engine, task, settings).run(&mut watch, &end) {
            Ok(_) | Err(TrainError::Diverged(_)) => Ok(Self { points: watch.points }),
            Err(error) => Err(error),
        }
    }

    /// The rate at which the loss sinks fastest by the logarithm of the rate, before it is lowest; `None` if it never sinks.
    pub fn suggestion(&self) -> Option<f64> {
        let lowest = self.points.iter().enumerate().min_by(|(_, a), (_, b)| a.1.total_cmp(&b.1))?.0;
        let slope = |pair: &&[(f64, f64)]| (pair[1].1 - pair[0].1) / (pair[1].0 / pair[0].0).ln();
        let steepest = self.points[..=lowest].windows(2).min_by(|a, b| slope(a).total_cmp(&slope(b)))?;
        (slope(&steepest) < 0.0).then_some(steepest[1].0)
    }
}

/// Stops a run when its losses rise.
struct Watch<'a> {
    /// Whether it is to end from without.
    stop: &'a AtomicBool,
    /// Whether it ends.
    end: &'a AtomicBool,
    /// How much of the mean is not the zero that it starts from.
    weight: f64,
    sum: f64,
    points: Vec<(f64, f64)>,
}

impl Observer for Watch<'_> {
    fn step(&mut self, record: &StepRecord) -> std::io::Result<()> {
        self.sum = MEMORY * self.sum + (1.0 - MEMORY) * record.loss;
        self.weight = MEMORY * self.weight + (1.0 - MEMORY);
        let mean = self.sum / self.weight;
        let lowest = self.points.iter().map(|(_, loss)| *loss).fold(mean, f64::min);
        self.points.push((record.lr, mean));
        self.end.store(mean > RISE * lowest || self.stop.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }

    fn epoch(&mut self, _: &EpochRecord) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steepest_descent_is_suggested() {
        let points = [(1e-3, 2.0), (1e-2, 1.9), (1e-1, 1.0), (1.0, 0.9), (10.0, 5.0), (100.0, 0.1)];
        // Behind the lowest value nothing counts, before it the drop from 1.9 to 1.
        assert_eq!(RangeTest { points: points[..5].to_vec() }.suggestion(), Some(1e-1));
        assert_eq!(RangeTest { points: vec![(0.1, 1.0), (1.0, 2.0)] }.suggestion(), None);
        assert_eq!(RangeTest { points: Vec::new() }.suggestion(), None);
    }
}
