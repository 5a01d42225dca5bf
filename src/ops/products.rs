//! The dense products and the threads of a kernel on the CPU: ONNX Runtime's own.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::LazyLock;

use ort::sys;

use super::Error;
use super::api::Api;
use super::context::Context;
use super::element::Element;
use super::gemm::{Form, Gemm, Operand};
use super::info::KernelInfo;
use crate::curvature::{Matrix, ProductError, Products, Scalar, Threads};

/// Those that this process may use: how many threads the session has, the runtime does not say.
static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// `Gemm` of one element type, for each combination of transposed operands.
pub(super) struct Kernels<T> {
    /// Indexed by transA + 2 transB.
    gemms: [Gemm; 4],
    memory: CpuMemory,
    element: PhantomData<T>,
}

impl<T: Element> Kernels<T> {
    pub(super) fn new(info: &KernelInfo<'_>) -> Result<Self, Error> {
        let gemm = |trans_a, trans_b| Gemm::new(info, T::TYPE, Form { trans_a, trans_b, alpha: 1.0 });
        Ok(Self {
            gemms: [gemm(false, false)?, gemm(true, false)?, gemm(false, true)?, gemm(true, true)?],
            memory: CpuMemory::new(info.api())?,
            element: PhantomData,
        })
    }

    /// The products for one call.
    pub(super) fn during<'a>(&'a self, context: Context<'a>) -> RuntimeProducts<'a, T> {
        RuntimeProducts { kernels: self, context }
    }
}

/// [`Products`] on the runtime's kernels and threads.
pub(super) struct RuntimeProducts<'a, T> {
    kernels: &'a Kernels<T>,
    context: Context<'a>,
}

impl<T> Threads for RuntimeProducts<'_, T> {
    fn most(&self) -> usize {
        *CORES
    }

    fn for_each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), ProductError> {
        self.context.for_each(count, task).map_err(|error| ProductError(error.to_string()))
    }
}

impl<T: Element + Scalar> Products<T> for RuntimeProducts<'_, T> {
    fn multiply(
        &mut self,
        a: Matrix<'_, T>,
        b: Matrix<'_, T>,
        addend: Option<&[T]>,
        out: &mut [T],
    ) -> Result<(), ProductError> {
        assert_eq!(out.len(), a.rows() * b.cols(), "the size of a product");
        assert!(addend.is_none_or(|addend| addend.len() == out.len()), "the size of what is added");
        assert_eq!(a.cols(), b.rows(), "the inner sizes of a product");
        let Kernels { gemms, memory, .. } = self.kernels;
        let gemm = &gemms[usize::from(a.is_transposed()) + 2 * usize::from(b.is_transposed())];
        // What is only read has a mutable pointer too.
        let operand = |data: &[T], shape| Operand { data: data.as_ptr().cast_mut().cast(), shape };
        let shape = [a.rows(), b.cols()];
        let operands = [a, b].map(|matrix| operand(matrix.data(), matrix.stored_shape()));
        let addend = addend.map(|addend| operand(addend, shape));
        let out = Operand { data: out.as_mut_ptr().cast(), shape };
        // SAFETY: the matrices have elements of this type and are borrowed until the call is over, `out` mutably; on the
        // CPU the product is computed by then.
        let multiplied = unsafe { gemm.multiply(&self.context, memory.raw, operands, addend, out) };
        multiplied.map_err(|error| ProductError(error.to_string()))
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
