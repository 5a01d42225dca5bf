//! Tensors outside of a model, and the files that hold them by name.

mod file;
mod npy;
pub mod safetensors;

use bytes::Bytes;
use half::{bf16, f16};

use crate::model::{Dim, TensorType, name_of};
use crate::proto::TensorProto;
use crate::proto::tensor_proto::DataType;

pub use file::{TensorsError, load};

/// A dense tensor: element type, shape, and the elements in little-endian bytes, the last axis fastest.
///
/// ```
/// use isaac::tensors::Tensor;
/// let matrix = Tensor::of(&[2, 2], &[1.0_f32, 2.0, 3.0, 4.0]);
/// assert_eq!(matrix.rows(&[1, 0]).to_f64s(), [3.0, 4.0, 1.0, 2.0]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    elem: DataType,
    shape: Vec<usize>,
    data: Bytes,
}

/// The Rust types of tensor elements.
pub trait Element: Copy {
    /// The type's name in ONNX.
    const TYPE: DataType;
    /// Appends its little-endian bytes.
    fn append(self, bytes: &mut Vec<u8>);
    /// Reads it from as many bytes as it has.
    fn read(bytes: &[u8]) -> Self;
    /// As a number; integers above 2⁵³ are rounded.
    fn number(self) -> f64;
    /// The element that is this number; `None` if an integer type does not have it, or it is above 2⁵³. To floating-point numbers it
    /// is rounded.
    fn from_number(number: f64) -> Option<Self>;
}

macro_rules! element {
    ($($rust:ty => $onnx:ident, $number:expr, $from_number:expr;)*) => {$(
        impl Element for $rust {
            const TYPE: DataType = DataType::$onnx;
            fn append(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("chunks of the type's width"))
            }
            fn number(self) -> f64 {
                let number: fn(Self) -> f64 = $number;
                number(self)
            }
            fn from_number(number: f64) -> Option<Self> {
                let from_number: fn(f64) -> Option<Self> = $from_number;
                from_number(number)
            }
        }
    )*};
}

element! {
    f32 => Float, f64::from, |x| Some(x as f32);
    f64 => Double, |x| x, Some;
    f16 => Float16, f64::from, |x| Some(f16::from_f64(x));
    bf16 => Bfloat16, f64::from, |x| Some(bf16::from_f64(x));
    i64 => Int64, |x| x as f64, exact;
    i32 => Int32, f64::from, |x| exact(x)?.try_into().ok();
    i16 => Int16, f64::from, |x| exact(x)?.try_into().ok();
    i8 => Int8, f64::from, |x| exact(x)?.try_into().ok();
    u64 => Uint64, |x| x as f64, |x| exact(x)?.try_into().ok();
    u32 => Uint32, f64::from, |x| exact(x)?.try_into().ok();
    u16 => Uint16, f64::from, |x| exact(x)?.try_into().ok();
    u8 => Uint8, f64::from, |x| exact(x)?.try_into().ok();
}

/// The integer that this number is, where doubles have all integers.
fn exact(number: f64) -> Option<i64> {
    (number.trunc() == number && number.abs() <= 2.0_f64.powi(53)).then_some(number as i64)
}

/// Runs `$body` with the Rust type of an element type as `$type`; `$otherwise` for types without one.
macro_rules! with_element {
    ($elem:expr, $type:ident => $body:expr, $otherwise:expr) => {
        match $elem {
            DataType::Float => {
                type $type = f32;
                $body
            }
            DataType::Double => {
                type $type = f64;
                $body
            }
            DataType::Float16 => {
                type $type = half::f16;
                $body
            }
            DataType::Bfloat16 => {
                type $type = half::bf16;
                $body
            }
            DataType::Int64 => {
                type $type = i64;
                $body
            }
            DataType::Int32 => {
                type $type = i32;
                $body
            }
            DataType::Int16 => {
                type $type = i16;
                $body
            }
            DataType::Int8 => {
                type $type = i8;
                $body
            }
            DataType::Uint64 => {
                type $type = u64;
                $body
            }
            DataType::Uint32 => {
                type $type = u32;
                $body
            }
            DataType::Uint16 => {
                type $type = u16;
                $body
            }
            DataType::Uint8 | DataType::Bool => {
                type $type = u8;
                $body
            }
            _ => $otherwise,
        }
    };
}
pub(crate) use with_element;

/// The bytes of an element; `None` for types whose elements have no width of their own (strings, sub-byte types).
pub fn width(elem: DataType) -> Option<usize> {
    with_element!(elem, T => Some(size_of::<T>()), None)
}

impl Tensor {
    /// A tensor of these bytes.
    ///
    /// # Errors
    /// Bytes that do not fill the shape or are not the type's, or an element type without a width.
    pub fn new(elem: DataType, shape: Vec<usize>, data: Bytes) -> Result<Self, String> {
        let Some(width) = width(elem) else {
            return Err(format!("tensors of type {} are not supported", name_of(elem)));
        };
        let size = shape.iter().try_fold(width, |bytes, &size| bytes.checked_mul(size));
        if size != Some(data.len()) {
            return Err(format!("{} bytes do not fill {}{shape:?}", data.len(), name_of(elem)));
        }
        // A runtime may take any other byte for whatever it likes.
        if elem == DataType::Bool && data.iter().any(|&byte| byte > 1) {
            return Err("a boolean is neither 0 nor 1".into());
        }
        Ok(Self { elem, shape, data })
    }

    /// A tensor of these elements.
    ///
    /// # Panics
    /// If they do not fill the shape.
    pub fn of<E: Element>(shape: &[usize], elements: &[E]) -> Self {
        assert_eq!(elements.len(), shape.iter().product::<usize>(), "the elements fill the shape");
        let mut data = Vec::with_capacity(size_of_val(elements));
        elements.iter().for_each(|element| element.append(&mut data));
        Self { elem: E::TYPE, shape: shape.to_vec(), data: data.into() }
    }

    /// A tensor without axes.
    pub fn scalar<E: Element>(element: E) -> Self {
        Self::of(&[], &[element])
    }

    /// The tensor of a message.
    ///
    /// # Errors
    /// A message whose payload lies elsewhere or does not fill its shape.
    pub fn of_message(message: &TensorProto) -> Result<Self, String> {
        let shape: Option<Vec<usize>> = message.dims.iter().map(|&size| usize::try_from(size).ok()).collect();
        let shape = shape.ok_or_else(|| format!("the shape {:?} has a negative size", message.dims))?;
        let data = message.element_bytes().ok_or("its payload is not in the message")?;
        let elem = DataType::try_from(message.data_type()).map_err(|_| "its element type is unknown")?;
        Self::new(elem, shape, data.into())
    }

    /// The element type.
    pub fn elem(&self) -> DataType {
        self.elem
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in little-endian bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Element type and shape as models declare them.
    pub fn tensor_type(&self) -> TensorType {
        let shape = self.shape.iter().map(|&size| Dim::Known(size as u64)).collect();
        TensorType { elem: self.elem as i32, shape: Some(shape) }
    }

    /// Element type and shape as text: `float[60, 784]`.
    pub fn describe(&self) -> String {
        format!("{}{:?}", name_of(self.elem), self.shape)
    }

    /// The elements, if they are of this type.
    pub fn elements<E: Element>(&self) -> Option<Vec<E>> {
        (self.elem == E::TYPE).then(|| self.data.chunks_exact(size_of::<E>()).map(E::read).collect())
    }

    /// The elements as numbers. Integers above 2⁵³ are rounded.
    pub fn to_f64s(&self) -> Vec<f64> {
        with_element!(
            self.elem,
            E => self.data.chunks_exact(size_of::<E>()).map(|bytes| E::read(bytes).number()).collect(),
            Vec::new()
        )
    }

    /// The first element, as a number, that is `wanted`, and its position in the order of the data.
    pub fn find(&self, wanted: impl Fn(f64) -> bool) -> Option<(usize, f64)> {
        with_element!(
            self.elem,
            E => {
                let numbers = self.data.chunks_exact(size_of::<E>()).map(|bytes| E::read(bytes).number());
                numbers.enumerate().find(|(_, number)| wanted(*number))
            },
            None
        )
    }

    /// The tensor of these bytes in the other order, element by element: of big-endian bytes.
    pub(crate) fn swap_bytes(self) -> Self {
        let mut data = Vec::from(self.data);
        data.chunks_exact_mut(with_element!(self.elem, E => size_of::<E>(), 1)).for_each(<[u8]>::reverse);
        Self { data: data.into(), ..self }
    }

    /// The same elements with other axes, if there are as many.
    pub(crate) fn reshaped(self, shape: Vec<usize>) -> Result<Self, String> {
        Self::new(self.elem, shape, self.data)
    }

    /// The tensor of these rows: positions along the first axis, each below its size.
    pub fn rows(&self, rows: &[usize]) -> Self {
        let stride = self.data.len() / self.shape.first().copied().unwrap_or(1).max(1);
        let mut data = Vec::with_capacity(rows.len() * stride);
        for &row in rows {
            data.extend_from_slice(&self.data[row * stride..(row + 1) * stride]);
        }
        let shape = std::iter::once(rows.len()).chain(self.shape.iter().skip(1).copied()).collect();
        Self { elem: self.elem, shape, data: data.into() }
    }
}
