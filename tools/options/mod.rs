//! Command-line options that the tools share.

pub(crate) mod conditioning;
mod objective;

use std::error::Error;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;

pub(crate) use conditioning::Conditioning;
pub(crate) use objective::{Objective, constant_weights};

/// Tells why the program of `Arguments` failed, and gives the status that it ends with: 2 if another command line would help, or else 1.
pub(crate) fn failed<Arguments: CommandFactory>(error: &dyn Error, is_usage: bool) -> ExitCode {
    let mut command = Arguments::command();
    if is_usage {
        // Nothing can be done about a standard error that cannot be written.
        let _ = command.error(ErrorKind::ValueValidation, error).print();
        return ExitCode::from(2);
    }
    eprintln!("{}: {}", command.get_name(), with_sources(error));
    ExitCode::from(1)
}

/// Tells what the user of the program of `Arguments` may not have meant, if there is something.
pub(crate) fn warn<Arguments: CommandFactory>(doubts: impl IntoIterator<Item = String>) {
    for doubt in doubts {
        eprintln!("{}: warning: {doubt}", Arguments::command().get_name());
    }
}

/// Lines of cells, each column as wide as its widest cell.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column).unwrap_or(0)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// An error and its causes, in one line.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
