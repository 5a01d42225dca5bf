//! What is left of a run: the model with new weights, the weights alone, JSON, a table.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use isaac::model::{Model, TrainingMap};
use isaac::tensors::{Tensor, safetensors};
use isaac::train::sweep::Outcome;
use isaac::weights::Weights;
use serde_json::json;

use crate::arguments::Output;
use crate::failure::Failure;
use crate::options::aligned;

/// Writes the trained tensors into the model that they were trained from, and alone.
pub(crate) fn write(output: &Output, model: &Model, map: &TrainingMap, carried: Vec<Tensor>) -> Result<(), Failure> {
    let own = |name: &str| model.graph().initializers().iter().any(|initializer| initializer.name() == name);
    // Of a forward model, what the optimizer carries is no part.
    let named = map.carried().into_iter().map(|carried| carried.name).zip(carried);
    let tensors: BTreeMap<String, Tensor> = named.filter(|(name, _)| own(name)).collect();
    if let Some(path) = &output.weights_out {
        let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        safetensors::save(path, named, &BTreeMap::new()).map_err(unwritten(path))?;
    }
    if let Some(path) = &output.out {
        model.save(&Weights::new("the trained weights", tensors).edit(model)?, path)?;
    }
    Ok(())
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::Print)
}

/// The runs of a sweep, the best one first.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut names: Vec<String> = Vec::new();
    let evaluated = outcomes.iter().find_map(|outcome| outcome.progress.epochs.last()?.eval.as_ref());
    names.extend(evaluated.iter().flat_map(|scores| scores.iter()).map(|(name, _)| name.to_owned()));
    let mut rows = vec![["rank", "settings", "train loss"].map(str::to_owned).to_vec()];
    rows[0].extend(names.iter().map(|name| format!("eval {name}")));
    for (rank, outcome) in outcomes.iter().enumerate() {
        let mut row = vec![(rank + 1).to_string(), outcome.label.clone()];
        match (&outcome.diverged, outcome.progress.epochs.last()) {
            (Some(divergence), _) => row.push(format!("diverged at step {}", divergence.step)),
            (None, Some(record)) => {
                row.push(format!("{:.5}", record.train_loss));
                let value = |name: &String| record.eval.as_ref().and_then(|scores| scores.get(name));
                row.extend(names.iter().map(|name| value(name).map_or("".into(), |value| format!("{value:.5}"))));
            }
            (None, None) => row.push("no epoch was completed".into()),
        }
        rows.push(row);
    }
    aligned(&rows)
}

/// The same as JSON.
pub(crate) fn sweep_json(outcomes: &[Outcome]) -> String {
    let run = |outcome: &Outcome| {
        json!({
            "settings": outcome.label,
            "diverged": outcome.diverged.as_ref().map(|divergence| divergence.to_string()),
            "epochs": outcome.progress.epochs,
        })
    };
    json!({ "runs": outcomes.iter().map(run).collect::<Vec<_>>() }).to_string() + "\n"
}

/// A failure to write `path`.
pub(crate) fn unwritten(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |source| Failure::Write { path, source }
}
