//! The dense products of a kernel on the CPU, by ONNX Runtime's own [`Gemm`].
#![allow(unsafe_code)]

use ort::sys::{self, ONNXTensorElementDataType as Type};

use super::Error;
use super::api::Api;
use super::context::Context;
use super::element::Element;
use super::gemm::{Form, Gemm, Operand};
use super::info::KernelInfo;
use crate::curvature::{Matrix, ProductError, Products};

/// The products a kernel may need: in single for its tensors, in double for what single is too coarse for.
pub(super) struct Kernels {
    single: AnyForm,
    double: AnyForm,
    memory: CpuMemory,
}

impl Kernels {
    pub(super) fn new(info: &KernelInfo<'_>) -> Result<Self, Error> {
        let memory = CpuMemory::new(info.api())?;
        Ok(Self { single: AnyForm::new(info, f32::TYPE)?, double: AnyForm::new(info, f64::TYPE)?, memory })
    }

    /// The products for one call.
    pub(super) fn during<'a>(&'a self, context: Context<'a>) -> RuntimeProducts<'a> {
        RuntimeProducts { kernels: self, context }
    }
}

/// `Gemm` for each combination of transposed operands, indexed by transA + 2 transB.
struct AnyForm([Gemm; 4]);

impl AnyForm {
    fn new(info: &KernelInfo<'_>, element: Type) -> Result<Self, Error> {
        let gemm = |trans_a, trans_b| Gemm::new(info, element, Form { trans_a, trans_b, alpha: 1.0 });
        Ok(Self([gemm(false, false)?, gemm(true, false)?, gemm(false, true)?, gemm(true, true)?]))
    }

    fn multiply<E: Element>(
        &self,
        context: &Context<'_>,
        memory: &CpuMemory,
        a: Matrix<'_, E>,
        b: Matrix<'_, E>,
        out: &mut [E],
    ) -> Result<(), ProductError> {
        assert_eq!(out.len(), a.rows() * b.cols(), "the size of a product");
        assert_eq!(a.cols(), b.rows(), "the inner sizes of a product");
        let gemm = &self.0[usize::from(a.is_transposed()) + 2 * usize::from(b.is_transposed())];
        // The operands are only read, although an operand has a mutable pointer.
        let operands = [a, b]
            .map(|matrix| Operand { data: matrix.data().as_ptr().cast_mut().cast(), shape: matrix.stored_shape() });
        let out = Operand { data: out.as_mut_ptr().cast(), shape: [a.rows(), b.cols()] };
        // SAFETY: the matrices have elements of this type and are borrowed until the call is over, `out` mutably; on the
        // CPU the product is computed by then.
        let multiplied = unsafe { gemm.multiply(context, memory.raw, operands, out) };
        multiplied.map_err(|error| ProductError(error.to_string()))
    }
}

/// [`Products`] on the runtime's kernels and threads.
pub(super) struct RuntimeProducts<'a> {
    kernels: &'a Kernels,
    context: Context<'a>,
}

impl Products<f32> for RuntimeProducts<'_> {
    fn multiply(&mut self, a: Matrix<'_, f32>, b: Matrix<'_, f32>, out: &mut [f32]) -> Result<(), ProductError> {
        self.kernels.single.multiply(&self.context, &self.kernels.memory, a, b, out)
    }
}

impl Products<f64> for RuntimeProducts<'_> {
    fn multiply(&mut self, a: Matrix<'_, f64>, b: Matrix<'_, f64>, out: &mut [f64]) -> Result<(), ProductError> {
        self.kernels.double.multiply(&self.context, &self.kernels.memory, a, b, out)
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
