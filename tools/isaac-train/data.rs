//! The examples of a run.

use std::path::{Path, PathBuf};

use isaac::model::Classes;
use isaac::train::data::{Builtin, DataError, Dataset, Examples, Input};

use crate::arguments::Data;
use crate::failure::Failure;

/// What is trained with, and what is evaluated on.
pub(crate) struct Sources {
    pub(crate) training: Examples,
    pub(crate) evaluation: Option<Examples>,
}

impl Sources {
    /// Reads what the command line names, for a model with these inputs, one of which takes labels of classes, if there are any. What is
    /// held out follows from `seed`.
    pub(crate) fn load(
        data: &Data,
        seed: u64,
        inputs: &[Input],
        classes: Option<(&str, Classes)>,
    ) -> Result<Self, Failure> {
        let (training, test) = match builtin(&data.training) {
            Some(builtin) => {
                let split = builtin.load(&cache(data)?)?;
                (split.train, Some(split.test))
            }
            None => (Dataset::load(&training_files(data))?, None),
        };
        let examples = |dataset: &Dataset| {
            let examples = Examples::new(dataset, inputs, &data.bind)?;
            if let Some((input, classes)) = classes {
                examples.check_classes(input, classes)?;
            }
            Ok::<_, DataError>(examples)
        };
        if let Some(fraction) = fraction(&data.evaluation) {
            let (training, evaluation) = examples(&training)?.split(fraction, seed)?;
            return Ok(Self { training, evaluation: Some(evaluation) });
        }
        let evaluation = match data.evaluation.as_slice() {
            [] => test,
            _ => Some(Dataset::load(&evaluation_files(data))?.with_classes_of(&training)?),
        };
        let evaluation = evaluation.as_ref().map(examples).transpose()?;
        Ok(Self { training: examples(&training)?, evaluation })
    }
}

/// The files that --data names.
pub(crate) fn training_files(data: &Data) -> Vec<PathBuf> {
    if builtin(&data.training).is_some() { Vec::new() } else { data.training.iter().map(PathBuf::from).collect() }
}

/// The files that --eval names.
pub(crate) fn evaluation_files(data: &Data) -> Vec<PathBuf> {
    if fraction(&data.evaluation).is_some() { Vec::new() } else { data.evaluation.iter().map(PathBuf::from).collect() }
}

/// The set of this name. A file that is called so is none.
fn builtin(names: &[String]) -> Option<Builtin> {
    match names {
        [name] if !Path::new(name).exists() => Builtin::ALL.into_iter().find(|builtin| builtin.name() == name),
        _ => None,
    }
}

/// The number that is given in the place of files.
fn fraction(names: &[String]) -> Option<f64> {
    match names {
        [text] if !Path::new(text).exists() => text.parse().ok(),
        _ => None,
    }
}

/// The folder of downloads.
fn cache(data: &Data) -> Result<PathBuf, Failure> {
    if let Some(folder) = &data.cache {
        return Ok(folder.clone());
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let unknown = || Failure::Usage("downloads need a folder: --cache".into());
    Ok(folder.ok_or_else(unknown)?.join("isaac-onnx"))
}
