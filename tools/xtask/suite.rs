//! What CI runs, cheapest first.

use std::path::PathBuf;
use std::process::Command;

use crate::build::cargo;
use crate::environment::Environment;
use crate::{command, paths};

/// One step of `cargo xtask test`.
pub(crate) struct Step {
    pub name: String,
    pub what: &'static str,
    /// The environments that it runs in or takes files from.
    pub environments: Vec<Environment>,
    /// Whether it runs tests, whose number is then reported. A step that runs none has failed.
    pub counts_tests: bool,
    command: Box<dyn Fn() -> Result<Command, String>>,
}

impl Step {
    fn check(name: &str, what: &'static str, command: fn() -> Command) -> Step {
        Step {
            name: name.to_owned(),
            what,
            environments: Vec::new(),
            counts_tests: false,
            command: Box::new(move || Ok(command())),
        }
    }

    /// The tests of a folder under `tests/python`, in one environment.
    fn pytest(folder: &'static str, what: &'static str, environment: Environment) -> Step {
        Step {
            name: folder.to_owned(),
            what,
            environments: vec![environment],
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
        Step::check("features", "isaac-train without the runtime that is built in", || {
            with_arguments(&["check", "--release", "--no-default-features", "--bins", "--quiet"])
        }),
        Step::check("doc", "the API documentation, warnings are errors", || {
            let mut command = with_arguments(&["doc", "--release", "--no-deps", "--quiet"]);
            command.env("RUSTDOCFLAGS", "-D warnings");
            command
        }),
        Step {
            name: "rust".to_owned(),
            what: "the Rust tests",
            environments: vec![Environment::Training],
            counts_tests: true,
            command: Box::new(rust_tests),
        },
        Step::check("doctest", "the examples in the API documentation", || {
            with_arguments(&["test", "--release", "--doc", "--quiet"])
        }),
    ];
    for environment in Environment::CPU {
        let step = Step::pytest("operator", "the operator in a real session", environment);
        steps.push(Step { name: format!("operator-{}", environment.name()), ..step });
    }
    steps.push(Step::pytest("rewrite", "rewritten graphs in a real session", Environment::Training));
    for (folder, what) in [
        ("autodiff", "gradients in the newest stock runtime"),
        ("upgrade", "models of old operator sets in the newest stock runtime"),
    ] {
        steps.push(Step {
            environments: vec![Environment::StockNewest, Environment::Training],
            command: Box::new(move || {
                let mut command = pytest(folder, Environment::StockNewest)?;
                command.env("ISAAC_ONNX_DATA", onnx_data()?);
                Ok(command)
            }),
            ..Step::pytest(folder, what, Environment::StockNewest)
        });
    }
    for (environment, other) in
        [(Environment::StockOldest, Environment::StockNewest), (Environment::StockNewest, Environment::StockOldest)]
    {
        steps.push(Step {
            name: format!("forward-{}", environment.name()),
            environments: vec![environment, other],
            command: Box::new(move || forward_tests(environment, other)),
            ..Step::pytest("forward", "training graphs from forward models", environment)
        });
    }
    for (name, what, command) in [
        ("train", "isaac-train in the newest stock runtime", train_tests as fn() -> _),
        ("train-tract", "isaac-train in the runtime that is built in", train_in_tract),
    ] {
        steps.push(Step {
            name: name.to_owned(),
            environments: vec![Environment::StockNewest, Environment::StockOldest],
            command: Box::new(command),
            ..Step::pytest("train", what, Environment::StockNewest)
        });
    }
    steps.push(Step::pytest("training", "training with ONNX Runtime's training API", Environment::Training));
    steps.push(Step {
        environments: vec![Environment::StockNewest, Environment::Training],
        command: Box::new(docs_tests),
        ..Step::pytest("docs", "the README and the examples", Environment::StockNewest)
    });
    steps.push(Step {
        environments: vec![Environment::Cuda],
        ..Step::check("cuda-kernels", "the CUDA kernels: compiled anew, and assembled for every architecture", || {
            let mut command = Environment::Cuda.command();
            command.args(["tools/python/cuda_kernels.py", "--check"]);
            command
        })
    });
    steps.push(Step {
        command: Box::new(cuda_tests),
        ..Step::pytest(
            "cuda",
            "the operator in the CUDA provider, on stand-ins for CUDA's libraries",
            Environment::Cuda,
        )
    });
    steps.push(Step {
        name: "cuda-deferred".to_owned(),
        command: Box::new(cuda_tests_deferred),
        ..Step::pytest("cuda", "the same on streams that work only when they are waited for", Environment::Cuda)
    });
    steps
}

fn with_arguments(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.args(arguments);
    command
}

/// The tests that these arguments choose.
fn cargo_tests(chosen: &[&str]) -> Command {
    let nextest = cargo().args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut command = if nextest {
        with_arguments(&["nextest", "run", "--release", "--cargo-quiet", "--no-fail-fast", "--status-level", "slow"])
    } else {
        with_arguments(&["test", "--release", "--no-fail-fast"])
    };
    give_paths(&mut command);
    command.args(chosen);
    command
}

fn rust_tests() -> Result<Command, String> {
    let mut command = cargo_tests(&["--lib", "--bins", "--tests"]);
    command.env("ISAAC_ONNX_DATA", onnx_data()?);
    Ok(command)
}

/// The backend test data of the onnx package.
fn onnx_data() -> Result<PathBuf, String> {
    Ok(Environment::Training.module_folder("onnx.backend.test")?.join("data"))
}

fn pytest(folder: &str, environment: Environment) -> Result<Command, String> {
    let mut command = environment.command();
    give_paths(&mut command);
    command.args(["-m", "pytest", "-p", "no:cacheprovider", "-ra", "--tb=short"]);
    command.arg(format!("tests/python/{folder}"));
    Ok(command)
}

/// What a run computes, whatever runs it.
fn train_in_tract() -> Result<Command, String> {
    let mut command = pytest("train/test_numbers.py", Environment::StockNewest)?;
    command.args(["tests/python/train/test_resuming.py", "tests/python/train/test_runtimes.py"]);
    command.env("ISAAC_OTHER_PYTHON", Environment::StockOldest.python());
    command.env("ISAAC_RUNTIME", "tract");
    Ok(command)
}

/// Some compare with the oldest runtime.
fn train_tests() -> Result<Command, String> {
    let mut command = pytest("train", Environment::StockNewest)?;
    command.env("ISAAC_OTHER_PYTHON", Environment::StockOldest.python());
    Ok(command)
}

/// Both runtimes compute; only the newest one looks at files, warnings and refusals, which are the rewriter's alone.
fn forward_tests(environment: Environment, other: Environment) -> Result<Command, String> {
    let mut command = pytest("forward", environment)?;
    command.env("ISAAC_OTHER_PYTHON", other.python());
    if environment == Environment::StockOldest {
        for name in ["files", "refusals", "ill_formed", "constants"] {
            command.args(["--ignore-glob", &format!("*/test_{name}.py")]);
        }
    }
    Ok(command)
}

fn docs_tests() -> Result<Command, String> {
    command::run(&mut with_arguments(&["build", "--release", "--quiet", "--examples"]))?;
    let mut command = pytest("docs", Environment::StockNewest)?;
    command.env("ISAAC_EXAMPLES", paths::built("examples"));
    command.env("ISAAC_TRAINING_PYTHON", Environment::Training.python());
    Ok(command)
}

/// The operator in the CUDA provider, which loads stand-ins in the place of CUDA's libraries.
fn cuda_tests() -> Result<Command, String> {
    command::run(&mut with_arguments(&["build", "--release", "--quiet", "--example", "cuda_standin"]))?;
    let mut command = pytest("cuda", Environment::Cuda)?;
    command
        .env("ISAAC_PROVIDER", "CUDAExecutionProvider")
        .env("ISAAC_CUDA_STANDIN", paths::cuda_standins()?.join("libcuda.so.1"))
        .env("LD_LIBRARY_PATH", paths::cuda_standins()?);
    Ok(command)
}

/// Digits don't depend on when a stream works.
fn cuda_tests_deferred() -> Result<Command, String> {
    let mut command = cuda_tests()?;
    command.env("ISAAC_STANDIN_DEFER", "1").args(["--ignore-glob", "*/test_any_damping.py"]);
    Ok(command)
}

/// Tells a test runner where the built files and the downloads are.
fn give_paths(command: &mut Command) {
    command
        .env("ISAAC_LIBRARY", paths::library())
        .env("ISAAC_REWRITE", paths::rewriter())
        .env("ISAAC_TRAIN", paths::trainer())
        .env("ISAAC_DOWNLOADS", paths::downloads());
}
