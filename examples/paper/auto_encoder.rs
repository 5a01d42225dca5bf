//! Fig. 2, 3 and 7: auto-encoders 784–1000–500–30–500–1000–784 with the mean squared error.
//!
//! The figures lay losses over steps, where curvature helps, and over time, where it also costs. Four pictures for each set of images:
//! the methods with SGD at two dampings, ζ* and ∇ with momentum, within Adam, and with ten times the batch. Each variant has the best of a few learning rates.

use isaac::optimizer::Optimizer;
use isaac::train::Settings;
use isaac::train::data::Builtin;
use isaac::train::sweep::Outcome;
use isaac::training_graph::Method;

use crate::lab::{self, Direction, Failure, IMAGES, Lab, MOMENTUM, Problem, SGD, final_loss, milliseconds, settings};
use crate::{networks, table};

/// One picture: what is compared under which update rule.
struct Group {
    name: &'static str,
    title: &'static str,
    optimizer: Optimizer,
    batch: usize,
    variants: &'static [Variant],
    rates: fn(&Variant) -> [f64; 3],
}

struct Variant {
    name: &'static str,
    method: Method,
    lambda: f64,
    /// Learning rates of SGD: the smaller the damping, the shorter what is conditioned.
    rates: [f64; 3],
}

const fn variant(name: &'static str, method: Method, lambda: f64, rates: [f64; 3]) -> Variant {
    Variant { name, method, lambda, rates }
}

/// Rates for λ = 0.1 and λ = 0.01.
const AT_TENTH: [f64; 3] = [30.0, 100.0, 200.0];
const AT_HUNDREDTH: [f64; 3] = [100.0, 300.0, 600.0];
const GRADIENT: Variant = variant("∇", Method::Gradient, f64::INFINITY, [3.0, 10.0, 30.0]);
const ALL: &[Variant] = &[
    GRADIENT,
    variant("ζ*, λ 0.1", Method::ZetaStar, 0.1, AT_TENTH),
    variant("ζ*, λ 0.01", Method::ZetaStar, 0.01, AT_HUNDREDTH),
    variant("ζ, λ 0.1", Method::Zeta, 0.1, AT_TENTH),
    variant("ζ, λ 0.01", Method::Zeta, 0.01, AT_HUNDREDTH),
    variant("K-FAC, λ 0.1", Method::Kfac, 0.1, AT_TENTH),
    variant("K-FAC, λ 0.01", Method::Kfac, 0.01, AT_HUNDREDTH),
];
const CHEAP: &[Variant] = &[
    GRADIENT,
    variant("ζ*, λ 0.1", Method::ZetaStar, 0.1, AT_TENTH),
    variant("ζ*, λ 0.01", Method::ZetaStar, 0.01, AT_HUNDREDTH),
];

pub(crate) fn run(lab: &Lab) -> Result<String, Failure> {
    let mut rows = Vec::new();
    for set in Builtin::ALL {
        let data = lab.data(set)?;
        let model = networks::auto_encoder(0)?;
        for group in groups() {
            let size = (1.0, group.batch);
            let problem = Problem::new(lab, &data, &model, IMAGES, size)?;
            let mut outcomes = Vec::new();
            let full_name = |variant: &Variant| format!("{} {} {}", set.name(), group.title, variant.name);
            for variant in group.variants.iter().filter(|variant| lab.wants(&full_name(variant))) {
                let direction = Direction::everywhere(variant.method);
                let mut runner = problem.runner(&model, group.optimizer, &direction)?;
                let rates = (group.rates)(variant);
                let settings = Settings {
                    max_steps: Some(steps(lab, &group, variant.method)),
                    ..settings(u64::MAX, rates[0], (variant.lambda, variant.lambda))
                };
                let outcome = runner.best(variant.name, &settings, &rates)?;
                rows.push(row(&group, set, &outcome));
                outcomes.push(outcome);
            }
            if outcomes.is_empty() {
                continue;
            }
            let title = format!("Auto-encoder on {}, {}", set.name(), group.title);
            let name = format!("auto-encoder-{}-{}", set.name(), group.name);
            lab.plot(&name, &title, &outcomes.iter().collect::<Vec<_>>())?;
        }
    }
    let head = ["images", "update", "variant", "steps", "train loss at the end", "ms a step"];
    Ok(table::markdown(&head, &rows))
}

/// A tenth of the steps for K-FAC, which then has more of the time still, and for the large batch.
fn steps(lab: &Lab, group: &Group, method: Method) -> u64 {
    let steps = lab.size(150, 10_000);
    if method == Method::Kfac || group.batch > 60 { steps / 10 } else { steps }
}

fn groups() -> [Group; 4] {
    let sgd = Group {
        name: "sgd",
        title: "SGD, batch 60",
        optimizer: SGD,
        batch: 60,
        variants: ALL,
        rates: |variant| variant.rates,
    };
    let cheap = Group { variants: CHEAP, ..sgd };
    [
        sgd,
        Group {
            name: "momentum",
            title: "momentum 0.9, batch 60",
            optimizer: MOMENTUM,
            // It makes ten times the way.
            rates: |variant| variant.rates.map(|rate| rate / 10.0),
            ..cheap
        },
        Group {
            name: "adam",
            title: "Adam, batch 60",
            optimizer: lab::adam(), // The length of what it is given does not matter to it.
            rates: |_| [3e-4, 1e-3, 3e-3],
            ..cheap
        },
        Group { name: "batch-600", title: "SGD, batch 600", batch: 600, ..cheap },
    ]
}

fn row(group: &Group, set: Builtin, outcome: &Outcome) -> Vec<String> {
    vec![
        set.name().to_owned(),
        group.title.to_owned(),
        outcome.label.clone(),
        outcome.steps.len().to_string(),
        format!("{:.5}", final_loss(outcome)),
        format!("{:.1}", milliseconds(outcome)),
    ]
}
