//! The experiments of ISAAC Newton (Petersen et al., ICLR 2023), each with a picture and a table.
//!
//! ```text
//! cargo run --release --example paper -- seeds
//! cargo run --release --example paper -- heat-maps --full --threads 8
//! ```
//!
//! By default each takes minutes, `sentences` an hour, on two cores: fewer examples, steps and seeds than `--full`, which is of the paper's size. ONNX
//! Runtime is found like isaac-train finds it: ORT_DYLIB_PATH, Python's onnxruntime package, the system.

mod adam;
mod auto_encoder;
mod dampings;
mod heat_map;
mod heat_maps;
mod lab;
mod layers;
mod networks;
mod resnet;
mod seeds;
mod sentences;
mod table;
mod times;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::lab::{Failure, Lab, Only};

/// Runs an experiment of the paper ISAAC Newton.
#[derive(Parser)]
#[command(name = "paper")]
struct Arguments {
    #[command(subcommand)]
    experiment: Experiment,
    /// The paper's size, which takes hours to days.
    #[arg(long, global = true)]
    full: bool,
    /// Where pictures go.
    #[arg(long, value_name = "DIR", default_value = "target/paper", global = true)]
    out: PathBuf,
    /// Threads of ONNX Runtime.
    #[arg(long, value_name = "N", default_value_t = 1, global = true)]
    threads: usize,
    /// Where downloads are kept.
    #[arg(long, value_name = "DIR", default_value = "target/downloads", global = true)]
    cache: PathBuf,
    /// Only the variants that have this in their names, as the first columns of the tables say them.
    #[arg(long, value_name = "TEXT", global = true)]
    only: Option<String>,
}

#[derive(Subcommand)]
enum Experiment {
    /// Fig. 1: loss and accuracy over both dampings of ζ
    HeatMaps,
    /// Fig. 2, 3 and 7: ∇, K-FAC, ζ and ζ* on auto-encoders
    AutoEncoder,
    /// The final loss of ζ*, ζ and K-FAC on the auto-encoder over the damping λ
    Dampings,
    /// Fig. 4: ζ* in place of the gradient within Adam
    Adam,
    /// Fig. 5 and 9: ζ* in some of the layers
    Layers,
    /// Fig. 6 and 8: ζ* in the last layer of a ResNet-18
    Resnet,
    /// Table 2: time and memory of a step
    Times,
    /// Table 1: ∇ and ζ* in fine-tuning a sentence encoder, within Adam and with momentum
    Sentences,
    /// The authors' PyTorch results against ours, over seeds
    Seeds,
    /// The memory of one row of Table 2, which `times` asks a process of its own for
    #[command(hide = true)]
    Memory {
        /// The network.
        network: String,
        /// The method.
        method: String,
    },
}

fn main() -> ExitCode {
    let Arguments { experiment, full, out, threads, cache, only } = Arguments::parse();
    let lab = Lab { full, out, threads, cache, only: Only::new(only) };
    match run(experiment, &lab).and_then(|text| lab.only.check().map(|()| text)) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("paper: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(experiment: Experiment, lab: &Lab) -> Result<String, Failure> {
    match experiment {
        Experiment::HeatMaps => heat_maps::run(lab),
        Experiment::AutoEncoder => auto_encoder::run(lab),
        Experiment::Dampings => dampings::run(lab),
        Experiment::Adam => adam::run(lab),
        Experiment::Layers => layers::run(lab),
        Experiment::Resnet => resnet::run(lab),
        Experiment::Times => times::run(lab),
        Experiment::Sentences => sentences::run(lab),
        Experiment::Seeds => seeds::run(lab),
        Experiment::Memory { network, method } => times::memory(lab, &network, &method),
    }
}
