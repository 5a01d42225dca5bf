//! How good a model is on examples that it is not trained with.

use std::sync::atomic::{AtomicBool, Ordering};

use super::data::Batches;
use super::metrics::{Accumulator, Labels, Metric};
use super::report::Scores;
use super::trainer::{Task, TrainError};
use crate::runtime::{Engine, RuntimeError};
use crate::tensors::Tensor;

/// Examples that a run is evaluated with, after every epoch.
#[derive(Debug)]
pub struct Examination<'a> {
    /// The examples.
    pub batches: Batches<'a>,
    /// What is measured beside the loss.
    pub metrics: Vec<Metric>,
}

impl Examination<'_> {
    /// The loss and the metrics; `None` if `stop` was set before the last batch.
    pub(super) fn scores(
        &self,
        engine: &mut dyn Engine,
        task: &Task<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<Scores>, TrainError> {
        let labels = &task.labels;
        let mut accumulator = match labels {
            Some((_, labels)) => Some(Accumulator::new(&self.metrics, *labels)?),
            None => None,
        };
        let (mut sum, mut count) = (0.0, 0.0);
        for feeds in self.batches.sequential().starting_at(0) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let weight = task.weight(&feeds);
            let outputs = engine.evaluate(&feeds)?;
            let [loss, prediction] = outputs.as_slice() else {
                return Err(RuntimeError::Program("the evaluation gives no loss and prediction".into()).into());
            };
            sum += weight * loss.to_f64s().first().copied().unwrap_or(f64::NAN);
            count += weight;
            if let (Some(accumulator), Some((input, _))) = (&mut accumulator, labels)
                && let Some((_, labels)) = feeds.iter().find(|(name, _)| name == input)
            {
                accumulator.add(prediction, labels)?;
            }
        }
        let measured = accumulator.iter().flat_map(Accumulator::values);
        let measured = measured.map(|(metric, value)| (metric.to_string(), value));
        Ok(Some([("loss".to_owned(), sum / count)].into_iter().chain(measured).collect()))
    }
}

impl Task<'_> {
    /// How much a batch counts in a mean of losses: the sum of its examples' weights, or the number of its labels that count, each
    /// with its example's weight.
    pub(super) fn weight(&self, feeds: &[(&str, Tensor)]) -> f64 {
        let fed = |input: &str| feeds.iter().find(|(name, _)| *name == input).map(|(_, tensor)| tensor.to_f64s());
        let weights = self.map.labels.get(1).and_then(|input| fed(input));
        let Some((input, Labels::Classes { ignore_index: Some(ignored), .. })) = &self.labels else {
            let examples = feeds.first().map_or(0.0, |(_, tensor)| tensor.shape()[0] as f64);
            return weights.map_or(examples, |weights| weights.iter().sum());
        };
        let labels = fed(input).unwrap_or_default();
        let counting = |labels: &[f64]| labels.iter().filter(|&&label| label != *ignored as f64).count() as f64;
        let Some(weights) = weights else { return counting(&labels) };
        let of_example = labels.chunks((labels.len() / weights.len().max(1)).max(1));
        weights.iter().zip(of_example).map(|(weight, labels)| weight * counting(labels)).sum()
    }
}
