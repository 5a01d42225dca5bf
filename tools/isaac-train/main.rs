//! `isaac-train`: fine-tunes an exported model.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

mod arguments;
mod data;
mod failure;
#[path = "../options/mod.rs"]
mod options;
mod places;
mod plan;
mod reports;
mod results;
mod session;
#[cfg(feature = "tract")]
mod tract;

use arguments::Arguments;
use failure::Failure;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(status) => status,
        Err(error) => options::failed::<Arguments>(&error, error.is_usage()),
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
