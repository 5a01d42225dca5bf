//! Where a run reads and writes: no file is both, or written twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use isaac::check_writable;
use isaac::model::Model;
use isaac::train::Checkpoint;
use isaac::train::report::{CsvFiles, plot};

use crate::arguments::{Arguments, Output};
use crate::data::{evaluation_files, training_files};
use crate::failure::Failure;
use crate::results::unwritten;

/// Checks that every output can be written, and that nothing is lost by that, before time is spent on what would go into it.
pub(crate) fn check(arguments: &Arguments, model: &Model) -> Result<(), Failure> {
    let outputs = outputs(&arguments.output, model)?;
    let mut names: BTreeMap<PathBuf, String> = BTreeMap::new();
    let inputs = inputs(arguments, model)?;
    for (name, path) in &inputs {
        names.insert(real(path), name.clone());
    }
    for (name, path) in &outputs {
        if let Some(other) = names.insert(real(path), name.clone()) {
            return Err(Failure::Usage(format!("{name} would be written over {other}: {}", path.display())));
        }
    }
    let files = outputs.iter().filter(|(name, _)| name != TENSORBOARD);
    for (_, path) in files {
        check_writable(path).map_err(unwritten(path))?;
    }
    if let Some(path) = &arguments.output.plot {
        plot::check(path).map_err(unwritten(path))?;
    }
    Ok(())
}

/// The option whose output is a folder.
const TENSORBOARD: &str = "--tensorboard";

/// What is written, by the option that asks for it.
fn outputs(output: &Output, model: &Model) -> Result<Vec<(String, PathBuf)>, Failure> {
    let Output { out, weights_out, checkpoint, csv, tensorboard, plot, .. } = output;
    let given = [
        ("--out", out),
        ("--weights-out", weights_out),
        ("--checkpoint", checkpoint),
        ("--csv", csv),
        (TENSORBOARD, tensorboard),
        ("--plot", plot),
    ];
    let given = given.into_iter().filter_map(|(option, path)| Some((option.to_owned(), path.clone()?)));
    let mut outputs: Vec<(String, PathBuf)> = given.collect();
    if let Some(path) = csv {
        outputs.push(("the table of epochs of --csv".to_owned(), CsvFiles::epochs_path(path)));
    }
    if let Some(path) = checkpoint {
        outputs.push(("the last but one of --checkpoint".to_owned(), Checkpoint::previous(path)));
    }
    if let Some(path) = out {
        let beside = model.data_files_to_copy(path)?;
        outputs.extend(beside.into_iter().map(|path| ("the external data of --out".to_owned(), path)));
    }
    Ok(outputs)
}

/// What is read.
fn inputs(arguments: &Arguments, model: &Model) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut inputs = vec![("MODEL".to_owned(), arguments.model.clone())];
    for (name, paths) in [
        ("the external data of MODEL", model.data_files()?),
        ("--data", training_files(&arguments.data)),
        ("--eval", evaluation_files(&arguments.data)),
    ] {
        inputs.extend(paths.into_iter().map(|path| (name.to_owned(), path)));
    }
    Ok(inputs)
}

/// The path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(real) = absolute.canonicalize() {
        return real;
    }
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        _ => absolute,
    }
}
