//! `cargo xtask bench`: the benchmarks under benches/, in the environments that they compare.

use clap::{Args, ValueEnum};

use crate::environment::{self, Environment};
use crate::{build, command, paths};

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Which benchmark.
    #[arg(value_enum)]
    name: Name,
    /// What it is told; `-- --help` lists it.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// One layer: Gemm and IsaacGemm
    Layer,
    /// Errors of all methods at all dampings
    Accuracy,
    /// Whole training steps: ours, ONNX Runtime's training API, PyTorch
    Step,
}

/// Runs a benchmark.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let (script, needed) = match options.name {
        Name::Layer => ("benches/layer.py", vec![Environment::StockNewest]),
        Name::Accuracy => ("benches/accuracy.py", vec![Environment::StockNewest]),
        Name::Step => ("benches/step.py", vec![Environment::StockNewest, Environment::Training, Environment::Pytorch]),
    };
    environment::make(&needed)?;
    build::release()?;
    command::run(
        Environment::StockNewest
            .command()
            .arg(script)
            .args(&options.arguments)
            .env("ISAAC_LIBRARY", paths::library())
            .env("ISAAC_REWRITE", paths::rewriter())
            .env("ISAAC_STOCK", Environment::StockNewest.python())
            .env("ISAAC_TRAINING", Environment::Training.python())
            .env("ISAAC_PYTORCH", Environment::Pytorch.python()),
    )
}
