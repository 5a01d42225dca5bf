//! ONNX Runtime's own `Gemm`, called from within a kernel: its code for this device, on the session's threads or the run's
//! stream, in the precision that the user chose.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::ptr;

use ort::sys::{self, ONNXTensorElementDataType as Type};

use super::Error;
use super::api::Api;
use super::context::Context;
use super::info::KernelInfo;

/// The opset of which `Gemm` is used. Every runtime from 1.17 on has it.
const GEMM_VERSION: i32 = 13;

/// Which operands of a `Gemm` are stored transposed, and what their product is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Form {
    pub(super) trans_a: bool,
    pub(super) trans_b: bool,
    pub(super) alpha: f32,
}

/// `Gemm` of one element type and form, on the provider of the node that it was made for.
pub(super) struct Gemm {
    api: Api,
    element: Type,
    operator: *mut sys::OrtOp,
}

// SAFETY: an operator is a stateless kernel, which the runtime itself calls from several threads at once.
unsafe impl Send for Gemm {}
// SAFETY: as above.
unsafe impl Sync for Gemm {}

/// A row-major matrix in memory that the provider reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    pub(super) data: *mut c_void,
    pub(super) shape: [usize; 2],
}

impl Gemm {
    pub(super) fn new(info: &KernelInfo<'_>, element: Type, form: Form) -> Result<Self, Error> {
        let api = info.api();
        // The runtime applies no defaults here: whatever attribute `Gemm` reads has to be given.
        let attributes = [
            Attribute::int(api, c"transA", form.trans_a.into())?,
            Attribute::int(api, c"transB", form.trans_b.into())?,
            Attribute::float(api, c"alpha", form.alpha)?,
            Attribute::float(api, c"beta", 1.0)?,
        ];
        let attributes = attributes.each_ref().map(|attribute| attribute.raw.cast_const());
        let mut type_names = [c"T".as_ptr()];
        let operator = api.create("Gemm", |out| {
            // SAFETY: `info` is valid, all arrays have the lengths given, and names are terminated.
            unsafe {
                (api.functions().CreateOp)(
                    info.as_ptr(),
                    c"Gemm".as_ptr(),
                    c"".as_ptr(),
                    GEMM_VERSION,
                    type_names.as_mut_ptr(),
                    &element,
                    1,
                    attributes.as_ptr(),
                    attributes.len() as i32,
                    3,
                    1,
                    out,
                )
            }
        })?;
        Ok(Self { api, element, operator })
    }

    /// Writes the product of `a` and `b`, and what is added to that.
    ///
    /// # Safety
    /// The matrices must be in the memory that `memory` describes, have elements of this type, be valid until the
    /// provider has computed the product, and `out` must not be read or written by anybody else until then.
    pub(super) unsafe fn multiply(
        &self,
        context: &Context<'_>,
        memory: *const sys::OrtMemoryInfo,
        [a, b]: [Operand; 2],
        addend: Option<Operand>,
        out: Operand,
    ) -> Result<(), Error> {
        // SAFETY: the buffers are valid, by this function's contract.
        let value = |operand| unsafe { Value::new(self.api, memory, self.element, operand) };
        let (a, b, out) = (value(a)?, value(b)?, value(out)?);
        let addend = addend.map(value).transpose()?;
        let raw = |value: &Value| value.raw.cast_const();
        // Null is an input that is left out.
        let inputs = [raw(&a), raw(&b), addend.as_ref().map_or(ptr::null(), raw)];
        // SAFETY: context and operator belong to this runtime, and the values live until the end of this function.
        self.api.check(unsafe {
            let invoke = self.api.functions().InvokeOp;
            invoke(context.as_ptr(), self.operator, inputs.as_ptr(), 3, &out.raw, 1)
        })
    }
}

impl Drop for Gemm {
    fn drop(&mut self) {
        // SAFETY: the operator was created by this runtime and is released once.
        unsafe { (self.api.functions().ReleaseOp)(self.operator) };
    }
}

/// A buffer of ours as a tensor of the runtime, which doesn't own it.
struct Value {
    api: Api,
    raw: *mut sys::OrtValue,
}

impl Value {
    /// # Safety
    /// `memory` must be valid, and describe the memory of a matrix of this type that outlives the value.
    unsafe fn new(
        api: Api,
        memory: *const sys::OrtMemoryInfo,
        element: Type,
        Operand { data, shape }: Operand,
    ) -> Result<Self, Error> {
        let bytes = shape[0] * shape[1] * width(element);
        let dimensions = shape.map(|size| size as i64);
        let raw = api.create("tensor", |out| {
            // SAFETY: the buffer is valid by this function's contract; shape and description are live.
            unsafe {
                let create = api.functions().CreateTensorWithDataAsOrtValue;
                create(memory, data, bytes, dimensions.as_ptr(), 2, element, out)
            }
        })?;
        Ok(Self { api, raw })
    }
}

/// Bytes of an element of the types that the operator has.
fn width(element: Type) -> usize {
    match element {
        Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE => 8,
        Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT => 4,
        _ => 2,
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: created by this runtime, released once; the buffer is not the runtime's.
        unsafe { (self.api.functions().ReleaseValue)(self.raw) };
    }
}

/// An attribute for an operator to be created.
struct Attribute {
    api: Api,
    raw: *mut sys::OrtOpAttr,
}

impl Attribute {
    fn int(api: Api, name: &CStr, value: i64) -> Result<Self, Error> {
        // SAFETY: the value is one integer.
        unsafe { Self::new(api, name, (&raw const value).cast(), sys::OrtOpAttrType::ORT_OP_ATTR_INT) }
    }

    fn float(api: Api, name: &CStr, value: f32) -> Result<Self, Error> {
        // SAFETY: the value is one float.
        unsafe { Self::new(api, name, (&raw const value).cast(), sys::OrtOpAttrType::ORT_OP_ATTR_FLOAT) }
    }

    /// # Safety
    /// `value` must point to one value of the given type.
    unsafe fn new(
        api: Api,
        name: &CStr,
        value: *const std::ffi::c_void,
        kind: sys::OrtOpAttrType,
    ) -> Result<Self, Error> {
        let raw = api.create("attribute", |out| {
            // SAFETY: the value is valid by this function's contract, and copied by the call.
            unsafe { (api.functions().CreateOpAttr)(name.as_ptr(), value, 1, kind, out) }
        })?;
        Ok(Self { api, raw })
    }
}

impl Drop for Attribute {
    fn drop(&mut self) {
        // SAFETY: created by this runtime, released once; operators have copied it.
        unsafe { (self.api.functions().ReleaseOpAttr)(self.raw) };
    }
}
