//! One use of the tool, from the files to the results.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use isaac::model::Model;
use isaac::runtime::{Device, Engine, OnnxRuntime, Program, RuntimeError};
use isaac::train::data::Batches;
use isaac::train::find_rate::RangeTest;
use isaac::train::metrics::{Labels, Metric};
use isaac::train::report::plot;
use isaac::train::report::{CsvFiles, EventFile, Length, Observer, PlotFile, Summary, progress};
use isaac::train::schedule::Schedule;
use isaac::train::sweep::{Axis, Outcome, grid, run_from};
use isaac::train::{
    Checkpoint, Checkpoints, Ended, Examination, Fault, Identity, Progress, Rates, Settings, Task, TrainError, Trainer,
    inputs,
};

use crate::arguments::{Arguments, DeviceName, RuntimeName};
use crate::data::Sources;
use crate::failure::Failure;
use crate::places;
use crate::plan::Plan;
use crate::reports::Reports;
use crate::results::{self, unwritten};

/// The damping λa of a forward model's layers, if none is given.
const LAMBDA: f64 = 1.0;
/// The learning rates of a range test.
const RANGE: &str = "exponential:1e-6:10";
/// Its steps, if not said otherwise.
const RANGE_STEPS: u64 = 100;
/// The examples that are evaluated at once, if steps do not have more.
const EVALUATION_BATCH: usize = 256;
/// The examples of a step, if neither the command line nor the model says otherwise.
const BATCH_SIZE: usize = 32;

/// Everything that a run needs.
pub(crate) struct Session<'a> {
    arguments: &'a Arguments,
    model: Model,
    plan: Plan,
    sources: Sources,
}

impl<'a> Session<'a> {
    /// Reads model and data.
    pub(crate) fn new(arguments: &'a Arguments) -> Result<Self, Failure> {
        let model = Model::load(&arguments.model)?;
        places::check(arguments, &model)?;
        let plan = Plan::new(arguments, &model)?;
        let run = &arguments.run;
        plan.check(run, &run.sweep)?;
        let sources = Sources::load(&arguments.data, run.seed, &inputs(&plan.program), plan.classes())?;
        Ok(Self { arguments, model, plan, sources })
    }

    /// Does what the command line asks for.
    pub(crate) fn run(&self, stop: &AtomicBool) -> Result<ExitCode, Failure> {
        let run = &self.arguments.run;
        let examples = &self.sources.training;
        let given = run.batch_size.map(|size| size as usize).or(examples.fixed_batch());
        let batch_size = given.unwrap_or(BATCH_SIZE.min(examples.len()).max(1));
        let batches = Batches::new(examples, batch_size)?;
        self.note_dropped("training", batches.dropped());
        // A range test is over before it would be evaluated.
        let examination = self.examination(batch_size)?.filter(|_| !run.find_lr);
        let task = Task { map: self.plan.program.map.clone(), batches, labels: self.labels(), examination };
        let mut engine = self.engine()?;
        let engine = engine.as_mut();
        if run.find_lr {
            self.find_rate(engine, &task, stop)
        } else if run.sweep.is_empty() {
            self.train(engine, &task, stop)
        } else {
            self.sweep(engine, &task, stop)
        }
    }

    /// What is evaluated after every epoch, if anything is.
    fn examination(&self, batch_size: usize) -> Result<Option<Examination<'_>>, Failure> {
        let Arguments { run, data, .. } = self.arguments;
        let refused = |what: &str| Err(Failure::Usage(what.into()));
        match &self.sources.evaluation {
            Some(_) if self.plan.program.evaluation.is_none() => {
                refused("--eval needs a forward model: a training graph has nothing that evaluates")
            }
            Some(examples) => {
                let size = examples.fixed_batch().unwrap_or(batch_size.max(EVALUATION_BATCH));
                let batches = Batches::new(examples, size)?;
                self.note_dropped("evaluation", batches.dropped());
                Ok(Some(Examination { batches, metrics: self.metrics(&data.metric)? }))
            }
            None if !data.metric.is_empty() => refused("--metric belongs to --eval"),
            None if run.early_stop.is_some() => refused("--early-stop belongs to --eval"),
            None => Ok(None),
        }
    }

    /// What runs the program: what is asked for, or ONNX Runtime, if there is one, and else what is built in.
    fn engine(&self) -> Result<Box<dyn Engine>, Failure> {
        let program = &self.plan.program;
        let threads = self.arguments.run.threads.map(|threads| threads as usize);
        let is_tract = self.arguments.run.runtime == Some(RuntimeName::Tract);
        let device = match self.arguments.run.device {
            DeviceName::Cpu => Device::Cpu,
            DeviceName::Cuda if is_tract => {
                return Err(Failure::Usage("--device cuda belongs to --runtime ort".into()));
            }
            DeviceName::Cuda => Device::Cuda,
        };
        if is_tract && threads.is_some() {
            return Err(Failure::Usage("--threads belongs to --runtime ort".into()));
        }
        let onnxruntime =
            || OnnxRuntime::new(program, threads, device).map(|engine| Box::new(engine) as Box<dyn Engine>);
        let engine = match self.arguments.run.runtime {
            Some(RuntimeName::Ort) => onnxruntime(),
            Some(RuntimeName::Tract) => tract(program),
            None => match onnxruntime() {
                Err(missing @ RuntimeError::NotFound) if device == Device::Cpu && cfg!(feature = "tract") => {
                    self.note(&format!("{missing}; what is built in takes its place"));
                    tract(program)
                }
                known => known,
            },
        }?;
        self.note(&engine.runtime());
        Ok(engine)
    }

    /// One run.
    fn train(&self, engine: &mut dyn Engine, task: &Task<'_>, stop: &AtomicBool) -> Result<ExitCode, Failure> {
        let output = &self.arguments.output;
        let checkpoints = output.checkpoint.as_ref().map(|path| Checkpoints {
            path: path.clone(),
            every: output.checkpoint_every,
            identity: Identity::new(
                &self.plan.program,
                task.batches,
                task.examination.as_ref(),
                self.arguments.run.seed,
            ),
        });
        let settings = Settings { checkpoints, ..self.settings(self.arguments.run.lr)? };
        let mut trainer = Trainer::new(engine, task, &settings);
        if output.resume {
            trainer.resume()?;
        }
        let steps = settings.steps(task.batches.per_epoch() as u64);
        let mut reports = self.reports(task, steps, trainer.progress())?;
        let ended = trainer.run(&mut reports, stop).inspect_err(|error| self.explain(error))?;
        let progress = trainer.progress().clone();
        match ended {
            Ended::Stopped => {
                reports.finish().map_err(TrainError::Report)?;
                let onwards = if output.checkpoint.is_some() { "; --resume goes on from there" } else { "" };
                eprintln!("isaac-train: stopped after step {}{onwards}", progress.step);
                return Ok(ExitCode::from(130));
            }
            Ended::Early { best } => eprintln!("isaac-train: epoch {best} was the best"),
            Ended::Finished => {}
        }
        results::write(output, &self.model, &task.map, engine.carried()?)?;
        let reported = reports.finish().map_err(TrainError::Report);
        if output.json {
            let layers = self.plan.layers.clone();
            let summary = Summary::new(progress.epochs, progress.step, progress.seconds, layers);
            results::print(&(serde_json::to_string(&summary).expect("a summary is plain data") + "\n"))?;
        }
        reported?;
        Ok(ExitCode::SUCCESS)
    }

    /// A run for each point of the grid.
    fn sweep(&self, engine: &mut dyn Engine, task: &Task<'_>, stop: &AtomicBool) -> Result<ExitCode, Failure> {
        let Arguments { run, output, .. } = self.arguments;
        if output.checkpoint.is_some() || output.csv.is_some() || output.tensorboard.is_some() {
            return Err(Failure::Usage(
                "--checkpoint, --csv and --tensorboard are of one run, not of a --sweep".into(),
            ));
        }
        let axes = &run.sweep;
        let start = engine.carried()?;
        let mut outcomes: Vec<Outcome> = Vec::new();
        // An axis puts its own in this one's place.
        let varied = axes.iter().any(|axis| matches!(axis, Axis::Lr(_))).then(|| Schedule::constant(0.0));
        for point in grid(&self.settings(run.lr.or(varied))?, axes) {
            let steps = point.1.steps(task.batches.per_epoch() as u64);
            if !output.quiet {
                eprintln!("{}", point.0);
            }
            let mut observers = self.progress(task, steps, 0);
            let Some(outcome) = run_from(&start, engine, task, &point, &mut observers, stop)? else {
                return Ok(ExitCode::from(130));
            };
            outcomes.push(outcome);
        }
        outcomes.sort_by(|a, b| a.score().total_cmp(&b.score()));
        let best = outcomes.first().filter(|outcome| outcome.score().is_finite());
        if let Some(best) = best {
            results::write(output, &self.model, &task.map, best.carried.clone())?;
        }
        results::print(&if output.json { results::sweep_json(&outcomes) } else { results::table(&outcomes) })?;
        best.ok_or(Failure::NoBest)?;
        if let Some(path) = &output.plot {
            let runs: Vec<_> = outcomes.iter().map(Outcome::as_run).collect();
            plot::draw(path, &self.title(), &runs).map_err(unwritten(path))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The range test.
    fn find_rate(&self, engine: &mut dyn Engine, task: &Task<'_>, stop: &AtomicBool) -> Result<ExitCode, Failure> {
        let max_steps = self.arguments.run.max_steps.unwrap_or(RANGE_STEPS);
        let epochs = max_steps.div_ceil(task.batches.per_epoch() as u64);
        let settings = self.settings(Some(RANGE.parse().expect("a schedule in its grammar")))?;
        let settings = Settings { epochs, max_steps: Some(max_steps), patience: None, ..settings };
        let test = RangeTest::run(engine, task, &settings, stop)?;
        if stop.load(Ordering::Relaxed) {
            return Ok(ExitCode::from(130));
        }
        let mut text: String = test.points.iter().map(|(rate, loss)| format!("{rate:<12.3e}{loss:.5}\n")).collect();
        text += &match test.suggestion() {
            Some(rate) => format!("suggestion: --lr {rate:.2e}\n"),
            None => "no suggestion: the loss does not sink at any rate\n".to_owned(),
        };
        results::print(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The settings of a run, with this learning rate.
    fn settings(&self, lr: Option<Schedule>) -> Result<Settings, Failure> {
        let run = &self.arguments.run;
        // A forward model has no damping of its own.
        let lambda_a = run.lambda.or_else(|| self.plan.program.evaluation.as_ref().map(|_| Schedule::constant(LAMBDA)));
        let missing = || Failure::Usage("the learning rate is not given: --lr, or lr= in --sweep".into());
        let rates = Rates { lr: lr.ok_or_else(missing)?, lambda_a, lambda_g: run.lambda_g };
        Ok(Settings {
            epochs: run.epochs,
            max_steps: run.max_steps,
            rates,
            seed: run.seed,
            patience: run.early_stop,
            checkpoints: None,
        })
    }

    fn progress(&self, task: &Task<'_>, steps: u64, resumed: u64) -> Reports {
        let mut reports = Reports::default();
        if !self.arguments.output.quiet {
            let batch = task.batches.size() as u64;
            reports.add("the progress", progress(Length { steps, resumed, batch }));
        }
        reports
    }

    fn reports(&self, task: &Task<'_>, steps: u64, so_far: &Progress) -> Result<Reports, Failure> {
        let resumed = so_far.step;
        let output = &self.arguments.output;
        let mut reports = self.progress(task, steps, resumed);
        if let Some(path) = &output.csv {
            let examination = task.examination.as_ref();
            let metrics = examination.iter().flat_map(|examination| &examination.metrics).map(|metric| metric.name());
            let scores: Vec<&str> = examination.map(|_| "loss").into_iter().chain(metrics).collect();
            let files = if resumed > 0 {
                CsvFiles::resume(path, &scores, resumed, so_far.epochs.len() as u64)
            } else {
                CsvFiles::create(path, &scores)
            };
            reports.add("--csv", Box::new(files.map_err(unwritten(path))?));
        }
        if let Some(folder) = &output.tensorboard {
            reports.add("--tensorboard", Box::new(EventFile::create(folder, resumed).map_err(unwritten(folder))?));
        }
        if let Some(path) = &output.plot {
            let method = self.arguments.conditioning.method().to_possible_value();
            let name = method.as_ref().map_or("", |value| value.get_name());
            let file = PlotFile::new(path, &self.title(), name, Vec::new(), so_far.epochs.clone());
            reports.add("--plot", Box::new(file.map_err(unwritten(path))?));
        }
        Ok(reports)
    }

    /// What is measured: what is asked for, or accuracy where there is one.
    fn metrics(&self, asked: &[Metric]) -> Result<Vec<Metric>, Failure> {
        match self.plan.labels {
            None if !asked.is_empty() => {
                Err(Failure::Usage("--metric needs a --loss that compares with labels".into()))
            }
            None => Ok(Vec::new()),
            Some(labels) if asked.is_empty() => {
                Ok([Metric::Accuracy].into_iter().filter(|metric| metric.fits(labels)).collect())
            }
            Some(_) if asked.iter().enumerate().any(|(at, metric)| asked[..at].contains(metric)) => {
                Err(Failure::Usage("each --metric is measured once".into()))
            }
            Some(labels) => match asked.iter().find(|metric| !metric.fits(labels)) {
                Some(metric) => Err(Failure::Usage(format!("--metric {metric} does not fit labels that are {labels}"))),
                None => Ok(asked.to_vec()),
            },
        }
    }

    /// The input of the labels, and what they say.
    fn labels(&self) -> Option<(String, Labels)> {
        Some((self.plan.program.map.labels.first()?.clone(), self.plan.labels?))
    }

    /// Tells what helps with a run that diverged: the layer where it did, and the checkpoint before the last one, which may hold
    /// parameters that had begun to grow.
    fn explain(&self, error: &TrainError) {
        let TrainError::Diverged(divergence) = error else { return };
        if let Fault::Layer { what } = &divergence.fault {
            let is_at_fault = |output: &String| what.contains(&format!("\"{output}/"));
            let mut layers = self.plan.layers.iter();
            if let Some(layer) = layers.find(|layer| layer.product_outputs.iter().any(is_at_fault)) {
                eprintln!("isaac-train: layer {}, '{}', diverged", layer.index, layer.weight);
            }
        }
        let checkpoint = self.arguments.output.checkpoint.as_deref();
        if let Some(path) = checkpoint.map(Checkpoint::previous).filter(|path| path.exists()) {
            eprintln!("isaac-train: the checkpoint before the last one is kept: {}", path.display());
        }
    }

    /// What a picture is called: the model's file.
    fn title(&self) -> String {
        self.arguments.model.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn note_dropped(&self, what: &str, count: usize) {
        if count > 0 {
            self.note(&format!(
                "the model's batch size is fixed, so {count} {what} examples are left out of each epoch"
            ));
        }
    }

    /// Says what may be good to know.
    fn note(&self, what: &str) {
        if !self.arguments.output.quiet {
            eprintln!("isaac-train: {what}");
        }
    }
}

/// The embedded runtime.
#[cfg(feature = "tract")]
fn tract(program: &Program) -> Result<Box<dyn Engine>, RuntimeError> {
    Ok(Box::new(crate::tract::Tract::new(program)?))
}

/// The embedded runtime, which this build lacks.
#[cfg(not(feature = "tract"))]
fn tract(_: &Program) -> Result<Box<dyn Engine>, RuntimeError> {
    let what = "this isaac-train was built without tract, which is a default feature";
    Err(RuntimeError::Unavailable(what.into()))
}
