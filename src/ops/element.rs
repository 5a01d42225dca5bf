//! The tensor element types that the operator takes, and the type each is computed in.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ort::sys::ONNXTensorElementDataType as Type;

use crate::curvature::Scalar;

/// A tensor element type of the operator.
pub trait Element: Copy + Send + Sync + 'static {
    /// What ONNX Runtime calls it.
    const TYPE: Type;

    /// What it is computed in.
    type Compute: Scalar + Element;

    /// The tensor in the type it is computed in; `buffer` is only used if that is another one.
    fn widen<'a>(tensor: &'a [Self], buffer: &'a mut Vec<Self::Compute>) -> &'a [Self::Compute];

    /// Lets `compute` fill the tensor in the type it is computed in; `buffer` as in [`Self::widen`].
    fn fill<E>(
        tensor: &mut [Self],
        buffer: &mut Vec<Self::Compute>,
        compute: impl FnOnce(&mut [Self::Compute]) -> Result<(), E>,
    ) -> Result<(), E>;
}

macro_rules! computed_as_it_is {
    ($float:ty, $name:ident) => {
        impl Element for $float {
            const TYPE: Type = Type::$name;
            type Compute = Self;

            fn widen<'a>(tensor: &'a [Self], _: &'a mut Vec<Self>) -> &'a [Self] {
                tensor
            }

            fn fill<E>(
                tensor: &mut [Self],
                _: &mut Vec<Self>,
                compute: impl FnOnce(&mut [Self]) -> Result<(), E>,
            ) -> Result<(), E> {
                compute(tensor)
            }
        }
    };
}

macro_rules! computed_in_single {
    ($half:ty, $name:ident) => {
        impl Element for $half {
            const TYPE: Type = Type::$name;
            type Compute = f32;

            fn widen<'a>(tensor: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32] {
                buffer.resize(tensor.len(), 0.0);
                tensor.convert_to_f32_slice(buffer);
                buffer
            }

            fn fill<E>(
                tensor: &mut [Self],
                buffer: &mut Vec<f32>,
                compute: impl FnOnce(&mut [f32]) -> Result<(), E>,
            ) -> Result<(), E> {
                buffer.resize(tensor.len(), 0.0);
                compute(buffer)?;
                tensor.convert_from_f32_slice(buffer);
                Ok(())
            }
        }
    };
}

computed_as_it_is!(f32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
computed_as_it_is!(f64, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE);
computed_in_single!(f16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
computed_in_single!(bf16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_through_single_and_back() {
        let (mut single, mut wide) = (Vec::new(), Vec::new());
        let tensor = [1.0, -0.5, 65504.0, 6e-8].map(f16::from_f32);
        assert_eq!(f16::widen(&tensor, &mut single)[..3], [1.0, -0.5, 65504.0]);
        let mut out = [f16::ZERO; 3];
        let filled = f16::fill(&mut out, &mut wide, |out| {
            out.copy_from_slice(&[2.0, f32::NAN, 1e6]);
            Ok::<(), ()>(())
        });
        assert_eq!(filled, Ok(()));
        assert!(out[0] == f16::from_f32(2.0) && out[1].is_nan() && out[2] == f16::INFINITY);
    }
}
