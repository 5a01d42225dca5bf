use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::type_proto::{self, Value};
use crate::proto::{TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_proto::DataType};

/// One dimension of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Known(u64),
    /// A name: equal names mean equal sizes.
    Symbol(String),
    /// Nothing is known.
    Unknown,
}

impl Dim {
    /// The number, where there is one.
    pub fn known(&self) -> Option<u64> {
        match self {
            Self::Known(size) => Some(*size),
            _ => None,
        }
    }

    /// Whether the two can be the same size.
    pub fn compatible(&self, other: &Self) -> bool {
        !matches!((self, other), (Self::Known(a), Self::Known(b)) if a != b)
    }
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(size) => size.fmt(f),
            Self::Symbol(name) => name.fmt(f),
            Self::Unknown => "?".fmt(f),
        }
    }
}

/// Element type and shape of a tensor, as far as the file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// `TensorProto.DataType`.
    pub elem: i32,
    /// `None`: even the rank is unknown.
    pub shape: Option<Vec<Dim>>,
}

/// Whether an element type (`TensorProto.DataType`) is of floating-point numbers of 16 bits or more.
pub fn is_float(elem: i32) -> bool {
    [DataType::Float, DataType::Double, DataType::Float16, DataType::Bfloat16].iter().any(|&float| float as i32 == elem)
}

/// What ONNX calls an element type.
pub fn name_of(elem: DataType) -> String {
    elem.as_str_name().to_lowercase()
}

/// The element type in which numbers of the floating-point type `elem` are added up: 16 bits are too few for small changes.
pub(crate) fn working_type(elem: i32) -> i32 {
    if elem == DataType::Double as i32 { elem } else { DataType::Float as i32 }
}

impl std::fmt::Display for TensorType {
    /// `float[batch, 784]`; `float` alone if the rank is unknown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&DataType::try_from(self.elem).map_or("unknown".to_owned(), name_of))?;
        match &self.shape {
            Some(shape) => write!(f, "[{}]", shape.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ")),
            None => Ok(()),
        }
    }
}

impl TensorType {
    /// The type that a `ValueInfoProto` declares; `None` for sequences, maps and absent types.
    pub fn of(info: &ValueInfoProto) -> Option<Self> {
        match info.r#type.as_ref()?.value.as_ref()? {
            Value::TensorType(tensor) => {
                Some(Self { elem: tensor.elem_type(), shape: tensor.shape.as_ref().map(dims) })
            }
            _ => None,
        }
    }

    /// The declaration of a value of this type.
    pub fn declare(&self, name: &str) -> ValueInfoProto {
        let dim = |dim: &Dim| Dimension {
            value: match dim {
                Dim::Known(size) => Some(dimension::Value::DimValue(*size as i64)),
                Dim::Symbol(name) => Some(dimension::Value::DimParam(name.clone())),
                Dim::Unknown => None,
            },
            ..Dimension::default()
        };
        let shape = self.shape.as_ref().map(|shape| TensorShapeProto { dim: shape.iter().map(dim).collect() });
        let tensor = type_proto::Tensor { elem_type: Some(self.elem), shape };
        let r#type = TypeProto { value: Some(Value::TensorType(tensor)), ..TypeProto::default() };
        ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() }
    }

    /// The type of a tensor.
    pub fn of_tensor(tensor: &TensorProto) -> Self {
        Self { elem: tensor.data_type(), shape: Self::known(&tensor.dims) }
    }

    /// A tensor of one element type without axes.
    pub fn scalar(elem: i32) -> Self {
        Self { elem, shape: Some(Vec::new()) }
    }

    /// Whether elements are floating-point numbers (of 16 bits or more).
    pub fn is_float(&self) -> bool {
        is_float(self.elem)
    }

    /// The number of dimensions.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    pub(super) fn known(dims: &[i64]) -> Option<Vec<Dim>> {
        dims.iter().map(|&size| u64::try_from(size).ok().map(Dim::Known)).collect()
    }
}

fn dims(shape: &TensorShapeProto) -> Vec<Dim> {
    let dim = |value: &Option<dimension::Value>| match value {
        Some(dimension::Value::DimValue(size)) => u64::try_from(*size).map_or(Dim::Unknown, Dim::Known),
        Some(dimension::Value::DimParam(name)) if !name.is_empty() => Dim::Symbol(name.clone()),
        _ => Dim::Unknown,
    };
    shape.dim.iter().map(|d| dim(&d.value)).collect()
}
