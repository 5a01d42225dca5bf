//! The reference points: the authors' PyTorch code against ours.
//!
//! 5×400 on MNIST, batch 60, SGD, three epochs. The training loss is the mean over the steps of the last epoch. Initial weights and the
//! order of the examples vary with the seed. What is to be seen: the same losses and accuracies within the spread over seeds; ζ* ends
//! below ∇ in all variants.

use isaac::train::Settings;
use isaac::train::data::Builtin;
use isaac::training_graph::Method;

use crate::lab::{CLASSES, Direction, Failure, Lab, Problem, SGD, accuracy, describe, settings};
use crate::{networks, table};

const WIDTH: usize = 400;
const EPOCHS: u64 = 3;
const BATCH: usize = 60;

/// A variant, and what the authors' code reaches with it.
struct Reference {
    name: &'static str,
    method: Method,
    layers: &'static str,
    lambda: f64,
    lr: f64,
    train_loss: f64,
    accuracy: f64,
}

const REFERENCES: [Reference; 4] = [
    Reference {
        name: "∇, lr 0.3",
        method: Method::Gradient,
        layers: "all",
        lambda: f64::INFINITY,
        lr: 0.3,
        train_loss: 0.076,
        accuracy: 0.976,
    },
    Reference {
        name: "ζ*, λ 1, lr 1",
        method: Method::ZetaStar,
        layers: "all",
        lambda: 1.0,
        lr: 1.0,
        train_loss: 0.042,
        accuracy: 0.978,
    },
    Reference {
        name: "ζ*, λ 0.1, lr 1",
        method: Method::ZetaStar,
        layers: "all",
        lambda: 0.1,
        lr: 1.0,
        train_loss: 0.047,
        accuracy: 0.975,
    },
    Reference {
        name: "ζ* in layers 1-3, λ 10, lr 1",
        method: Method::ZetaStar,
        layers: "first:3",
        lambda: 10.0,
        lr: 1.0,
        train_loss: 0.068,
        accuracy: 0.977,
    },
];

pub(crate) fn run(lab: &Lab) -> Result<String, Failure> {
    let seeds = lab.size(2, 5);
    let data = lab.data(Builtin::Mnist)?;
    let problem = Problem::new(lab, &data, &networks::classifier(WIDTH, 0)?, CLASSES, (1.0, BATCH))?;
    let (mut rows, mut first) = (Vec::new(), Vec::new());
    for reference in REFERENCES.iter().filter(|reference| lab.wants(reference.name)) {
        let direction = Direction { method: reference.method, layers: reference.layers.parse()? };
        let constant = settings(EPOCHS, reference.lr, (reference.lambda, f64::INFINITY));
        let (mut losses, mut accuracies) = (Vec::new(), Vec::new());
        for seed in 0..seeds {
            let mut runner = problem.runner(&networks::classifier(WIDTH, seed)?, SGD, &direction)?;
            let outcome = runner.run(reference.name, &Settings { seed, ..constant.clone() })?;
            eprintln!("{}, seed {seed}: {}", reference.name, describe(&outcome));
            losses.extend(outcome.progress.epochs.last().map(|last| last.train_loss));
            accuracies.extend(accuracy(&outcome).map(|accuracy| 100.0 * accuracy));
            if seed == 0 {
                first.push(outcome);
            }
        }
        rows.push(vec![
            reference.name.to_owned(),
            format!("{:.3}", reference.train_loss),
            table::spread(&losses, 4),
            table::percent(Some(reference.accuracy)),
            table::spread(&accuracies, 2),
        ]);
    }
    lab.plot("seeds", "5×400 on MNIST, batch 60, SGD", &first.iter().collect::<Vec<_>>())?;
    let head = ["variant", "train loss: authors", "ours", "test %: authors", "ours"];
    Ok(format!("Mean ± standard deviation over {seeds} seeds.\n\n{}", table::markdown(&head, &rows)))
}
