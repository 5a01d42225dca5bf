//! `isaac-train`: fine-tunes an exported model.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

mod arguments;
mod data;
mod failure;
#[path = "../options/mod.rs"]
mod options;
mod plan;
mod results;
mod session;

use arguments::Arguments;
use failure::Failure;
use options::with_sources;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(status) => status,
        Err(error) if error.is_usage() => {
            // Nothing can be done about a standard error that cannot be written.
            let _ = Arguments::command().error(ErrorKind::ValueValidation, error).print();
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("isaac-train: {}", with_sources(&error));
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let at_interrupt = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        // The second time there is no patience left.
        if at_interrupt.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|error| Failure::Interrupts(error.to_string()))?;
    session::Session::new(arguments)?.run(&stop)
}
