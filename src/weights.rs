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
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use npyz::{DType, NpyFile, Order, TypeChar};
use safetensors::{Dtype, SafeTensors};
use zip::ZipArchive;

use crate::model::{Dim, Edit, GraphEdit, Model, TensorType};
use crate::proto::TensorProto;
use crate::proto::tensor_proto::{DataLocation, DataType};

/// Why weights cannot be read, or do not fit a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file of weights.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what its name says, or holds what no tensor of ONNX is.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file of weights.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A tensor that is not the model's.
    #[error("{}: {what}", path.display())]
    Mismatch {
        /// The model file.
        path: PathBuf,
        /// What does not fit, and what there is.
        what: String,
    },
}

/// A tensor as initializers store it.
#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    tensor_type: TensorType,
    /// Little-endian, the last axis fastest.
    data: Bytes,
}

/// Tensors by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Reads a .safetensors or an .npz file.
    ///
    /// # Errors
    /// A file that cannot be read or is neither.
    pub fn load(path: &Path) -> Result<Self, WeightsError> {
        let read = |source| WeightsError::Read { path: path.to_owned(), source };
        let format = |what| WeightsError::Format { path: path.to_owned(), what };
        let tensors = match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => from_safetensors(std::fs::read(path).map_err(read)?.into()).map_err(format)?,
            Some("npz") => from_npz(File::open(path).map_err(read)?).map_err(format)?,
            _ => return Err(format("weights are read from files that end in .safetensors or .npz".into())),
        };
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// The changes that put these tensors in the place of the model's initializers of the same names.
    ///
    /// # Errors
    /// A tensor that the model does not have, or has in another type or shape.
    pub fn edit(&self, model: &Model) -> Result<Edit, WeightsError> {
        let mismatch = |what| WeightsError::Mismatch { path: model.path().to_owned(), what };
        let initializers = model.graph().initializers();
        let mut edit = GraphEdit::default();
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
            let old = initializers[at].tensor().filter(|_| own == tensor.tensor_type).ok_or_else(|| {
                let file = self.path.display();
                mismatch(format!("'{name}' is {}, and in {file} {}", described(&own), described(&tensor.tensor_type)))
            })?;
            let new = TensorProto {
                raw_data: Some(tensor.data.clone()),
                data_location: old.data_location.map(|_| DataLocation::Default as i32),
                external_data: Vec::new(),
                float_data: Vec::new(),
                int32_data: Vec::new(),
                int64_data: Vec::new(),
                double_data: Vec::new(),
                uint64_data: Vec::new(),
                ..old
            };
            edit.initializers.insert(at, new);
        }
        Ok(edit.into())
    }
}

fn described(tensor: &TensorType) -> String {
    let elem = DataType::try_from(tensor.elem).map_or("of an unknown type", |elem| elem.as_str_name()).to_lowercase();
    let sizes: Vec<String> = tensor.shape.iter().flatten().map(Dim::to_string).collect();
    format!("{elem}[{}]", sizes.join(", "))
}

fn tensor(elem: DataType, sizes: impl Iterator<Item = u64>, data: Bytes) -> Tensor {
    Tensor { tensor_type: TensorType { elem: elem as i32, shape: Some(sizes.map(Dim::Known).collect()) }, data }
}

fn from_safetensors(file: Bytes) -> Result<BTreeMap<String, Tensor>, String> {
    let tensors = SafeTensors::deserialize(&file).map_err(|error| error.to_string())?;
    let convert = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let elem = match view.dtype() {
            Dtype::F32 => DataType::Float,
            Dtype::F64 => DataType::Double,
            Dtype::F16 => DataType::Float16,
            Dtype::BF16 => DataType::Bfloat16,
            Dtype::I64 => DataType::Int64,
            Dtype::I32 => DataType::Int32,
            other => return Err(format!("'{name}' is of type {other:?}, which no weight is")),
        };
        let sizes = view.shape().iter().map(|&size| size as u64);
        Ok((name.to_owned(), tensor(elem, sizes, file.slice_ref(view.data()))))
    };
    tensors.iter().map(convert).collect()
}

fn from_npz(file: File) -> Result<BTreeMap<String, Tensor>, String> {
    let mut archive = ZipArchive::new(file).map_err(|error| error.to_string())?;
    let mut tensors = BTreeMap::new();
    for at in 0..archive.len() {
        let entry = archive.by_index(at).map_err(|error| error.to_string())?;
        let name = entry.name().map_err(|error| error.to_string())?.trim_end_matches(".npy").to_owned();
        let array = from_npy(entry).map_err(|what| format!("'{name}': {what}"))?;
        tensors.insert(name, array);
    }
    Ok(tensors)
}

fn from_npy(reader: impl Read) -> Result<Tensor, String> {
    let file = NpyFile::new(reader).map_err(|error| error.to_string())?;
    let dtype = file.dtype();
    let unfit = || format!("arrays of type {} are no weights", dtype.descr());
    let DType::Plain(kind) = &dtype else { return Err(unfit()) };
    let elem = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => DataType::Float,
        (TypeChar::Float, 8) => DataType::Double,
        (TypeChar::Float, 2) => DataType::Float16,
        (TypeChar::Int, 8) => DataType::Int64,
        (TypeChar::Int, 4) => DataType::Int32,
        _ => return Err(unfit()),
    };
    if kind.endianness() == npyz::Endianness::Big {
        return Err("it is big-endian".into());
    }
    let (sizes, order, width) = (file.shape().to_vec(), file.order(), kind.size_field() as usize);
    let count = sizes.iter().try_fold(width as u64, |bytes, &size| bytes.checked_mul(size));
    let mut data = Vec::new();
    file.into_inner().read_to_end(&mut data).map_err(|error| error.to_string())?;
    if Some(data.len() as u64) != count {
        return Err(format!("{} bytes of data do not fill the shape {sizes:?}", data.len()));
    }
    if order == Order::Fortran {
        data = last_axis_fastest(&data, &sizes, width);
    }
    Ok(tensor(elem, sizes.into_iter(), data.into()))
}

/// The elements, `width` bytes each, of an array of which the first axis is stored fastest.
fn last_axis_fastest(data: &[u8], sizes: &[u64], width: usize) -> Vec<u8> {
    let count = data.len() / width;
    let mut ordered = Vec::with_capacity(data.len());
    for position in 0..count {
        let (mut rest, mut stride, mut source) = (position, count, 0);
        for &size in sizes.iter().rev() {
            let size = size as usize;
            stride /= size;
            source += rest % size * stride;
            rest /= size;
        }
        ordered.extend_from_slice(&data[source * width..(source + 1) * width]);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_is_undone() {
        // [[0, 1, 2], [3, 4, 5]], column by column.
        assert_eq!(last_axis_fastest(&[0, 3, 1, 4, 2, 5], &[2, 3], 1), [0, 1, 2, 3, 4, 5]);
        assert_eq!(last_axis_fastest(&[0, 4, 2, 6, 1, 5, 3, 7], &[2, 2, 2], 1), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
