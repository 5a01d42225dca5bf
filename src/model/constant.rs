//! Reading and making constant tensors.

use super::{Graph, Index, NodeExt, Producer, TensorType, ValueId};
use crate::proto::TensorProto;
use crate::proto::tensor_proto::{DataLocation, DataType};
use bytes::Bytes;

/// Tensors of more bytes are not decoded: they are weights, not constants that a graph is understood by.
const MAX_BYTES: usize = 1 << 16;

impl Graph {
    /// The tensor behind a value that is an initializer (and no input) or the result of a Constant, where it is small.
    pub fn constant(&self, index: &Index, value: ValueId) -> Option<TensorProto> {
        match index.value(value).producer {
            Producer::Initializer(at) => {
                let initializer = &self.initializers()[at];
                (initializer.message().len() <= MAX_BYTES).then(|| initializer.tensor()).flatten()
            }
            Producer::Node(node, _) if self.nodes()[node.0].is_onnx("Constant") => {
                let attribute = |name: &str| NodeExt::attribute(&self.nodes()[node.0], name);
                if let Some(tensor) = attribute("value") {
                    return tensor.t.clone();
                }
                let int = |ints: &[i64], dims| TensorProto { dims, ..TensorProto::of_ints(ints) };
                attribute("value_int")
                    .and_then(|attribute| attribute.i)
                    .map(|value| int(&[value], Vec::new()))
                    .or_else(|| attribute("value_ints").map(|a| int(&a.ints, vec![a.ints.len() as i64])))
                    .or_else(|| {
                        Some(TensorProto::of_float(attribute("value_float")?.f?.into(), DataType::Float as i32))
                    })
            }
            _ => None,
        }
    }

    /// The elements of a constant tensor of int64 or int32.
    pub fn constant_ints(&self, index: &Index, value: ValueId) -> Option<Vec<i64>> {
        let tensor = self.constant(index, value)?;
        tensor.int64_elements().or_else(|| tensor.int32_elements())
    }

    /// The elements of a constant tensor of booleans.
    pub fn constant_bools(&self, index: &Index, value: ValueId) -> Option<Vec<bool>> {
        self.constant(index, value)?.bool_elements()
    }

    /// The element of a constant floating-point tensor that has just one.
    pub fn constant_scalar(&self, index: &Index, value: ValueId) -> Option<f64> {
        self.constant(index, value)?.float_element()
    }
}

impl TensorProto {
    /// An int64 tensor with one axis.
    pub fn of_ints(values: &[i64]) -> Self {
        Self {
            dims: vec![values.len() as i64],
            data_type: Some(DataType::Int64 as i32),
            raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            ..Self::default()
        }
    }

    /// An int64 scalar.
    pub fn of_int(value: i64) -> Self {
        Self { dims: Vec::new(), ..Self::of_ints(&[value]) }
    }

    /// Zeros of the element type `elem` in the shape of `tensor`; a size that is not known counts as one.
    pub fn zeros(tensor: &TensorType, elem: i32) -> Self {
        let dims: Vec<i64> = tensor.shape.iter().flatten().map(|dim| dim.known().unwrap_or(1) as i64).collect();
        let width = TensorProto::of_float(0.0, elem).raw_data().len();
        let bytes = dims.iter().product::<i64>() as usize * width;
        Self { dims, data_type: Some(elem), raw_data: Some(vec![0; bytes].into()), ..Self::default() }
    }

    /// A scalar of a floating-point type (`TensorProto.DataType`); of any other type, a float.
    pub fn of_float(value: f64, elem: i32) -> Self {
        Self::of_floats(&[value], &[], elem)
    }

    /// A tensor of the sizes `dims` and a floating-point type (`TensorProto.DataType`); of any other type, of floats.
    pub fn of_floats(values: &[f64], dims: &[i64], elem: i32) -> Self {
        let values = values.iter();
        let (data_type, bytes): (i32, Vec<u8>) = match DataType::try_from(elem) {
            Ok(DataType::Double) => (elem, values.flat_map(|value| value.to_le_bytes()).collect()),
            Ok(DataType::Float16) => {
                (elem, values.flat_map(|&value| half::f16::from_f64(value).to_le_bytes()).collect())
            }
            Ok(DataType::Bfloat16) => {
                (elem, values.flat_map(|&value| half::bf16::from_f64(value).to_le_bytes()).collect())
            }
            _ => (DataType::Float as i32, values.flat_map(|&value| (value as f32).to_le_bytes()).collect()),
        };
        Self { dims: dims.to_vec(), data_type: Some(data_type), raw_data: Some(bytes.into()), ..Self::default() }
    }

    /// The elements of an int64 tensor that is stored in the file.
    pub fn int64_elements(&self) -> Option<Vec<i64>> {
        self.elements(DataType::Int64, i64::from_le_bytes, || self.int64_data.clone())
    }

    /// The elements of an int32 tensor that is stored in the file.
    pub fn int32_elements(&self) -> Option<Vec<i64>> {
        let widened = |bytes| i32::from_le_bytes(bytes).into();
        self.elements(DataType::Int32, widened, || self.int32_data.iter().map(|&value| value.into()).collect())
    }

    /// The elements of a tensor of booleans that is stored in the file.
    pub fn bool_elements(&self) -> Option<Vec<bool>> {
        let is_true = |[byte]: [u8; 1]| byte != 0;
        self.elements(DataType::Bool, is_true, || self.int32_data.iter().map(|&value| value != 0).collect())
    }

    /// The elements of a float tensor that is stored in the file.
    pub fn float_elements(&self) -> Option<Vec<f32>> {
        self.elements(DataType::Float, f32::from_le_bytes, || self.float_data.clone())
    }

    /// The elements of a tensor of this type: each read from its bytes, or else those that are `listed`.
    fn elements<const WIDTH: usize, T>(
        &self,
        elem: DataType,
        read: impl Fn([u8; WIDTH]) -> T,
        listed: impl FnOnce() -> Vec<T>,
    ) -> Option<Vec<T>> {
        let bytes = self.raw_data();
        let of_bytes = || bytes.chunks_exact(WIDTH).filter_map(|chunk| chunk.try_into().ok()).map(read).collect();
        (self.data_type() == elem as i32).then(|| if bytes.is_empty() { listed() } else { of_bytes() })
    }

    /// The elements of a tensor of numbers that is stored in the file, one after the other as `raw_data` has them.
    pub fn element_bytes(&self) -> Option<Vec<u8>> {
        match DataType::try_from(self.data_type()).ok()? {
            _ if !self.raw_data().is_empty() => Some(self.raw_data().to_vec()),
            DataType::Float => Some(self.float_data.iter().flat_map(|value| value.to_le_bytes()).collect()),
            DataType::Double => Some(self.double_data.iter().flat_map(|value| value.to_le_bytes()).collect()),
            _ => None,
        }
    }

    /// The tensor with these elements, as `raw_data` has them, in the place of its own.
    pub fn with_payload(self, payload: Bytes) -> Self {
        Self {
            raw_data: Some(payload),
            data_location: self.data_location.map(|_| DataLocation::Default as i32),
            external_data: Vec::new(),
            float_data: Vec::new(),
            int32_data: Vec::new(),
            int64_data: Vec::new(),
            double_data: Vec::new(),
            uint64_data: Vec::new(),
            ..self
        }
    }

    /// The element of a floating-point tensor that has just one.
    pub fn float_element(&self) -> Option<f64> {
        let bytes = self.raw_data();
        match DataType::try_from(self.data_type()).ok()? {
            DataType::Float if bytes.len() == 4 => Some(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Float if self.float_data.len() == 1 => Some(self.float_data[0].into()),
            DataType::Double if bytes.len() == 8 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
            DataType::Double if self.double_data.len() == 1 => Some(self.double_data[0]),
            DataType::Float16 if bytes.len() == 2 => Some(half::f16::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Bfloat16 if bytes.len() == 2 => Some(half::bf16::from_le_bytes(bytes.try_into().ok()?).into()),
            _ => None,
        }
    }
}
