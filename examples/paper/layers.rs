//! Fig. 5 and 9: ζ* in some of the layers.
//!
//! A five-layer ReLU network on MNIST, batch 60, SGD. The figures ask which layers' curvature is worth its time: all, the first, the
//! last, 1-3, 3-5, the odd or the even ones. Each variant has the best of a few learning rates.

use isaac::rewrite::Selector;
use isaac::train::data::Builtin;
use isaac::training_graph::Method;

use crate::lab::{CLASSES, Direction, Failure, Lab, Problem, SGD, accuracy, final_loss, milliseconds, settings};
use crate::{networks, table};

const LAMBDA: f64 = 1.0;
const RATES: [f64; 3] = [0.1, 0.3, 1.0];
const LAYERS: [(&str, &str); 7] = [
    ("all layers", "all"),
    ("the first layer", "first:1"),
    ("the last layer", "last:1"),
    ("layers 1-3", "first:3"),
    ("layers 3-5", "last:3"),
    ("odd layers", "odd"),
    ("even layers", "even"),
];

pub(crate) fn run(lab: &Lab) -> Result<String, Failure> {
    let (width, epochs, fraction) = lab.size((400, 1, 0.5), (1600, 10, 1.0));
    let data = lab.data(Builtin::Mnist)?;
    let model = networks::classifier(width, 0)?;
    let problem = Problem::new(lab, &data, &model, CLASSES, (fraction, 60))?;
    let mut variants = vec![("∇".to_owned(), Direction { method: Method::Gradient, layers: Selector::All })];
    for (name, layers) in LAYERS {
        variants.push((format!("ζ* in {name}"), Direction { method: Method::ZetaStar, layers: layers.parse()? }));
    }
    let mut outcomes = Vec::new();
    for (name, direction) in variants.iter().filter(|(name, _)| lab.wants(name)) {
        let settings = settings(epochs, RATES[0], (LAMBDA, f64::INFINITY));
        outcomes.push(problem.runner(&model, SGD, direction)?.best(name, &settings, &RATES)?);
    }
    lab.plot("layers", &format!("5×{width} on MNIST, λ {LAMBDA}"), &outcomes.iter().collect::<Vec<_>>())?;
    let row = |outcome| {
        let (loss, time) = (final_loss(outcome), milliseconds(outcome));
        vec![outcome.label.clone(), format!("{loss:.4}"), table::percent(accuracy(outcome)), format!("{time:.2}")]
    };
    let rows: Vec<Vec<String>> = outcomes.iter().map(row).collect();
    Ok(table::markdown(&["variant", "train loss at the end", "test %", "ms a step"], &rows))
}
