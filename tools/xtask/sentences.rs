//! `cargo xtask sentences`: the model and the data of the experiment of that name, made with PyTorch.

use clap::Args;

use crate::environment::{self, Environment};
use crate::{command, paths};

/// Options of `cargo xtask sentences`.
#[derive(Args)]
pub(crate) struct Options {
    /// What the script is told; `-- --help` lists it.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Makes them.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    environment::make(&[Environment::Pytorch])?;
    let folder = paths::downloads();
    command::run(
        Environment::Pytorch
            .command()
            .arg("tools/python/sentences.py")
            .arg("--cache")
            .arg(&folder)
            .arg("--out")
            .arg(folder.join("sentences"))
            .args(&options.arguments),
    )
}
