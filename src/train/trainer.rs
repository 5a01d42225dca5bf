//! The training loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::{Checkpoint, CheckpointError, Identity, Progress};
use super::data::{Batches, Epoch};
use super::divergence::{Divergence, Fault};
use super::metrics::{Accumulator, Labels, Metric, MetricError};
use super::random::seed_of_step;
use super::report::{EpochRecord, Observer, Scores, StepRecord};
use super::schedule::Schedule;
use crate::model::{Carried, TrainingMap};
use crate::runtime::{Engine, RuntimeError};
use crate::tensors::Tensor;

/// The rates of a run. What the training graph has no input for is not read.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// The learning rate.
    pub lr: Schedule,
    /// The damping λa; `None`: the training graph's own.
    pub lambda_a: Option<Schedule>,
    /// The damping λg; `None`: the training graph's own.
    pub lambda_g: Option<Schedule>,
}

/// How a run goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Passes over the examples.
    pub epochs: u64,
    /// The rates.
    pub rates: Rates,
    /// What the order of the examples, dropout and sampled labels follow from.
    pub seed: u64,
    /// End after so many steps, if there are more.
    pub max_steps: Option<u64>,
    /// End when the loss of the evaluation has not sunk for so many epochs, and go back to the best one.
    pub patience: Option<u64>,
    /// Where to save checkpoints, and after how many steps each.
    pub checkpoints: Option<(PathBuf, u64)>,
}

impl Settings {
    /// The number of steps of a run with so many steps in an epoch.
    pub fn steps(&self, per_epoch: u64) -> u64 {
        let steps = per_epoch.saturating_mul(self.epochs);
        self.max_steps.map_or(steps, |max| max.min(steps))
    }
}

/// Examples that a run is evaluated with, after every epoch.
#[derive(Debug)]
pub struct Examination<'a> {
    /// The examples.
    pub batches: Batches<'a>,
    /// What is measured beside the loss.
    pub metrics: Vec<Metric>,
}

/// What is trained, and with what.
#[derive(Debug)]
pub struct Task<'a> {
    /// What the inputs and outputs of the training graph are for.
    pub map: TrainingMap,
    /// The examples.
    pub batches: Batches<'a>,
    /// The input of the labels, and what they say; for metrics, and for labels that do not count.
    pub labels: Option<(String, Labels)>,
    /// What is evaluated after every epoch.
    pub examination: Option<Examination<'a>>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Finished,
    /// The loss of the evaluation sank no more; the parameters are those after this epoch.
    Early {
        /// The best epoch.
        best: u64,
    },
    /// It was asked to stop.
    Stopped,
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The runtime fails.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The metrics do not fit the labels.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// Checkpoints cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The loss or a parameter is no finite number any more.
    #[error(transparent)]
    Diverged(#[from] Divergence),
    /// A report cannot be written.
    #[error("cannot write a report")]
    Report(#[source] std::io::Error),
}

/// A run of training.
pub struct Trainer<'a> {
    engine: &'a mut dyn Engine,
    task: &'a Task<'a>,
    carried: Vec<Carried>,
    settings: &'a Settings,
    progress: Progress,
    /// The epoch that is under way, with its number.
    epoch: Option<(u64, Epoch<'a>)>,
    /// What was carried after the best epoch.
    best: Vec<Tensor>,
    /// The learning rate and the damping of the last step.
    last: Option<(f64, f64)>,
}

impl<'a> Trainer<'a> {
    /// A run from where the engine stands.
    pub fn new(engine: &'a mut dyn Engine, task: &'a Task<'a>, settings: &'a Settings) -> Self {
        let carried = task.map.carried();
        Self {
            engine,
            task,
            carried,
            settings,
            progress: Progress::default(),
            epoch: None,
            best: Vec::new(),
            last: None,
        }
    }

    /// How far it has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Goes on from the checkpoint that the settings name, if it is there.
    ///
    /// # Errors
    /// A file that is no checkpoint of this run.
    pub fn resume(&mut self) -> Result<(), TrainError> {
        let Some((path, _)) = &self.settings.checkpoints else { return Ok(()) };
        if !path.exists() {
            return Ok(());
        }
        let checkpoint = Checkpoint::load(path, &self.identity())?;
        let ordered = |tensors: &BTreeMap<String, Tensor>| {
            let find = |carried: &Carried| {
                let what = || format!("it has no '{}', which the model carries", carried.name);
                let other = || CheckpointError::Other { path: path.clone(), what: what() };
                tensors.get(&carried.name).cloned().ok_or_else(other)
            };
            self.carried.iter().map(find).collect::<Result<Vec<_>, _>>()
        };
        let carried = ordered(&checkpoint.carried)?;
        self.best = if checkpoint.best.is_empty() { Vec::new() } else { ordered(&checkpoint.best)? };
        self.engine.restore(&carried)?;
        self.progress = checkpoint.progress;
        Ok(())
    }

    /// Makes all steps that are left, or as many as there are before `stop` is set; a checkpoint is saved then.
    ///
    /// # Errors
    /// Whatever fails. The last checkpoint is as it was.
    pub fn run(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Ended, TrainError> {
        let ended = self.steps(observer, stop)?;
        let carried = self.finite()?;
        if let Some((path, _)) = &self.settings.checkpoints {
            self.save(path, carried)?;
        }
        observer.finish().map_err(TrainError::Report)?;
        Ok(ended)
    }

    fn steps(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Ended, TrainError> {
        let per_epoch = self.task.batches.per_epoch() as u64;
        let total = self.settings.steps(per_epoch);
        loop {
            if let Some(best) = self.early_end()? {
                return Ok(Ended::Early { best });
            }
            if self.progress.step >= total {
                return Ok(Ended::Finished);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(Ended::Stopped);
            }
            let record = self.step(per_epoch, total)?;
            observer.step(&record).map_err(TrainError::Report)?;
            if self.progress.step.is_multiple_of(per_epoch) {
                let record = self.epoch(per_epoch)?;
                observer.epoch(&record).map_err(TrainError::Report)?;
            }
            if let Some((path, every)) = &self.settings.checkpoints
                && self.progress.step.is_multiple_of(*every)
            {
                self.save(path, self.finite()?)?;
            }
        }
    }

    /// One step.
    fn step(&mut self, per_epoch: u64, total: u64) -> Result<StepRecord, TrainError> {
        let start = Instant::now();
        let at = self.progress.step;
        let Rates { lr, lambda_a, lambda_g } = &self.settings.rates;
        let rate = |schedule: &Schedule| schedule.at(at, total, per_epoch);
        let lr = rate(lr);
        let (lambda_a, lambda_g) = (lambda_a.as_ref().map(rate), lambda_g.as_ref().map(rate));
        let mut lambda = f64::INFINITY;
        let mut feeds = self.batch(at / per_epoch, (at % per_epoch) as usize);
        let weight = self.weight(&feeds);
        for (role, input) in &self.task.map.scalars {
            let value = match (role.as_str(), lambda_a, lambda_g) {
                ("lr", ..) => Tensor::scalar(lr as f32),
                ("lambda_a", Some(damping), _) => {
                    lambda = damping;
                    Tensor::scalar(damping as f32)
                }
                ("lambda_g", _, Some(damping)) => Tensor::scalar(damping as f32),
                ("seed", ..) => Tensor::scalar(seed_of_step(self.settings.seed, at)),
                // It has a default.
                _ => continue,
            };
            feeds.push((input, value));
        }
        let loss = self.engine.step(&feeds)?;
        self.progress.seconds += start.elapsed().as_secs_f64();
        self.progress.step += 1;
        if !loss.is_finite() {
            return Err(self.diverged(loss, lr, lambda)?);
        }
        self.progress.loss_sum += loss * weight;
        self.progress.loss_weight += weight;
        let (step, epoch, seconds) = (self.progress.step, at / per_epoch + 1, self.progress.seconds);
        self.last = Some((lr, lambda));
        Ok(StepRecord { step, epoch, loss, lr, lambda, seconds })
    }

    /// How much a batch counts in a mean of losses: the sum of its examples' weights, or the number of its labels that count, each
    /// with its example's weight.
    fn weight(&self, feeds: &[(&str, Tensor)]) -> f64 {
        let fed = |input: &str| feeds.iter().find(|(name, _)| *name == input).map(|(_, tensor)| tensor.to_f64s());
        let weights = self.task.map.labels.get(1).and_then(|input| fed(input));
        let Some((input, Labels::Classes { ignore_index: Some(ignored), .. })) = &self.task.labels else {
            let examples = feeds.first().map_or(0.0, |(_, tensor)| tensor.shape()[0] as f64);
            return weights.map_or(examples, |weights| weights.iter().sum());
        };
        let labels = fed(input).unwrap_or_default();
        let counting = |labels: &[f64]| labels.iter().filter(|&&label| label != *ignored as f64).count() as f64;
        let Some(weights) = weights else { return counting(&labels) };
        let of_example = labels.chunks((labels.len() / weights.len().max(1)).max(1));
        weights.iter().zip(of_example).map(|(weight, labels)| weight * counting(labels)).sum()
    }

    /// What the inputs are fed in batch `at` of an epoch, both counted from 0.
    fn batch(&mut self, epoch: u64, at: usize) -> Vec<(&'a str, Tensor)> {
        if self.epoch.as_ref().is_none_or(|(under_way, _)| *under_way != epoch) {
            self.epoch = None;
        }
        let (_, epoch) =
            self.epoch.get_or_insert_with(|| (epoch, self.task.batches.shuffled(self.settings.seed, epoch)));
        epoch.batch(at)
    }

    /// What ends an epoch.
    fn epoch(&mut self, per_epoch: u64) -> Result<EpochRecord, TrainError> {
        let epoch = self.progress.step / per_epoch;
        let train_loss = self.progress.loss_sum / self.progress.loss_weight;
        let eval = self.examine()?;
        let record = EpochRecord { epoch, step: self.progress.step, train_loss, seconds: self.progress.seconds, eval };
        (self.progress.loss_sum, self.progress.loss_weight) = (0.0, 0.0);
        self.progress.epochs.push(record.clone());
        Ok(record)
    }

    /// The loss and the metrics of the examples that are kept for that.
    fn examine(&mut self) -> Result<Option<Scores>, TrainError> {
        let Some(Examination { batches, metrics }) = &self.task.examination else {
            return Ok(None);
        };
        let labels = &self.task.labels;
        let mut accumulator = match labels {
            Some((_, labels)) => Some(Accumulator::new(metrics, *labels)?),
            None => None,
        };
        let (mut sum, mut count) = (0.0, 0.0);
        for feeds in batches.sequential().starting_at(0) {
            let weight = self.weight(&feeds);
            let outputs = self.engine.evaluate(&feeds)?;
            let [loss, prediction] = outputs.as_slice() else {
                return Err(RuntimeError::Program("the evaluation gives no loss and prediction".into()).into());
            };
            // The mean over nothing is no number.
            if weight > 0.0 {
                sum += weight * loss.to_f64s().first().copied().unwrap_or(f64::NAN);
                count += weight;
            }
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

    /// The best epoch, where the settings end the run because none of the last ones was better.
    fn early_end(&mut self) -> Result<Option<u64>, TrainError> {
        let (Some(patience), Some(record)) = (self.settings.patience, self.progress.epochs.last()) else {
            return Ok(None);
        };
        let Some(loss) = record.eval.as_ref().and_then(|eval| eval.get("loss")) else {
            return Ok(None);
        };
        let epoch = record.epoch;
        match self.progress.best {
            None if loss.is_nan() => Ok(None),
            Some((best, lowest)) if loss.is_nan() || loss >= lowest => {
                if epoch - best < patience {
                    return Ok(None);
                }
                self.engine.restore(&self.best)?;
                Ok(Some(best))
            }
            _ => {
                self.progress.best = Some((epoch, loss));
                self.best = self.engine.carried()?;
                Ok(None)
            }
        }
    }

    /// Why the loss of the last step is no finite number.
    fn diverged(&self, loss: f64, lr: f64, lambda: f64) -> Result<TrainError, TrainError> {
        let before = self.engine.carried_before()?;
        Ok(Divergence::of(self.named(&before), self.progress.step, loss, lr, lambda).into())
    }

    /// What is carried, if all of it is finite.
    fn finite(&self) -> Result<Vec<Tensor>, TrainError> {
        let carried = self.engine.carried()?;
        let (lr, lambda) = self.last.unwrap_or((f64::NAN, f64::INFINITY));
        let divergence = Divergence::of(self.named(&carried), self.progress.step + 1, f64::NAN, lr, lambda);
        match divergence.fault {
            Fault::Update { .. } => Err(divergence.into()),
            Fault::Forward { .. } => Ok(carried),
        }
    }

    fn named<'t>(&'t self, tensors: &'t [Tensor]) -> impl Iterator<Item = (&'t str, &'t Tensor)> {
        self.carried.iter().map(|carried| carried.name.as_str()).zip(tensors)
    }

    fn identity(&self) -> Identity {
        let (batch_size, examples) = (self.task.batches.size(), self.task.batches.examples().len());
        Identity { seed: self.settings.seed, batch_size, examples }
    }

    fn save(&self, path: &Path, carried: Vec<Tensor>) -> Result<(), TrainError> {
        let named =
            |tensors: Vec<Tensor>| self.carried.iter().map(|carried| carried.name.clone()).zip(tensors).collect();
        let checkpoint = Checkpoint {
            identity: self.identity(),
            progress: self.progress.clone(),
            carried: named(carried),
            best: named(self.best.clone()),
        };
        Ok(checkpoint.save(path)?)
    }
}
