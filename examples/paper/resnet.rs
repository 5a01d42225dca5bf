//! Fig. 6 and 8: a ResNet-18 with ζ* in its last layer only.
//!
//! The paper trains on CIFAR-10; here it is Fashion-MNIST, which the project can download. ζ* in the last layer costs next to nothing
//! there, and the figures ask whether it helps. Momentum, batch 60 (by default, a few steps of batch 16).

use isaac::rewrite::Selector;
use isaac::train::Settings;
use isaac::train::data::Builtin;
use isaac::training_graph::Method;

use crate::lab::{CLASSES, Direction, Failure, Lab, MOMENTUM, Problem, accuracy, final_loss, milliseconds, settings};
use crate::{networks, table};

const LAST: &str = "fc.weight";
const VARIANTS: [(&str, Method, f64); 4] = [
    ("∇", Method::Gradient, f64::INFINITY),
    ("ζ* in the last layer, λ 10", Method::ZetaStar, 10.0),
    ("ζ* in the last layer, λ 1", Method::ZetaStar, 1.0),
    ("ζ* in the last layer, λ 0.1", Method::ZetaStar, 0.1),
];

pub(crate) fn run(lab: &Lab) -> Result<String, Failure> {
    let (batch, max_steps, epochs) = lab.size((16, Some(15), 1), (60, None, 20));
    let data = lab.data(Builtin::FashionMnist)?;
    let model = networks::resnet18(1, 28, 0)?;
    let problem = Problem::new(lab, &data, &model, CLASSES, (1.0, batch))?;
    let mut outcomes = Vec::new();
    for (name, method, lambda) in VARIANTS.into_iter().filter(|(name, ..)| lab.wants(name)) {
        let direction = Direction { method, layers: Selector::Glob(LAST.to_owned()) };
        let settings = Settings { max_steps, ..settings(epochs, 0.0, (lambda, f64::INFINITY)) };
        outcomes.push(problem.runner(&model, MOMENTUM, &direction)?.best(name, &settings, &[0.01])?);
    }
    lab.plot("resnet", "ResNet-18 on Fashion-MNIST", &outcomes.iter().collect::<Vec<_>>())?;
    let row = |outcome| {
        let (loss, time) = (final_loss(outcome), milliseconds(outcome));
        vec![outcome.label.clone(), format!("{loss:.4}"), table::percent(accuracy(outcome)), format!("{time:.0}")]
    };
    let rows: Vec<Vec<String>> = outcomes.iter().map(row).collect();
    Ok(table::markdown(&["variant", "train loss at the end", "test %", "ms a step"], &rows))
}
