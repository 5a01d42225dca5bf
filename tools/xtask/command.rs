//! Starting other programs, with messages that say which one failed and how.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::process::{Command, Output, Stdio};

use crate::paths;

/// Runs a command with its output shown.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed: {status}", line(command))) }
}

/// Runs a command with its output hidden, unless it fails.
pub(crate) fn run_quietly(command: &mut Command) -> Result<Output, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| not_started(command, &error))?;
    if output.status.success() {
        return Ok(output);
    }
    let mut message = format!("`{}` failed: {}", line(command), output.status);
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(text);
        if !text.trim().is_empty() {
            let _ = write!(message, "\n{}", text.trim_end());
        }
    }
    Err(message)
}

/// The command as a person would type it in the repository's root.
pub(crate) fn line(command: &Command) -> String {
    let root = format!("{}/", paths::root().display());
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().replace(&root, "")).collect();
    words.join(" ")
}

/// Why a command could not even be started.
pub(crate) fn not_started(command: &Command, error: &std::io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    match error.kind() {
        ErrorKind::NotFound => format!("`{program}` is needed, and there is none on the PATH"),
        _ => format!("`{program}` cannot be started: {error}"),
    }
}
