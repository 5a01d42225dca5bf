//! ONNX Runtime's own `Gemm`, called from within a kernel: its code for this processor, on the session's threads.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use ort::sys;

use super::Error;
use super::api::Api;
use super::context::Context;
use super::element::Element;
use super::info::KernelInfo;
use crate::curvature::{Matrix, ProductError, Products};

/// The opset of which `Gemm` is used. Every runtime from 1.17 on has it.
const GEMM_VERSION: i32 = 13;

/// `Gemm` of one element type, for each combination of transposed operands.
struct Gemm {
    api: Api,
    /// Indexed by transA + 2 transB.
    operators: [*mut sys::OrtOp; 4],
}

// SAFETY: an operator is a stateless kernel, which the runtime itself calls from several threads at once.
unsafe impl Send for Gemm {}
// SAFETY: as above.
unsafe impl Sync for Gemm {}

impl Gemm {
    fn new<E: Element>(info: &KernelInfo<'_>) -> Result<Self, Error> {
        let api = info.api();
        // The runtime applies no defaults here: whatever attribute `Gemm` reads has to be given.
        let mut gemm = Self { api, operators: [ptr::null_mut(); 4] };
        for (index, operator) in gemm.operators.iter_mut().enumerate() {
            let (trans_a, trans_b) = ((index & 1) as i64, (index >> 1) as i64);
            let attributes = [
                Attribute::int(api, c"transA", trans_a)?,
                Attribute::int(api, c"transB", trans_b)?,
                Attribute::float(api, c"alpha", 1.0)?,
                Attribute::float(api, c"beta", 0.0)?,
            ];
            let attributes = attributes.each_ref().map(|attribute| attribute.raw.cast_const());
            let mut type_names = [c"T".as_ptr()];
            *operator = api.create("Gemm", |out| {
                // SAFETY: `info` is valid, all arrays have the lengths given, and names are terminated.
                unsafe {
                    (api.functions().CreateOp)(
                        info.as_ptr(),
                        c"Gemm".as_ptr(),
                        c"".as_ptr(),
                        GEMM_VERSION,
                        type_names.as_mut_ptr(),
                        &E::TYPE,
                        1,
                        attributes.as_ptr(),
                        attributes.len() as i32,
                        2,
                        1,
                        out,
                    )
                }
            })?;
        }
        Ok(gemm)
    }

    fn multiply<E: Element>(
        &self,
        context: &Context<'_>,
        memory: &CpuMemory,
        a: Matrix<'_, E>,
        b: Matrix<'_, E>,
        out: &mut [E],
    ) -> Result<(), Error> {
        assert_eq!(out.len(), a.rows() * b.cols(), "the size of a product");
        assert_eq!(a.cols(), b.rows(), "the inner sizes of a product");
        let operator = self.operators[usize::from(a.is_transposed()) + 2 * usize::from(b.is_transposed())];
        // SAFETY: the operands are only read, although the call that wraps them takes a mutable pointer.
        let operands = unsafe {
            [
                Value::new::<E>(self.api, memory, a.data().as_ptr().cast_mut(), a.stored_shape())?,
                Value::new::<E>(self.api, memory, b.data().as_ptr().cast_mut(), b.stored_shape())?,
            ]
        };
        // SAFETY: `out` has as many elements as the shape says, and is borrowed mutably until the call is over.
        let output = unsafe { Value::new::<E>(self.api, memory, out.as_mut_ptr(), [a.rows(), b.cols()])? };
        let inputs = operands.each_ref().map(|value| value.raw.cast_const());
        // SAFETY: context and operator belong to this runtime, and the values live until the end of this function.
        self.api.check(unsafe {
            let invoke = self.api.functions().InvokeOp;
            invoke(context.as_ptr(), operator, inputs.as_ptr(), 2, &output.raw, 1)
        })
    }
}

impl Drop for Gemm {
    fn drop(&mut self) {
        for operator in self.operators.into_iter().filter(|operator| !operator.is_null()) {
            // SAFETY: the operator was created by this runtime and is released once.
            unsafe { (self.api.functions().ReleaseOp)(operator) };
        }
    }
}

/// The products a kernel may need: in single for its tensors, in double for what single is too coarse for.
pub(super) struct Kernels {
    single: Gemm,
    double: Gemm,
    memory: CpuMemory,
}

impl Kernels {
    pub(super) fn new(info: &KernelInfo<'_>) -> Result<Self, Error> {
        let memory = CpuMemory::new(info.api())?;
        Ok(Self { single: Gemm::new::<f32>(info)?, double: Gemm::new::<f64>(info)?, memory })
    }

    /// The products for one call.
    pub(super) fn during<'a>(&'a self, context: Context<'a>) -> RuntimeProducts<'a> {
        RuntimeProducts { kernels: self, context }
    }
}

/// [`Products`] on the runtime's kernels and threads.
pub(super) struct RuntimeProducts<'a> {
    kernels: &'a Kernels,
    context: Context<'a>,
}

impl Products<f32> for RuntimeProducts<'_> {
    fn multiply(&mut self, a: Matrix<'_, f32>, b: Matrix<'_, f32>, out: &mut [f32]) -> Result<(), ProductError> {
        let Kernels { single, memory, .. } = self.kernels;
        single.multiply(&self.context, memory, a, b, out).map_err(|error| ProductError(error.to_string()))
    }
}

impl Products<f64> for RuntimeProducts<'_> {
    fn multiply(&mut self, a: Matrix<'_, f64>, b: Matrix<'_, f64>, out: &mut [f64]) -> Result<(), ProductError> {
        let Kernels { double, memory, .. } = self.kernels;
        double.multiply(&self.context, memory, a, b, out).map_err(|error| ProductError(error.to_string()))
    }
}

/// Says to the runtime that a buffer is in main memory.
struct CpuMemory {
    api: Api,
    raw: *mut sys::OrtMemoryInfo,
}

// SAFETY: the description is never changed after it was created.
unsafe impl Send for CpuMemory {}
// SAFETY: as above.
unsafe impl Sync for CpuMemory {}

impl CpuMemory {
    fn new(api: Api) -> Result<Self, Error> {
        let (allocator, kind) = (sys::OrtAllocatorType::OrtDeviceAllocator, sys::OrtMemType::OrtMemTypeDefault);
        let raw = api.create("memory description", |out| {
            // SAFETY: the out-pointer is to a live variable.
            unsafe { (api.functions().CreateCpuMemoryInfo)(allocator, kind, out) }
        })?;
        Ok(Self { api, raw })
    }
}

impl Drop for CpuMemory {
    fn drop(&mut self) {
        // SAFETY: created by this runtime, released once.
        unsafe { (self.api.functions().ReleaseMemoryInfo)(self.raw) };
    }
}

/// A buffer of ours as a tensor of the runtime, which doesn't own it.
struct Value {
    api: Api,
    raw: *mut sys::OrtValue,
}

impl Value {
    /// # Safety
    /// `data` must point to as many elements as `shape` says and outlive the value; whoever writes to the value must
    /// be allowed to write to them.
    unsafe fn new<E: Element>(api: Api, memory: &CpuMemory, data: *mut E, shape: [usize; 2]) -> Result<Self, Error> {
        let bytes = shape[0] * shape[1] * size_of::<E>();
        let dimensions = shape.map(|size| size as i64);
        let raw = api.create("tensor", |out| {
            // SAFETY: the buffer is valid by this function's contract; shape and description are live.
            unsafe {
                let create = api.functions().CreateTensorWithDataAsOrtValue;
                create(memory.raw, data.cast(), bytes, dimensions.as_ptr(), 2, E::TYPE, out)
            }
        })?;
        Ok(Self { api, raw })
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
