//! The project's own commands: `cargo xtask setup`, `cargo xtask demo`, `cargo xtask bench`, `cargo xtask sentences`,
//! `cargo xtask test`.

mod bench;
mod build;
mod command;
mod demo;
mod environment;
mod output;
mod paths;
mod sentences;
mod suite;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make the Python environments under target/python from their pinned requirements
    Setup,
    /// Train on MNIST with the gradient and with zeta*, and draw the loss curves
    Demo(demo::Options),
    /// Run a benchmark: layer, accuracy, step
    Bench(bench::Options),
    /// Make what the experiment `sentences` trains: a pretrained encoder, and sentences in its tokens
    Sentences(sentences::Options),
    /// Run everything that CI runs, or only the named steps
    Test(test::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Setup => environment::make_all(),
        Task::Demo(options) => demo::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Sentences(options) => sentences::run(&options),
        Task::Test(options) => test::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
