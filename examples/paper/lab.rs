//! What the experiments share: data, programs, runs and pictures.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use isaac::model::Model;
use isaac::optimizer::{Moments, Optimizer, Update};
use isaac::rewrite::{Choice, Selector};
use isaac::runtime::{Device, OnnxRuntime, Program};
use isaac::tensors::Tensor;
use isaac::train::data::{Batches, Builtin, Dataset, Examples, Role, Split};
use isaac::train::metrics::{Labels, Metric};
use isaac::train::report::plot;
use isaac::train::schedule::Schedule;
use isaac::train::sweep::{Outcome, run_from};
use isaac::train::{Examination, Rates, Settings, Task, inputs};
use isaac::training_graph::{Distance, Labelled, Loss, Method, Recipe, Selection};

pub(crate) type Failure = Box<dyn Error>;

/// The examples that are evaluated at once.
const EVALUATION_BATCH: usize = 500;

pub(crate) const CLASSES: Goal = Goal {
    distance: Distance::CrossEntropy { class_axis: None, ignore_index: None },
    labels: "labels",
    metrics: &[Metric::Accuracy],
};
/// An image is its own label.
pub(crate) const IMAGES: Goal = Goal { distance: Distance::MeanSquaredError, labels: "images", metrics: &[] };
pub(crate) const SGD: Optimizer = Optimizer::Sgd;
pub(crate) const MOMENTUM: Optimizer = Optimizer::Momentum { momentum: 0.9, nesterov: false };

pub(crate) fn adam() -> Optimizer {
    Optimizer::Adam(Moments::default())
}

/// Where experiments are made, and how large.
pub(crate) struct Lab {
    pub(crate) full: bool,
    pub(crate) out: PathBuf,
    pub(crate) threads: usize,
    pub(crate) cache: PathBuf,
    pub(crate) only: Only,
}

/// Which variants of an experiment are run.
pub(crate) struct Only {
    /// A part of their names; `None`: all are.
    text: Option<String>,
    has_any: Cell<bool>,
    others: RefCell<Vec<String>>,
}

impl Only {
    pub(crate) fn new(text: Option<String>) -> Self {
        Self { text, has_any: Cell::new(false), others: RefCell::default() }
    }

    /// Fails where no name that was asked about has the text in it.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match &self.text {
            Some(text) if !self.has_any.get() => {
                let others = self.others.borrow().join("; ");
                Err(format!("no variant has {text:?} in its name; there are: {others}").into())
            }
            _ => Ok(()),
        }
    }
}

impl Lab {
    /// One of these, by the size of experiments.
    pub(crate) fn size<T>(&self, small: T, full: T) -> T {
        if self.full { full } else { small }
    }

    /// Whether a variant of this name is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let is_wanted = self.only.text.as_deref().is_none_or(|text| name.contains(text));
        if is_wanted {
            self.only.has_any.set(true);
        } else {
            self.only.others.borrow_mut().push(name.to_owned());
        }
        is_wanted
    }

    pub(crate) fn data(&self, builtin: Builtin) -> Result<Split, Failure> {
        Ok(builtin.load(&self.cache)?)
    }

    /// The path of a picture; its folder is made.
    pub(crate) fn picture(&self, name: &str) -> Result<PathBuf, Failure> {
        std::fs::create_dir_all(&self.out)?;
        Ok(self.out.join(format!("{name}.svg")))
    }

    /// Draws the curves of runs over each other.
    pub(crate) fn plot(&self, name: &str, title: &str, outcomes: &[&Outcome]) -> Result<(), Failure> {
        let runs: Vec<_> = outcomes.iter().map(|outcome| outcome.as_run()).collect();
        Ok(plot::draw(&self.picture(name)?, title, &runs)?)
    }
}

/// What takes the gradient's place, and in which layers.
#[derive(Clone)]
pub(crate) struct Direction {
    pub(crate) method: Method,
    pub(crate) layers: Selector,
}

impl Direction {
    pub(crate) fn everywhere(method: Method) -> Self {
        Self { method, layers: Selector::All }
    }
}

/// What a network is to learn, and how well it has.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) distance: Distance,
    /// The array of the data that holds the labels.
    pub(crate) labels: &'static str,
    pub(crate) metrics: &'static [Metric],
}

/// Data, a loss, and batches: what networks of one shape of input are trained with.
pub(crate) struct Problem<'a> {
    lab: &'a Lab,
    goal: Goal,
    train: Examples,
    test: Examples,
    batch: usize,
}

impl<'a> Problem<'a> {
    /// The problem of networks like `model`, on a fraction of a set's examples to train with.
    pub(crate) fn new(
        lab: &'a Lab,
        data: &Split,
        model: &Model,
        goal: Goal,
        (fraction, batch): (f64, usize),
    ) -> Result<Self, Failure> {
        let inputs = inputs(&program(model, goal.distance, SGD, &Direction::everywhere(Method::Gradient))?);
        let labels = inputs.iter().filter(|input| input.role == Role::Labels);
        let bindings: Vec<(String, String)> =
            labels.map(|input| (input.name.clone(), goal.labels.to_owned())).collect();
        let examples = |dataset: &Dataset| Examples::new(dataset, &inputs, &bindings);
        let train = examples(&data.train)?;
        // Which examples are left does not vary with the seed of a run.
        let train = if fraction < 1.0 { train.split(fraction, 0)?.1 } else { train };
        Ok(Self { lab, goal, train, test: examples(&data.test)?, batch })
    }

    /// Makes a network ready to be trained.
    pub(crate) fn runner(
        &self,
        model: &Model,
        optimizer: Optimizer,
        direction: &Direction,
    ) -> Result<Runner<'_>, Failure> {
        let program = program(model, self.goal.distance, optimizer, direction)?;
        let engine = OnnxRuntime::new(&program, Some(self.lab.threads), Device::Cpu)?;
        let labels = Labels::from(self.goal.distance);
        let batches = Batches::new(&self.test, EVALUATION_BATCH)?;
        let labels = program.map.labels.first().map(|input| (input.clone(), labels));
        let examination = Some(Examination { batches, metrics: self.goal.metrics.to_vec() });
        let start = program.start()?;
        let batches = Batches::new(&self.train, self.batch)?;
        let task = Task { map: program.map, batches, labels, examination };
        Ok(Runner { engine, task, start })
    }
}

/// A network in the runtime, which is trained again and again from the same weights.
pub(crate) struct Runner<'a> {
    engine: OnnxRuntime,
    task: Task<'a>,
    start: Vec<Tensor>,
}

impl Runner<'_> {
    /// The same without evaluations.
    pub(crate) fn unexamined(self) -> Self {
        Self { task: Task { examination: None, ..self.task }, ..self }
    }

    /// One run. That it diverges is an outcome too.
    pub(crate) fn run(&mut self, name: &str, settings: &Settings) -> Result<Outcome, Failure> {
        let point = (name.to_owned(), settings.clone());
        let never = AtomicBool::new(false);
        let outcome = run_from(&self.start, &mut self.engine, &self.task, &point, &mut (), &never)?;
        outcome.ok_or_else(|| "a run was stopped".into())
    }

    /// A run at each of these learning rates: the one that ends with the lowest training loss.
    pub(crate) fn best(&mut self, name: &str, settings: &Settings, rates: &[f64]) -> Result<Outcome, Failure> {
        let mut best: Option<Outcome> = None;
        for &rate in rates {
            let mut settings = settings.clone();
            settings.rates.lr = Schedule::constant(rate);
            let outcome = self.run(&format!("{name}, lr {rate}"), &settings)?;
            eprintln!("{}: {}", outcome.label, describe(&outcome));
            if best.as_ref().is_none_or(|best| final_loss(&outcome) < final_loss(best)) {
                best = Some(outcome);
            }
        }
        best.ok_or_else(|| "no learning rate was given".into())
    }
}

/// Settings with constant rates.
pub(crate) fn settings(epochs: u64, lr: f64, (lambda_a, lambda_g): (f64, f64)) -> Settings {
    let [lr, lambda_a, lambda_g] = [lr, lambda_a, lambda_g].map(Schedule::constant);
    let rates = Rates { lr, lambda_a: Some(lambda_a), lambda_g: Some(lambda_g) };
    Settings { epochs, max_steps: None, rates, seed: 0, patience: None, checkpoints: None }
}

/// The mean loss of the last tenth of the steps; infinite for a run that diverged.
pub(crate) fn final_loss(outcome: &Outcome) -> f64 {
    let steps = &outcome.steps;
    let last = &steps[steps.len() - steps.len().div_ceil(10)..];
    if outcome.diverged.is_some() || last.is_empty() {
        return f64::INFINITY;
    }
    last.iter().map(|step| step.loss).sum::<f64>() / last.len() as f64
}

/// A metric of the last evaluation.
pub(crate) fn measured(outcome: &Outcome, metric: Metric) -> Option<f64> {
    outcome.progress.epochs.last().filter(|_| outcome.diverged.is_none())?.eval.as_ref()?.get(metric.name())
}

/// The accuracy of the last evaluation.
pub(crate) fn accuracy(outcome: &Outcome) -> Option<f64> {
    measured(outcome, Metric::Accuracy)
}

/// The median time of a step, but for the first.
pub(crate) fn milliseconds(outcome: &Outcome) -> f64 {
    let times = outcome.steps.windows(2).map(|pair| 1e3 * (pair[1].seconds - pair[0].seconds));
    crate::table::median(times.collect())
}

pub(crate) fn describe(outcome: &Outcome) -> String {
    match (&outcome.diverged, accuracy(outcome)) {
        (Some(divergence), _) => format!("diverged at step {}", divergence.step),
        (None, None) => format!("loss {:.5}", final_loss(outcome)),
        (None, Some(accuracy)) => format!("loss {:.5}, accuracy {accuracy:.4}", final_loss(outcome)),
    }
}

/// What is run: a network's training graph, with its layers conditioned, and the graph that evaluates.
fn program(model: &Model, distance: Distance, optimizer: Optimizer, direction: &Direction) -> Result<Program, Failure> {
    let recipe = Recipe {
        loss: Loss::Labelled(Labelled { distance, prediction: None, example_weights: false }),
        update: Some(Update { optimizer, weight_decay: 0.0, clip_norm: None }),
        selection: Selection::default(),
    };
    let choice = Choice { layers: vec![direction.layers.clone()], ..Choice::default() };
    let (program, _) =
        isaac::train::program(model, &recipe, direction.method, |analysis| Ok(analysis.choose(&choice)?))?;
    Ok(program)
}
