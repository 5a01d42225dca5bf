//! Tensors from and to tract's.

use std::sync::Arc;

use bytes::Bytes;
use isaac::model::name_of;
use isaac::proto::tensor_proto::DataType;
use isaac::runtime::RuntimeError;
use isaac::tensors::Tensor;
use tract_onnx::prelude as tract;
use tract_onnx::prelude::DatumType;

use super::{Value, failed};

/// Element types that tract and ONNX both have.
const TYPES: [(DataType, DatumType); 12] = [
    (DataType::Float, DatumType::F32),
    (DataType::Double, DatumType::F64),
    (DataType::Float16, DatumType::F16),
    (DataType::Int64, DatumType::I64),
    (DataType::Int32, DatumType::I32),
    (DataType::Int16, DatumType::I16),
    (DataType::Int8, DatumType::I8),
    (DataType::Uint64, DatumType::U64),
    (DataType::Uint32, DatumType::U32),
    (DataType::Uint16, DatumType::U16),
    (DataType::Uint8, DatumType::U8),
    (DataType::Bool, DatumType::Bool),
];

/// The tensor in tract.
pub(super) fn to_tract(tensor: &Tensor) -> Result<Value, RuntimeError> {
    let Some((_, datum_type)) = TYPES.iter().find(|(elem, _)| *elem == tensor.elem()) else {
        return Err(RuntimeError::Program(format!("tract has no tensors of type {}", name_of(tensor.elem()))));
    };
    let mut value = tract::Tensor::zero_dt(*datum_type, tensor.shape()).map_err(failed)?;
    let bytes = value.as_bytes_mut();
    if tensor.elem() == DataType::Bool {
        bytes.iter_mut().zip(tensor.data()).for_each(|(byte, given)| *byte = u8::from(*given != 0));
    } else {
        bytes.copy_from_slice(tensor.data());
    }
    Ok(Arc::new(value))
}

/// A tensor of tract's. Its symbolic integers are those of ONNX when they are known.
pub(super) fn from_tract(value: &tract::Tensor) -> Result<Tensor, RuntimeError> {
    if value.datum_type() == DatumType::TDim {
        return from_tract(&*value.cast_to_dt(DatumType::I64).map_err(failed)?);
    }
    let Some((elem, _)) = TYPES.iter().find(|(_, datum_type)| *datum_type == value.datum_type()) else {
        return Err(RuntimeError::Program(format!(
            "tensors of tract's type {:?} are not supported",
            value.datum_type()
        )));
    };
    let data = Bytes::copy_from_slice(value.as_bytes());
    Tensor::new(*elem, value.shape().to_vec(), data).map_err(RuntimeError::Program)
}
