//! Running a test runner with its output shown, and reading off how many tests it ran.

use std::io::{BufRead, BufReader, Read};
use std::ops::AddAssign;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use crate::command;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Counts {
    pub(crate) fn total(&self) -> usize {
        self.passed + self.failed + self.skipped
    }

    /// Adds what a closing line of nextest, of `cargo test` or of pytest says; any other line says nothing.
    fn read(&mut self, line: &str) {
        let line = line.trim_matches(['=', ' ']);
        let pytest = line.starts_with(|first: char| first.is_ascii_digit()) && line.contains(" in ");
        if !(pytest || line.starts_with("Summary [") || line.starts_with("test result:")) {
            return;
        }
        let words: Vec<&str> = line.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<usize>() else {
                continue;
            };
            match pair[1] {
                "passed" => self.passed += count,
                "failed" | "error" | "errors" => self.failed += count,
                "skipped" | "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs a command, passes its output on line by line, and says whether it succeeded and what it counted.
pub(crate) fn run_counted(command: &mut Command) -> Result<(bool, Counts), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| command::not_started(command, &error))?;
    let counts = Mutex::new(Counts::default());
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    thread::scope(|scope| {
        scope.spawn(|| pass_on(stdout, &counts));
        scope.spawn(|| pass_on(stderr, &counts));
    });
    let status = child.wait().map_err(|error| format!("`{}`: {error}", command::line(command)))?;
    Ok((status.success(), counts.into_inner().expect("no reader panics")))
}

fn pass_on(stream: impl Read, counts: &Mutex<Counts>) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counts.lock().expect("no reader panics").read(&line);
    }
}
