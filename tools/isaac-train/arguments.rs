//! The command line.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};
use isaac::train::metrics::Metric;
use isaac::train::schedule::Schedule;
use isaac::train::sweep::Axis;

use crate::options::{Conditioning, Objective};

/// Fine-tunes an exported model with curvature from each layer's input (ISAAC Newton).
///
/// MODEL is a forward model, for which --loss says what is made small, or a training graph that isaac-rewrite wrote.
///
/// Exit status: 0 done; 1 a file, the data or the run is at fault; 2 the command line is; 130 stopped by Ctrl-C.
#[derive(Parser)]
// MODEL comes first: behind --data it would be one of its files.
#[command(
    name = "isaac-train",
    version,
    override_usage = "isaac-train <MODEL> --data <FILE|NAME>... --loss <LOSS> --lr <SCHEDULE> [OPTIONS]"
)]
pub(crate) struct Arguments {
    /// The forward model, or the training graph (.onnx).
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) run: Run,
    #[command(flatten)]
    pub(crate) conditioning: Conditioning,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) objective: Objective,
}

/// Where examples come from.
#[derive(Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct Data {
    /// The examples: .npz, .npy, .safetensors, .csv or MNIST's idx files, several of which make one set; or mnist, fashion-mnist.
    #[arg(long = "data", value_name = "FILE|NAME", required = true, num_args = 1..)]
    pub(crate) training: Vec<String>,
    /// Examples to evaluate with after every epoch: files as for --data, or a fraction of those, held out. [default for mnist and
    /// fashion-mnist: their test images]
    #[arg(long = "eval", value_name = "FILE|FRACTION", num_args = 1..)]
    pub(crate) evaluation: Vec<String>,
    /// Which array of the data an input of the model is fed with, where names do not tell.
    #[arg(long, value_name = "INPUT=ARRAY", value_parser = pair)]
    pub(crate) bind: Vec<(String, String)>,
    /// What is measured in the evaluation beside the loss. [default: accuracy, where labels are classes]
    #[arg(long, value_name = "NAME")]
    pub(crate) metric: Vec<Metric>,
    /// Where downloads are kept. [default: isaac-onnx in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
}

/// How training goes.
#[derive(Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct Run {
    /// The learning rate: a number, or linear:FROM:TO, cosine:FROM:TO, exponential:FROM:TO, step:FROM:FACTOR:EPOCHS; any of them also
    /// behind warmup:STEPS and a comma, as in warmup:100,cosine:0.1:0.
    #[arg(long, value_name = "SCHEDULE", allow_negative_numbers = true, value_parser = Schedule::learning_rate, required_unless_present_any = ["find_lr", "sweep"])]
    pub(crate) lr: Option<Schedule>,
    /// The damping λ of the curvature, > 0, as --lr; inf gives the plain gradient. [default: 1, or a training graph's own]
    #[arg(long, value_name = "SCHEDULE", allow_negative_numbers = true, value_parser = Schedule::damping)]
    pub(crate) lambda: Option<Schedule>,
    /// The damping λg of ζ, as --lambda. [default: inf, or a training graph's own]
    #[arg(long, value_name = "SCHEDULE", allow_negative_numbers = true, value_parser = Schedule::damping)]
    pub(crate) lambda_g: Option<Schedule>,
    /// What is looked for here is a part of the rate.
    #[arg(long = "schedule", hide = true, value_parser = no_schedule)]
    _schedule: Option<Infallible>,
    /// Passes over the examples.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) epochs: u64,
    /// Examples in a step. [default: the model's, where it has a fixed one, or else 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch_size: Option<u64>,
    /// End after so many steps; an epoch that they end within is evaluated too.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_steps: Option<u64>,
    /// End when the loss of the evaluation has not sunk for so many epochs, and go back to the best one.
    #[arg(long, value_name = "EPOCHS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) early_stop: Option<u64>,
    /// What the order of the examples, dropout and sampled labels follow from.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Raise the learning rate from 1e-6 to 10 within --max-steps steps [default: 100], print the losses and a suggestion, and write
    /// nothing.
    #[arg(long, conflicts_with_all = ["lr", "sweep", "resume"])]
    pub(crate) find_lr: bool,
    /// Train once for each combination of these values and print a ranked table: lr=0.1,0.3 lambda=0.1,1 seed=0,1. A schedule behind
    /// its warm-up is one value: lr=0.1,warmup:10,cosine:0.1:0. --out gets the best.
    #[arg(long, value_name = "NAME=A,B,…", num_args = 1.., conflicts_with = "resume")]
    pub(crate) sweep: Vec<Axis>,
    /// What runs the graphs. [default: ort where there is a libonnxruntime, or else tract]
    #[arg(long, value_enum)]
    pub(crate) runtime: Option<RuntimeName>,
    /// What ONNX Runtime computes on: cuda needs a runtime with the CUDA provider.
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub(crate) device: DeviceName,
    /// Threads of ONNX Runtime. [default: its own choice]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) threads: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeName {
    /// ONNX Runtime: the library in ORT_DYLIB_PATH, that of Python's onnxruntime package, or the system's.
    Ort,
    /// tract, which is built in: no library is needed, and fewer models run, slower.
    Tract,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceName {
    /// The processor.
    Cpu,
    /// The first CUDA device. Weights and optimizer state stay there from step to step.
    Cuda,
}

/// What is left of a run.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Where to write the trained model: the given one with new weights.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Where to write the trained weights alone (.safetensors).
    #[arg(long, value_name = "FILE")]
    pub(crate) weights_out: Option<PathBuf>,
    /// Where to save checkpoints; the one before is kept as FILE.previous.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Save a checkpoint every so many steps.
    #[arg(long, value_name = "STEPS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_every: u64,
    /// Go on from the checkpoint, if there is one.
    #[arg(long, requires = "checkpoint")]
    pub(crate) resume: bool,
    /// Write a row for every step.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write event files for TensorBoard.
    #[arg(long, value_name = "DIR")]
    pub(crate) tensorboard: Option<PathBuf>,
    /// Draw loss and metric against steps and against seconds (.svg or .png).
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Print one JSON object at the end.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Says where schedules are given.
fn no_schedule(_: &str) -> Result<Infallible, &'static str> {
    Err(
        "a schedule is a part of the value that it changes: --lr cosine:0.1:0, --lr step:0.1:0.5:10, --lambda linear:10:1 (see --lr)",
    )
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (input, array) = text.split_once('=').ok_or("this is INPUT=ARRAY")?;
    Ok((input.to_owned(), array.to_owned()))
}
