//! The examples of a run.

use std::path::{Path, PathBuf};

use isaac::train::data::{Builtin, Dataset, Examples, Input};

use crate::arguments::Data;
use crate::failure::Failure;

/// What is trained with, and what is evaluated on.
pub(crate) struct Sources {
    pub(crate) training: Examples,
    pub(crate) evaluation: Option<Examples>,
}

impl Sources {
    /// Reads what the command line names, for a model with these inputs. What is held out follows from `seed`.
    pub(crate) fn load(data: &Data, seed: u64, inputs: &[Input]) -> Result<Self, Failure> {
        let builtin = match data.training.as_slice() {
            // A file of that name is not one of the sets.
            [name] if !Path::new(name).exists() => Builtin::ALL.into_iter().find(|builtin| builtin.name() == name),
            _ => None,
        };
        let (training, test) = match builtin {
            Some(builtin) => {
                let split = builtin.load(&cache(data)?)?;
                (split.train, Some(split.test))
            }
            None => (Dataset::load(&paths(&data.training))?, None),
        };
        let fraction = match data.evaluation.as_slice() {
            [text] if !Path::new(text).exists() => text.parse::<f64>().ok(),
            _ => None,
        };
        let examples = |dataset: &Dataset| Examples::new(dataset, inputs, &data.bind);
        if let Some(fraction) = fraction {
            let (training, evaluation) = examples(&training)?.split(fraction, seed)?;
            return Ok(Self { training, evaluation: Some(evaluation) });
        }
        let evaluation = match data.evaluation.as_slice() {
            [] => test,
            files => Some(Dataset::load(&paths(files))?.with_classes_of(&training)?),
        };
        let evaluation = evaluation.as_ref().map(examples).transpose()?;
        Ok(Self { training: examples(&training)?, evaluation })
    }
}

fn paths(files: &[String]) -> Vec<PathBuf> {
    files.iter().map(PathBuf::from).collect()
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
