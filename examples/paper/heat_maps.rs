//! Fig. 1: the training loss and the test accuracy over both dampings of ζ.
//!
//! Five-layer ReLU networks of 100, 400 and 1600 on MNIST, batch 60, with SGD and with momentum. λg = inf is ζ*, λa = inf leaves out the
//! curvature of the inputs, and both are the gradient. The map asks whether the curvature of the outputs adds to
//! that of the inputs. Both dampings are inputs of the training graph, so that one session serves the whole map.

use isaac::optimizer::Optimizer;
use isaac::train::data::{Builtin, Split};
use isaac::training_graph::Method;

use crate::heat_map::{Map, Scale, draw};
use crate::lab::{CLASSES, Direction, Failure, Lab, MOMENTUM, Problem, SGD, accuracy, final_loss, settings};
use crate::{networks, table};

const UPDATES: [(&str, Optimizer, f64); 2] = [("sgd", SGD, 1.0), ("momentum", MOMENTUM, 0.1)];

pub(crate) fn run(lab: &Lab) -> Result<String, Failure> {
    let widths: &[usize] = lab.size(&[100, 400], &[100, 400, 1600]);
    let dampings = dampings(lab);
    let data = lab.data(Builtin::Mnist)?;
    let mut text = String::new();
    for (update, optimizer, lr) in UPDATES {
        let mut maps = Vec::new();
        for &width in widths.iter().filter(|width| lab.wants(&format!("5×{width}, {update}"))) {
            let [losses, accuracies] = maps_of(lab, &data, width, optimizer, lr, &dampings)?;
            for map in [&losses, &accuracies] {
                text += &format!("{}, {update}, lr {lr}\n\n{}\n", map.caption, listed(map, &dampings));
            }
            maps.push([losses, accuracies]);
        }
        if maps.is_empty() {
            continue;
        }
        let title = format!("ζ on MNIST, {update}, lr {lr}");
        std::fs::write(lab.picture(&format!("heat-maps-{update}"))?, draw(&title, &names(&dampings), &maps))?;
    }
    Ok(text)
}

/// Powers of ten, and infinity.
fn dampings(lab: &Lab) -> Vec<f64> {
    let powers = lab.size((-4..=4).step_by(2), (-6..=6).step_by(1));
    powers.map(|power| 10_f64.powi(power)).chain([f64::INFINITY]).collect()
}

/// The final loss and the accuracy, with λg along rows and λa along columns.
fn maps_of(
    lab: &Lab,
    data: &Split,
    width: usize,
    optimizer: Optimizer,
    lr: f64,
    dampings: &[f64],
) -> Result<[Map; 2], Failure> {
    let (epochs, fraction) = lab.size((2, 0.2), (3, 1.0));
    let model = networks::classifier(width, 0)?;
    let problem = Problem::new(lab, data, &model, CLASSES, (fraction, 60))?;
    let mut runner = problem.runner(&model, optimizer, &Direction::everywhere(Method::Zeta))?;
    let (mut losses, mut accuracies) = (Vec::new(), Vec::new());
    for &lambda_g in dampings {
        let (mut loss_row, mut accuracy_row) = (Vec::new(), Vec::new());
        for &lambda_a in dampings {
            let outcome = runner.run("", &settings(epochs, lr, (lambda_a, lambda_g)))?;
            loss_row.push(final_loss(&outcome));
            accuracy_row.push(accuracy(&outcome).map_or(f64::NAN, |accuracy| 100.0 * accuracy));
        }
        eprintln!("5x{width}: row λg = {} is done", name(lambda_g));
        losses.push(loss_row);
        accuracies.push(accuracy_row);
    }
    let map = |what: &str, values, scale| Map { caption: format!("5×{width}: {what}"), values, scale };
    Ok([map("training loss", losses, Scale::Logarithmic), map("test accuracy in %", accuracies, Scale::Linear)])
}

fn name(damping: f64) -> String {
    if damping.is_infinite() { "inf".to_owned() } else { format!("{damping:e}") }
}

fn names(dampings: &[f64]) -> Vec<String> {
    dampings.iter().map(|&damping| name(damping)).collect()
}

fn listed(map: &Map, dampings: &[f64]) -> String {
    let names = names(dampings);
    let head: Vec<String> = std::iter::once("λg \\ λa".to_owned()).chain(names.iter().cloned()).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let row = |(name, values): (&String, &Vec<f64>)| {
        std::iter::once(name.clone()).chain(values.iter().map(|&value| map.scale.text(value))).collect()
    };
    let rows: Vec<Vec<String>> = names.iter().zip(&map.values).map(row).collect();
    table::markdown(&head, &rows)
}
