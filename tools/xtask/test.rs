//! `cargo xtask test`: runs the steps, and ends with a summary.

use std::time::{Duration, Instant};

use clap::Args;

use crate::output::{Counts, run_counted};
use crate::suite::{Step, steps};
use crate::{build, command, environment};

#[derive(Args)]
pub(crate) struct Options {
    /// The steps to run (all, if none is named)
    #[arg(value_name = "STEP")]
    steps: Vec<String>,

    /// Print the steps and what they test
    #[arg(long)]
    list: bool,

    /// Arguments for the test runner of each step, after `--`
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

struct Outcome {
    name: String,
    success: bool,
    counts: Option<Counts>,
    time: Duration,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let steps = steps();
    if options.list {
        for step in &steps {
            println!("{:<24}{}", step.name, step.what);
        }
        return Ok(());
    }
    for name in &options.steps {
        if !steps.iter().any(|step| step.name == *name) {
            return Err(format!("there is no step `{name}`; `cargo xtask test --list` prints them"));
        }
    }
    let chosen = steps.iter().filter(|step| options.steps.is_empty() || options.steps.contains(&step.name));
    let outcomes: Vec<Outcome> = chosen.map(|step| run_step(step, &options.arguments)).collect();
    summarize(&outcomes)
}

fn run_step(step: &Step, arguments: &[String]) -> Outcome {
    println!("\n== {}: {}", step.name, step.what);
    let start = Instant::now();
    let (success, counts) = prepare_and_run(step, arguments).unwrap_or_else(|message| {
        println!("{message}");
        (false, Counts::default())
    });
    if !success {
        println!("step {0} failed; to run it alone: cargo xtask test {0}", step.name);
    }
    let counts = (counts.total() > 0).then_some(counts);
    Outcome { name: step.name.clone(), success, counts, time: start.elapsed() }
}

fn prepare_and_run(step: &Step, arguments: &[String]) -> Result<(bool, Counts), String> {
    if !step.environments.is_empty() {
        environment::make(&step.environments)?;
        build::release()?;
    }
    let mut command = step.command()?;
    command.args(arguments);
    println!("{}", command::line(&command));
    let (success, counts) = run_counted(&mut command)?;
    if success && step.counts_tests && counts.total() == 0 {
        return Err("no test ran".to_owned());
    }
    Ok((success, counts))
}

/// Prints a line for each step, and the sum in the form that test reports read: `N passed, N failed, N skipped`.
fn summarize(outcomes: &[Outcome]) -> Result<(), String> {
    let mut sum = Counts::default();
    println!("\n{:<24}{:<8}{:>8}{:>8}{:>8}{:>10}", "step", "", "passed", "failed", "skipped", "seconds");
    for outcome in outcomes {
        let verdict = if outcome.success { "ok" } else { "FAILED" };
        let counts = match outcome.counts {
            Some(counts) => format!("{:>8}{:>8}{:>8}", counts.passed, counts.failed, counts.skipped),
            None => " ".repeat(24),
        };
        println!("{:<24}{verdict:<8}{counts}{:>10.1}", outcome.name, outcome.time.as_secs_f64());
        sum += outcome.counts.unwrap_or_default();
    }
    println!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    let failed: Vec<&str> = outcomes.iter().filter(|step| !step.success).map(|step| step.name.as_str()).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: cargo xtask test {}", failed.join(" "))) }
}
