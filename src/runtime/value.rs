//! Tensors into values of ONNX Runtime, and back.
#![allow(unsafe_code)]

use ort::memory::Allocator;
use ort::value::{DynTensor, DynTensorValueType, DynValue, TensorElementType};

use crate::model::name_of;
use crate::proto::tensor_proto::DataType;
use crate::tensors::{Tensor, width};

/// Element types of ONNX, and what they are called here.
const TYPES: [(DataType, TensorElementType); 13] = [
    (DataType::Float, TensorElementType::Float32),
    (DataType::Double, TensorElementType::Float64),
    (DataType::Float16, TensorElementType::Float16),
    (DataType::Bfloat16, TensorElementType::Bfloat16),
    (DataType::Int64, TensorElementType::Int64),
    (DataType::Int32, TensorElementType::Int32),
    (DataType::Int16, TensorElementType::Int16),
    (DataType::Int8, TensorElementType::Int8),
    (DataType::Uint64, TensorElementType::Uint64),
    (DataType::Uint32, TensorElementType::Uint32),
    (DataType::Uint16, TensorElementType::Uint16),
    (DataType::Uint8, TensorElementType::Uint8),
    (DataType::Bool, TensorElementType::Bool),
];

/// A new value of this element type and shape in the runtime's memory. Its elements are not set.
pub(super) fn allocate(allocator: &Allocator, elem: DataType, shape: &[usize]) -> Result<DynTensor, ort::Error> {
    let known = TYPES.iter().find(|(onnx, _)| *onnx == elem);
    let (_, elem) = known.ok_or_else(|| ort::Error::new(format!("{} is no element type here", name_of(elem))))?;
    let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    DynTensor::new(allocator, *elem, shape)
}

/// Whether a tensor of this type and shape would fit the value.
pub(super) fn fits(value: &DynTensor, tensor: &Tensor) -> bool {
    let is_type = TYPES.contains(&(tensor.elem(), *value.data_type()));
    is_type && value.shape().iter().map(|&size| size as usize).eq(tensor.shape().iter().copied())
}

/// Overwrites the elements of a value in CPU memory that [`fits`].
pub(super) fn fill(value: &mut DynTensor, tensor: &Tensor) {
    assert!(fits(value, tensor), "the value has the tensor's type and shape");
    if tensor.data().is_empty() {
        return;
    }
    // SAFETY: the value is as large as the tensor, and nothing else refers to it.
    unsafe {
        let target = std::slice::from_raw_parts_mut(value.data_ptr_mut().cast::<u8>(), tensor.data().len());
        target.copy_from_slice(tensor.data());
    }
}

/// A copy of a value in CPU memory.
pub(super) fn read(value: &DynTensor) -> Result<Tensor, ort::Error> {
    let known = TYPES.iter().find(|(_, here)| here == value.data_type());
    let unknown = || ort::Error::new(format!("tensors of type {} are not supported", value.data_type()));
    let (elem, _) = known.ok_or_else(unknown)?;
    let shape: Vec<usize> = value.shape().iter().map(|&size| size as usize).collect();
    let size = shape.iter().product::<usize>() * width(*elem).ok_or_else(unknown)?;
    let data = match size {
        0 => Vec::new(),
        // SAFETY: a value is as large as its type and shape say.
        _ => unsafe { std::slice::from_raw_parts(value.data_ptr().cast::<u8>(), size) }.to_vec(),
    };
    Tensor::new(*elem, shape, data.into()).map_err(ort::Error::new)
}

/// A copy of an output in CPU memory.
pub(super) fn read_output(output: &DynValue) -> Result<Tensor, ort::Error> {
    let tensor = output.view().downcast::<DynTensorValueType>()?;
    read(&tensor)
}
