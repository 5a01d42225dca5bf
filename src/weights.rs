//! Trained weights, from a file into the forward model.
//!
//! ```
//! use isaac::model::Model;
//! use isaac::weights::Weights;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (file, output) = (folder.path().join("trained.safetensors"), folder.path().join("tuned.onnx"));
//! # let bias = [0.5_f32; 5].map(f32::to_le_bytes).concat();
//! # let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![5], &bias)?;
//! # std::fs::write(&file, safetensors::serialize([("4.bias", view)], None)?)?;
//! let model = Model::load("tests/fixtures/mlp_gemm_ts17/forward.onnx".as_ref())?;
//! let weights = Weights::load(&file)?;
//! model.save(&weights.edit(&model)?, &output)?;
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::model::{Edit, GraphEdit, Model};
use crate::tensors::{self, Tensor, TensorsError};

/// Why weights cannot be read, or do not fit a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file is at fault.
    #[error(transparent)]
    File(#[from] TensorsError),
    /// A tensor that is not the model's.
    #[error("{}: {what}", path.display())]
    Mismatch {
        /// The model file.
        path: PathBuf,
        /// What does not fit, and what there is.
        what: String,
    },
}

/// Tensors by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// These tensors; errors call them `name`.
    pub fn new(name: &str, tensors: BTreeMap<String, Tensor>) -> Self {
        Self { path: name.into(), tensors }
    }

    /// Reads the tensors of a file, as [`tensors::load`] does.
    ///
    /// # Errors
    /// A file that it cannot read.
    pub fn load(path: &Path) -> Result<Self, WeightsError> {
        Ok(Self { path: path.to_owned(), tensors: tensors::load(path)? })
    }

    /// The changes that put these tensors in the place of the model's initializers of the same names.
    ///
    /// # Errors
    /// No tensors, or one that the model does not have, or has in another type or shape.
    pub fn edit(&self, model: &Model) -> Result<Edit, WeightsError> {
        let mismatch = |what| WeightsError::Mismatch { path: model.path().to_owned(), what };
        let initializers = model.graph().initializers();
        let mut edit = GraphEdit::default();
        if self.tensors.is_empty() {
            return Err(mismatch(format!("{} holds no tensors", self.path.display())));
        }
        for (name, tensor) in &self.tensors {
            let at = initializers.iter().position(|initializer| initializer.name() == name).ok_or_else(|| {
                let names: Vec<&str> = initializers.iter().map(|initializer| initializer.name()).collect();
                let file = self.path.display();
                mismatch(format!(
                    "{file} holds '{name}', and no initializer has that name; there are: {}",
                    names.join(", ")
                ))
            })?;
            let own = initializers[at].tensor_type();
            let old = initializers[at].tensor().filter(|_| own == tensor.tensor_type()).ok_or_else(|| {
                mismatch(format!("'{name}' is {own}, and in {} {}", self.path.display(), tensor.describe()))
            })?;
            edit.initializers.insert(at, old.with_payload(tensor.data().clone()));
        }
        Ok(edit.into())
    }
}
