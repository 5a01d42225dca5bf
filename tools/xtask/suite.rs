//! What CI runs, cheapest first.

use std::process::Command;

use crate::build::cargo;
use crate::environment::Environment;
use crate::{command, paths};

/// One step of `cargo xtask test`.
pub(crate) struct Step {
    pub name: String,
    pub what: &'static str,
    /// The environment that it runs in or takes files from.
    pub environment: Option<Environment>,
    /// Whether it runs tests, whose number is then reported. A step that runs none has failed.
    pub counts_tests: bool,
    command: Box<dyn Fn() -> Result<Command, String>>,
}

impl Step {
    fn check(name: &str, what: &'static str, command: fn() -> Command) -> Step {
        Step {
            name: name.to_owned(),
            what,
            environment: None,
            counts_tests: false,
            command: Box::new(move || Ok(command())),
        }
    }

    fn pytest(name: String, what: &'static str, folder: &'static str, environment: Environment) -> Step {
        Step {
            name,
            what,
            environment: Some(environment),
            counts_tests: true,
            command: Box::new(move || pytest(folder, environment)),
        }
    }

    /// The command to run, once the environment is there and the release build is done.
    pub(crate) fn command(&self) -> Result<Command, String> {
        (self.command)()
    }
}

/// Every step, in the order in which they run.
pub(crate) fn steps() -> Vec<Step> {
    let mut steps = vec![
        Step::check("fmt", "formatting", || with_arguments(&["fmt", "--check"])),
        Step::check("clippy", "lints, warnings are errors", || {
            with_arguments(&["clippy", "--release", "--all-targets", "--quiet", "--", "-D", "warnings"])
        }),
        Step::check("doc", "the API documentation, warnings are errors", || {
            let mut command = with_arguments(&["doc", "--release", "--no-deps", "--quiet"]);
            command.env("RUSTDOCFLAGS", "-D warnings");
            command
        }),
        Step {
            name: "rust".to_owned(),
            what: "the Rust tests",
            environment: Some(Environment::Training),
            counts_tests: true,
            command: Box::new(rust_tests),
        },
        Step::check("doctest", "the examples in the API documentation", || {
            with_arguments(&["test", "--release", "--doc", "--quiet"])
        }),
    ];
    for environment in Environment::ALL {
        let name = format!("operator-{}", environment.name());
        steps.push(Step::pytest(name, "the operator in a real session", "operator", environment));
    }
    steps.push(Step::pytest(
        "rewrite".to_owned(),
        "rewritten graphs in a real session",
        "rewrite",
        Environment::Training,
    ));
    steps.push(Step::pytest(
        "training".to_owned(),
        "training with ONNX Runtime's training API",
        "training",
        Environment::Training,
    ));
    steps.push(Step::pytest("docs".to_owned(), "the README and the examples", "docs", Environment::StockNewest));
    steps
}

fn with_arguments(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.args(arguments);
    command
}

fn rust_tests() -> Result<Command, String> {
    let nextest = cargo().args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut command = if nextest {
        with_arguments(&["nextest", "run", "--release", "--no-fail-fast", "--status-level", "slow"])
    } else {
        with_arguments(&["test", "--release", "--lib", "--bins", "--tests", "--no-fail-fast"])
    };
    give_paths(&mut command);
    command.env("ISAAC_ONNX_DATA", Environment::Training.module_folder("onnx.backend.test")?.join("data"));
    Ok(command)
}

fn pytest(folder: &str, environment: Environment) -> Result<Command, String> {
    if folder == "docs" {
        command::run(cargo().args(["build", "--release", "--quiet", "--examples"]))?;
    }
    let mut command = environment.command();
    give_paths(&mut command);
    command
        .env("ISAAC_TRAINING_PYTHON", Environment::Training.python())
        .args(["-m", "pytest", "-p", "no:cacheprovider", "-ra", "--tb=short"])
        .arg(format!("tests/python/{folder}"));
    Ok(command)
}

fn give_paths(command: &mut Command) {
    command
        .env("ISAAC_LIBRARY", paths::library())
        .env("ISAAC_REWRITE", paths::rewriter())
        .env("ISAAC_EXAMPLES", paths::built("examples"))
        .env("ISAAC_DOWNLOADS", paths::downloads());
}
