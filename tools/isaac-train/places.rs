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
    let output = &arguments.output;
    let files = files(output);
    let folder = output.tensorboard.iter().map(|path| ("--tensorboard", path.clone()));
    let beside = match &output.out {
        Some(path) => model.data_files_to_write(path)?,
        None => Vec::new(),
    };
    let beside = beside.into_iter().map(|path| ("the external data of --out", path));
    let mut names: BTreeMap<PathBuf, &str> = BTreeMap::new();
    names.extend(inputs(arguments, model)?.into_iter().map(|(name, path)| (real(&path), name)));
    for (name, path) in files.iter().cloned().chain(folder).chain(beside) {
        if let Some(other) = names.insert(real(&path), name) {
            return Err(Failure::Usage(format!("{name} would be written over {other}: {}", path.display())));
        }
    }
    if let Some(path) = &output.plot {
        plot::check(path).map_err(|error| Failure::Usage(format!("--plot: {error}")))?;
    }
    for (_, path) in &files {
        check_writable(path).map_err(unwritten(path))?;
    }
    Ok(())
}

/// The files that are written, by the options that ask for them.
fn files(output: &Output) -> Vec<(&'static str, PathBuf)> {
    let Output { out, weights_out, checkpoint, csv, plot, .. } = output;
    let files = [
        ("--out", out.clone()),
        ("--weights-out", weights_out.clone()),
        ("--checkpoint", checkpoint.clone()),
        ("the last but one of --checkpoint", checkpoint.as_deref().map(Checkpoint::previous)),
        ("--csv", csv.clone()),
        ("the table of epochs of --csv", csv.as_deref().map(CsvFiles::epochs_path)),
        ("--plot", plot.clone()),
    ];
    files.into_iter().filter_map(|(name, path)| Some((name, path?))).collect()
}

/// What is read.
fn inputs(arguments: &Arguments, model: &Model) -> Result<Vec<(&'static str, PathBuf)>, Failure> {
    let mut inputs = vec![("MODEL", arguments.model.clone())];
    for (name, paths) in [
        ("the external data of MODEL", model.data_files()?),
        ("--data", training_files(&arguments.data)),
        ("--eval", evaluation_files(&arguments.data)),
    ] {
        inputs.extend(paths.into_iter().map(|path| (name, path)));
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
