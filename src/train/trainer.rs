//! The training loop.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::{Checkpoint, CheckpointError, Progress};
use super::data::{Batches, Epoch};
use super::divergence::{Divergence, Fault};
use super::evaluation::Examination;
use super::identity::Identity;
use super::metrics::{Labels, MetricError};
use super::random::seed_of_step;
use super::report::{EpochRecord, Observer, StepRecord};
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
    /// Where the run can be resumed from.
    pub checkpoints: Option<Checkpoints>,
}

/// How checkpoints are saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoints {
    /// The file.
    pub path: PathBuf,
    /// After how many steps each.
    pub every: u64,
    /// What the run has to have in common with the one that is resumed.
    pub identity: Identity,
}

impl Settings {
    /// The number of steps of a run with so many steps in an epoch.
    pub fn steps(&self, per_epoch: u64) -> u64 {
        let steps = per_epoch.saturating_mul(self.epochs);
        self.max_steps.map_or(steps, |max| max.min(steps))
    }
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
    /// The step of the last checkpoint; 0 before the first.
    saved: u64,
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
            saved: 0,
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
        let Some(Checkpoints { path, identity, .. }) = &self.settings.checkpoints else { return Ok(()) };
        if !path.exists() {
            return Ok(());
        }
        let checkpoint = Checkpoint::load(path, identity)?;
        let names: BTreeSet<&str> = self.carried.iter().map(|carried| carried.name.as_str()).collect();
        let ordered = |tensors: &BTreeMap<String, Tensor>| {
            let there: BTreeSet<&str> = tensors.keys().map(String::as_str).collect();
            if let Some(name) = names.symmetric_difference(&there).next() {
                let what = format!("one of it and the model carries '{name}', the other does not");
                return Err(CheckpointError::Other { path: path.clone(), what });
            }
            Ok(self.carried.iter().map(|carried| tensors[&carried.name].clone()).collect())
        };
        let carried: Vec<Tensor> = ordered(&checkpoint.carried)?;
        self.best = if checkpoint.best.is_empty() { Vec::new() } else { ordered(&checkpoint.best)? };
        self.engine.restore(&carried)?;
        self.saved = checkpoint.progress.step;
        self.progress = checkpoint.progress;
        Ok(())
    }

    /// Makes all steps that are left, or as many as there are before `stop` is set; a checkpoint is saved then. Where the last step is
    /// within an epoch, that is evaluated too. The observer is not told that the run has ended.
    ///
    /// # Errors
    /// Whatever fails. The last checkpoint is as it was.
    pub fn run(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Ended, TrainError> {
        let ended = self.steps(observer, stop)?;
        // A run that is resumed goes on from the last step, whatever the best one was, and evaluates its epochs at their ends.
        match (ended, self.finite()) {
            (_, Ok(carried)) => self.save(carried)?,
            (Ended::Early { .. }, Err(TrainError::Diverged(_))) => {}
            (_, Err(error)) => return Err(error),
        }
        match ended {
            Ended::Early { .. } => self.engine.restore(&self.best)?,
            Ended::Finished if !self.progress.step.is_multiple_of(self.per_epoch()) => {
                if !self.end_epoch(observer, stop)? {
                    return Ok(Ended::Stopped);
                }
            }
            Ended::Finished | Ended::Stopped => {}
        }
        Ok(ended)
    }

    fn steps(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Ended, TrainError> {
        let per_epoch = self.per_epoch();
        let total = self.settings.steps(per_epoch);
        loop {
            // Also of a run that was stopped in an evaluation, and is resumed.
            let is_epoch_over = self.progress.step / per_epoch > self.progress.epochs.len() as u64;
            if is_epoch_over && !self.end_epoch(observer, stop)? {
                return Ok(Ended::Stopped);
            }
            if let Some(Checkpoints { every, .. }) = &self.settings.checkpoints
                && self.progress.step.is_multiple_of(*every)
                && self.progress.step > self.saved
            {
                self.save(self.finite()?)?;
            }
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
        }
    }

    fn per_epoch(&self) -> u64 {
        self.task.batches.per_epoch() as u64
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
        let weight = self.task.weight(&feeds);
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
        let loss = match self.engine.step(&feeds) {
            Err(RuntimeError::Breakdown { what, .. }) => {
                return Err(Divergence::in_layer(what, at + 1, lr, lambda).into());
            }
            loss => loss?,
        };
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

    /// What the inputs are fed in batch `at` of an epoch, both counted from 0.
    fn batch(&mut self, epoch: u64, at: usize) -> Vec<(&'a str, Tensor)> {
        if self.epoch.as_ref().is_none_or(|(under_way, _)| *under_way != epoch) {
            self.epoch = None;
        }
        let (_, epoch) =
            self.epoch.get_or_insert_with(|| (epoch, self.task.batches.shuffled(self.settings.seed, epoch)));
        epoch.batch(at)
    }

    /// Evaluates the epoch that is over, or that the run ends in, and tells the observer; false if `stop` is set meanwhile.
    fn end_epoch(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<bool, TrainError> {
        let eval = match &self.task.examination {
            Some(examination) => {
                let scores = examination.scores(self.engine, self.task, stop)?;
                if scores.is_none() {
                    return Ok(false);
                }
                scores
            }
            None => None,
        };
        let Progress { step, seconds, loss_sum, loss_weight, .. } = self.progress;
        let epoch = step.div_ceil(self.per_epoch());
        let record = EpochRecord { epoch, step, train_loss: loss_sum / loss_weight, eval, seconds };
        (self.progress.loss_sum, self.progress.loss_weight) = (0.0, 0.0);
        self.progress.epochs.push(record.clone());
        observer.epoch(&record).map_err(TrainError::Report)?;
        Ok(true)
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
            Some((best, lowest)) if loss.is_nan() || loss >= lowest => Ok((epoch - best >= patience).then_some(best)),
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
            Fault::Forward { .. } | Fault::Layer { .. } => Ok(carried),
        }
    }

    fn named<'t>(&'t self, tensors: &'t [Tensor]) -> impl Iterator<Item = (&'t str, &'t Tensor)> {
        self.carried.iter().map(|carried| carried.name.as_str()).zip(tensors)
    }

    /// Saves a checkpoint with this of what is carried, if there are to be any and none was saved since the last step.
    fn save(&mut self, carried: Vec<Tensor>) -> Result<(), TrainError> {
        let Some(Checkpoints { path, identity, .. }) = &self.settings.checkpoints else { return Ok(()) };
        if self.saved == self.progress.step {
            return Ok(());
        }
        let named =
            |tensors: Vec<Tensor>| self.carried.iter().map(|carried| carried.name.clone()).zip(tensors).collect();
        let checkpoint = Checkpoint {
            identity: identity.clone(),
            progress: self.progress.clone(),
            carried: named(carried),
            best: named(self.best.clone()),
        };
        checkpoint.save(path)?;
        self.saved = self.progress.step;
        Ok(())
    }
}
