//! How the damping λ changes what ζ*, ζ and K-FAC reach on the auto-encoder 784–1000–500–30–500–1000–784.
//!
//! MNIST, batch 60, SGD, λ from 1e-8 to 1e2, and infinity, which is the gradient. Each method and λ has the best of the same learning
//! rates. A step of K-FAC takes as long as dozens of the others: it has a tenth of the steps, and beside it is what ζ* reaches in as few.

use isaac::train::Settings;
use isaac::train::data::Builtin;
use isaac::training_graph::Method;

use crate::lab::{Direction, Failure, IMAGES, Lab, Problem, SGD, final_loss, settings};
use crate::{networks, table};

const RATES: [f64; 5] = [3.0, 10.0, 30.0, 100.0, 300.0];

pub(crate) fn run(lab: &Lab) -> Result<String, Failure> {
    let (many, few) = lab.size((200, 20), (1000, 100));
    let columns = [
        ("ζ*", Method::ZetaStar, many),
        ("ζ", Method::Zeta, many),
        ("ζ*", Method::ZetaStar, few),
        ("K-FAC", Method::Kfac, few),
    ];
    let dampings: Vec<f64> = (-8..=2).map(|power| 10_f64.powi(power)).chain([f64::INFINITY]).collect();
    let data = lab.data(Builtin::Mnist)?;
    let model = networks::auto_encoder(0)?;
    let problem = Problem::new(lab, &data, &model, IMAGES, (1.0, 60))?;
    let mut head = vec!["λ".to_owned()];
    let mut rows: Vec<Vec<String>> = dampings.iter().map(|lambda| vec![format!("{lambda:e}")]).collect();
    for (name, method, steps) in columns {
        let name = format!("{name}, {steps} steps");
        if !lab.wants(&name) {
            continue;
        }
        let mut runner = problem.runner(&model, SGD, &Direction::everywhere(method))?.unexamined();
        for (&lambda, row) in dampings.iter().zip(&mut rows) {
            let settings = Settings { max_steps: Some(steps), ..settings(u64::MAX, 0.0, (lambda, lambda)) };
            let loss = final_loss(&runner.best(&format!("{name}, λ {lambda:e}"), &settings, &RATES)?);
            row.push(format!("{loss:.4}"));
        }
        head.push(name);
    }
    Ok(table::markdown(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows))
}
