//! Table 2: time and memory of a training step.
//!
//! ∇, ζ*, ζ and K-FAC at batch 60 with SGD, in one process and in turns of a few steps, so that whatever else the machine does meets all of
//! them; times are medians. Memory is what a process of its own holds after some steps. The overhead of ζ* sinks with the width of the
//! layers, as the method's vanishing cost for batches smaller than the layers says. The PyTorch side, the authors' code
//! and BackPACK, is in `cargo xtask bench step`.

use std::process::Command;

use isaac::model::Model;
use isaac::train::Settings;
use isaac::train::data::Builtin;
use isaac::training_graph::Method;

use crate::lab::{CLASSES, Direction, Failure, Goal, IMAGES, Lab, Problem, Runner, SGD, settings};
use crate::{networks, table};

const BATCH: usize = 60;
/// A part of the images is enough.
const FRACTION: f64 = 0.02;
const STEPS_OF_A_TURN: u64 = 5;
/// The widest layers of K-FAC: it inverts matrices of their order.
const KFAC_WIDTH: usize = 1600;
const METHODS: [(&str, Method); 4] =
    [("gradient", Method::Gradient), ("zeta-star", Method::ZetaStar), ("zeta", Method::Zeta), ("k-fac", Method::Kfac)];

/// A row of the table.
#[derive(Clone, Copy)]
enum Network {
    Classifier(usize),
    AutoEncoder,
}

impl Network {
    const ALL: [Self; 5] = [
        Self::Classifier(100),
        Self::Classifier(400),
        Self::AutoEncoder,
        Self::Classifier(1600),
        Self::Classifier(6400),
    ];

    fn name(self) -> String {
        match self {
            Self::Classifier(width) => format!("5x{width}"),
            Self::AutoEncoder => "auto-encoder".to_owned(),
        }
    }

    fn model(self) -> Result<Model, Failure> {
        Ok(match self {
            Self::Classifier(width) => networks::classifier(width, 0)?,
            Self::AutoEncoder => networks::auto_encoder(0)?,
        })
    }

    fn goal(self) -> Goal {
        match self {
            Self::Classifier(_) => CLASSES,
            Self::AutoEncoder => IMAGES,
        }
    }

    fn methods(self) -> impl Iterator<Item = (&'static str, Method)> {
        let is_wide = matches!(self, Self::Classifier(width) if width > KFAC_WIDTH);
        METHODS.into_iter().filter(move |&(_, method)| !(is_wide && method == Method::Kfac))
    }

    fn problem(self, lab: &Lab) -> Result<Problem<'_>, Failure> {
        let data = lab.data(Builtin::Mnist)?;
        Problem::new(lab, &data, &self.model()?, self.goal(), (FRACTION, BATCH))
    }
}

pub(crate) fn run(lab: &Lab) -> Result<String, Failure> {
    let networks = &Network::ALL[..lab.size(3, 5)];
    let turns = lab.size(4, 12);
    let mut rows = Vec::new();
    for network in networks.iter().filter(|network| lab.wants(&network.name())) {
        let medians = medians(lab, *network, turns)?;
        for ((name, _), time) in network.methods().zip(&medians) {
            let memory = memory_of_own_process(lab, &network.name(), name)?;
            let ratio = time / medians[0];
            rows.push(vec![network.name(), name.to_owned(), format!("{time:.2}"), format!("{ratio:.2}"), memory]);
        }
    }
    let head = ["network", "method", "ms a step", "to the gradient", "memory in MB"];
    Ok(table::markdown(&head, &rows))
}

/// The median time of a step of each method.
fn medians(lab: &Lab, network: Network, turns: usize) -> Result<Vec<f64>, Failure> {
    let problem = network.problem(lab)?;
    let model = network.model()?;
    let runner = |(_, method)| Ok(problem.runner(&model, SGD, &Direction::everywhere(method))?.unexamined());
    let mut runners: Vec<Runner<'_>> = network.methods().map(runner).collect::<Result<_, Failure>>()?;
    let mut times = vec![Vec::new(); runners.len()];
    for turn in 0..turns {
        for (runner, times) in runners.iter_mut().zip(&mut times) {
            let steps = steps(runner)?;
            // The first turn makes the buffers.
            if turn > 0 {
                times.extend(steps);
            }
        }
        eprintln!("{}: turn {} of {turns}", network.name(), turn + 1);
    }
    Ok(times.into_iter().map(table::median).collect())
}

/// The milliseconds of the steps of a turn, but for the first, before which weights were restored.
fn steps(runner: &mut Runner<'_>) -> Result<Vec<f64>, Failure> {
    let settings = Settings { max_steps: Some(STEPS_OF_A_TURN), ..settings(1, 0.1, (1.0, 1.0)) };
    let outcome = runner.run("", &settings)?;
    Ok(outcome.steps.windows(2).map(|pair| 1e3 * (pair[1].seconds - pair[0].seconds)).collect())
}

fn memory_of_own_process(lab: &Lab, network: &str, method: &str) -> Result<String, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args(["memory", network, method, "--threads", &lab.threads.to_string(), "--cache"])
        .arg(&lab.cache)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What this process holds after a turn, in MB: the runtime and some images included.
pub(crate) fn memory(lab: &Lab, network: &str, method: &str) -> Result<String, Failure> {
    let unknown = || format!("'{network}' and '{method}' are in no row");
    let network = Network::ALL.into_iter().find(|known| known.name() == network).ok_or_else(unknown)?;
    let (_, method) = network.methods().find(|(name, _)| *name == method).ok_or_else(unknown)?;
    let problem = network.problem(lab)?;
    let mut runner = problem.runner(&network.model()?, SGD, &Direction::everywhere(method))?.unexamined();
    steps(&mut runner)?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kilobytes: f64 = kilobytes.ok_or("the system does not tell")?.trim().parse()?;
    Ok(format!("{:.0}", kilobytes / 1024.0))
}
