//! Runs for each combination of some settings.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use super::checkpoint::Progress;
use super::divergence::Divergence;
use super::report::plot::Run;
use super::report::{EpochRecord, Observer, StepRecord};
use super::schedule::{self, Schedule};
use super::trainer::{Ended, Settings, Task, TrainError, Trainer};
use crate::runtime::Engine;
use crate::tensors::Tensor;

/// What a sweep varies, with the values that it takes in turn: `lr=0.1,0.3`. A schedule behind its warm-up is one value:
/// `lr=0.1,warmup:10,cosine:0.1:0`.
#[derive(Debug, Clone, PartialEq)]
pub enum Axis {
    /// The learning rate.
    Lr(Vec<Schedule>),
    /// The damping λa.
    Lambda(Vec<Schedule>),
    /// The damping λg.
    LambdaG(Vec<Schedule>),
    /// The seed.
    Seed(Vec<u64>),
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = text.split_once('=').ok_or_else(|| format!("'{text}' is not NAME=A,B,…"))?;
        fn all<T, E: fmt::Display>(values: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, String> {
            schedule::split(values).map(|value| parse(value).map_err(|error| error.to_string())).collect()
        }
        match name {
            "lr" => Ok(Self::Lr(all(values, Schedule::learning_rate)?)),
            "lambda" => Ok(Self::Lambda(all(values, Schedule::damping)?)),
            "lambda-g" => Ok(Self::LambdaG(all(values, Schedule::damping)?)),
            "seed" => Ok(Self::Seed(all(values, str::parse)?)),
            _ => Err(format!("'{name}' cannot be varied; lr, lambda, lambda-g and seed can")),
        }
    }
}

impl Axis {
    /// For each value: what it is called, and the settings with it.
    fn variants(&self, settings: &Settings) -> Vec<(String, Settings)> {
        let with = |label: String, set: &dyn Fn(&mut Settings)| {
            let mut settings = settings.clone();
            set(&mut settings);
            (label, settings)
        };
        match self {
            Self::Lr(values) => values.iter().map(|&v| with(format!("lr={v}"), &|s| s.rates.lr = v)).collect(),
            Self::Lambda(values) => {
                values.iter().map(|&v| with(format!("lambda={v}"), &|s| s.rates.lambda_a = Some(v))).collect()
            }
            Self::LambdaG(values) => {
                values.iter().map(|&v| with(format!("lambda-g={v}"), &|s| s.rates.lambda_g = Some(v))).collect()
            }
            Self::Seed(values) => values.iter().map(|&v| with(format!("seed={v}"), &|s| s.seed = v)).collect(),
        }
    }
}

/// All combinations of the axes' values: what each is called, and its settings.
pub fn grid(settings: &Settings, axes: &[Axis]) -> Vec<(String, Settings)> {
    let mut points = vec![(String::new(), settings.clone())];
    for axis in axes {
        let extended = points.iter().flat_map(|(label, settings)| {
            let join = move |own: String| if label.is_empty() { own } else { format!("{label} {own}") };
            axis.variants(settings).into_iter().map(move |(own, settings)| (join(own), settings))
        });
        points = extended.collect();
    }
    points
}

/// A run of a sweep.
#[derive(Debug)]
pub struct Outcome {
    /// What sets it apart.
    pub label: String,
    /// How far it came.
    pub progress: Progress,
    /// Its steps.
    pub steps: Vec<StepRecord>,
    /// Whether it ended early, and carries what it did after its best epoch.
    pub early: bool,
    /// Why it ended too soon.
    pub diverged: Option<Divergence>,
    /// What it carried at its end, in the order of `TrainingMap::carried`.
    pub carried: Vec<Tensor>,
}

impl Outcome {
    /// As a plot shows it.
    pub fn as_run(&self) -> Run<'_> {
        Run { name: &self.label, steps: &self.steps, epochs: &self.progress.epochs }
    }

    /// What runs are ranked by: the loss of the last evaluation (of the best one, if it ended early), or else of the last epoch's steps. Infinite for a run that diverged.
    pub fn score(&self) -> f64 {
        if let Some((_, lowest)) = self.progress.best.filter(|_| self.early) {
            return lowest;
        }
        let last = self.progress.epochs.last().filter(|_| self.diverged.is_none());
        let loss = |record: &EpochRecord| match &record.eval {
            Some(eval) => eval.get("loss"),
            None => Some(record.train_loss),
        };
        last.and_then(loss).filter(|loss| !loss.is_nan()).unwrap_or(f64::INFINITY)
    }
}

/// One run, from `start` to its end or to where it diverges; `None` if it was asked to stop.
///
/// # Errors
/// Whatever fails beside that.
pub fn run_from(
    start: &[Tensor],
    engine: &mut dyn Engine,
    task: &Task<'_>,
    (label, settings): &(String, Settings),
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Option<Outcome>, TrainError> {
    engine.restore(start)?;
    let mut recorder = Recorder { observer, steps: Vec::new() };
    let mut trainer = Trainer::new(engine, task, settings);
    let ended = trainer.run(&mut recorder, stop);
    recorder.finish().map_err(TrainError::Report)?;
    let (early, diverged) = match ended {
        Ok(Ended::Stopped) => return Ok(None),
        Ok(Ended::Finished) => (false, None),
        Ok(Ended::Early { .. }) => (true, None),
        Err(TrainError::Diverged(divergence)) => (false, Some(divergence)),
        Err(error) => return Err(error),
    };
    let progress = trainer.progress().clone();
    Ok(Some(Outcome {
        label: label.clone(),
        progress,
        steps: recorder.steps,
        early,
        diverged,
        carried: engine.carried()?,
    }))
}

/// Keeps the steps, and passes everything on.
struct Recorder<'a> {
    observer: &'a mut dyn Observer,
    steps: Vec<StepRecord>,
}

impl Observer for Recorder<'_> {
    fn step(&mut self, record: &StepRecord) -> std::io::Result<()> {
        self.steps.push(record.clone());
        self.observer.step(record)
    }

    fn epoch(&mut self, record: &EpochRecord) -> std::io::Result<()> {
        self.observer.epoch(record)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.observer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Rates;

    #[test]
    fn a_grid_has_every_combination() {
        let constant = Schedule::constant;
        let rates = Rates { lr: constant(1.0), lambda_a: None, lambda_g: None };
        let settings = Settings { epochs: 1, max_steps: None, rates, seed: 0, patience: None, checkpoints: None };
        let axes = ["lambda=0.1,inf", "seed=3,4"].map(|text| text.parse().expect("an axis"));
        let points = grid(&settings, &axes);
        let labels: Vec<&str> = points.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(labels, ["lambda=0.1 seed=3", "lambda=0.1 seed=4", "lambda=inf seed=3", "lambda=inf seed=4"]);
        let (_, last) = &points[3];
        assert_eq!((last.rates.lambda_a, last.rates.lr, last.seed), (Some(constant(f64::INFINITY)), constant(1.0), 4));
        assert_eq!(grid(&settings, &[]), [(String::new(), settings)]);
    }

    #[test]
    fn a_schedule_behind_its_warm_up_is_one_value() {
        let axis: Axis = "lr=0.1,warmup:10,cosine:0.1:0,warmup:5,0.3,linear:1:0".parse().expect("an axis");
        let schedules = ["0.1", "warmup:10,cosine:0.1:0", "warmup:5,0.3", "linear:1:0"];
        assert_eq!(axis, Axis::Lr(schedules.map(|text| text.parse().expect("a schedule")).to_vec()));
    }

    #[test]
    fn what_cannot_be_varied_is_refused() {
        for text in ["lr", "batch=3", "lr=", "lr=0.1,warmup:10", "lambda=0", "seed=-1"] {
            assert!(text.parse::<Axis>().is_err(), "{text}");
        }
    }
}
