use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Tensor, npy, safetensors};

/// Why the tensors of a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what its name says, or holds what no tensor of ONNX is.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The tensors of a file: those of an .npz or a .safetensors file by their names in it, that of an .npy file by the file's name
/// without `.npy`.
///
/// # Errors
/// A file that cannot be read, or is none of these.
pub fn load(path: &Path) -> Result<BTreeMap<String, Tensor>, TensorsError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => Ok(safetensors::read(path)?.tensors),
        Some("npz") => parse(path, npy::read_archive),
        Some("npy") => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok([(name, parse(path, npy::read_array)?)].into())
        }
        _ => {
            let what = "tensors are read from files that end in .npz, .npy or .safetensors".to_owned();
            Err(TensorsError::Format { path: path.to_owned(), what })
        }
    }
}

/// What `parse` makes of the content of a file.
pub(super) fn parse<T>(path: &Path, parse: fn(bytes::Bytes) -> Result<T, String>) -> Result<T, TensorsError> {
    let content = std::fs::read(path).map_err(|source| TensorsError::Read { path: path.to_owned(), source })?;
    parse(content.into()).map_err(|what| TensorsError::Format { path: path.to_owned(), what })
}
