//! Fig. 4: ζ* in place of the gradient within Adam.
//!
//! 5×400 on MNIST, batch 60. The figure asks whether Adam, which scales each element, still gains from curvature. Each variant has the
//! best of a few learning rates.

use isaac::train::data::Builtin;
use isaac::training_graph::Method;

use crate::lab::{self, CLASSES, Direction, Failure, Lab, Problem, accuracy, final_loss, milliseconds, settings};
use crate::{networks, table};

const RATES: [f64; 3] = [3e-4, 1e-3, 3e-3];
const VARIANTS: [(&str, Method, f64); 4] = [
    ("Adam with ∇", Method::Gradient, f64::INFINITY),
    ("Adam with ζ*, λ 10", Method::ZetaStar, 10.0),
    ("Adam with ζ*, λ 1", Method::ZetaStar, 1.0),
    ("Adam with ζ*, λ 0.1", Method::ZetaStar, 0.1),
];

pub(crate) fn run(lab: &Lab) -> Result<String, Failure> {
    let (epochs, fraction) = lab.size((1, 0.5), (10, 1.0));
    let data = lab.data(Builtin::Mnist)?;
    let model = networks::classifier(400, 0)?;
    let problem = Problem::new(lab, &data, &model, CLASSES, (fraction, 60))?;
    let mut outcomes = Vec::new();
    for (name, method, lambda) in VARIANTS.into_iter().filter(|(name, ..)| lab.wants(name)) {
        let settings = settings(epochs, RATES[0], (lambda, f64::INFINITY));
        let mut runner = problem.runner(&model, lab::adam(), &Direction::everywhere(method))?;
        outcomes.push(runner.best(name, &settings, &RATES)?);
    }
    lab.plot("adam", "5×400 on MNIST, Adam", &outcomes.iter().collect::<Vec<_>>())?;
    let row = |outcome| {
        let (loss, time) = (final_loss(outcome), milliseconds(outcome));
        vec![outcome.label.clone(), format!("{loss:.4}"), table::percent(accuracy(outcome)), format!("{time:.2}")]
    };
    let rows: Vec<Vec<String>> = outcomes.iter().map(row).collect();
    Ok(table::markdown(&["variant", "train loss at the end", "test %", "ms a step"], &rows))
}
