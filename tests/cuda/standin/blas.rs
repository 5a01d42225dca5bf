//! libcublas: the matrix product, in double precision.

use std::ffi::{c_char, c_int, c_void};

use half::{bf16, f16};

use crate::entry::{NOT_SUPPORTED, Status};
use crate::stream::{self, submit};

/// `cudaDataType` and `cublasComputeType_t`.
const R_32F: c_int = 0;
const R_64F: c_int = 1;
const R_16F: c_int = 2;
const R_16BF: c_int = 14;
const COMPUTE_16F: c_int = 64;

/// What a `cublasHandle_t` points to.
struct Handle {
    stream: *mut c_void,
}

/// A matrix stored by columns, perhaps transposed.
#[derive(Clone, Copy)]
struct Operand {
    address: usize,
    element: c_int,
    stride: usize,
    transposed: bool,
}

impl Operand {
    fn offset(self, row: usize, col: usize) -> usize {
        if self.transposed { col + row * self.stride } else { row + col * self.stride }
    }

    /// # Safety
    /// The matrix must be valid, and have this element.
    unsafe fn get(self, row: usize, col: usize) -> f64 {
        // SAFETY: by this function's contract.
        unsafe { read(self.address, self.element, self.offset(row, col)) }
    }

    /// # Safety
    /// As [`Self::get`], and nobody else may use the matrix.
    unsafe fn set(self, row: usize, col: usize, value: f64) {
        let offset = self.offset(row, col);
        // SAFETY: by this function's contract.
        unsafe {
            match self.element {
                R_32F => at::<f32>(self.address, offset).write(value as f32),
                R_64F => at::<f64>(self.address, offset).write(value),
                R_16F => at::<f16>(self.address, offset).write(f16::from_f64(value)),
                _ => at::<bf16>(self.address, offset).write(bf16::from_f64(value)),
            }
        }
    }
}

fn at<T>(address: usize, offset: usize) -> *mut T {
    std::ptr::with_exposed_provenance_mut::<T>(address).wrapping_add(offset)
}

/// # Safety
/// There must be such an element.
unsafe fn read(address: usize, element: c_int, offset: usize) -> f64 {
    // SAFETY: by this function's contract.
    unsafe {
        match element {
            R_32F => at::<f32>(address, offset).read().into(),
            R_64F => at::<f64>(address, offset).read(),
            R_16F => at::<f16>(address, offset).read().into(),
            _ => at::<bf16>(address, offset).read().into(),
        }
    }
}

/// A product: C = alpha A B + beta C, with A m×k and B k×n.
struct Product {
    sizes: [usize; 3],
    alpha: f64,
    beta: f64,
    a: Operand,
    b: Operand,
    c: Operand,
}

impl Product {
    /// # Safety
    /// The matrices must be valid, and the result nobody else's.
    unsafe fn compute(&self) {
        let [m, n, k] = self.sizes;
        for col in 0..n {
            for row in 0..m {
                // SAFETY: by this function's contract.
                unsafe {
                    let sum: f64 = (0..k).map(|inner| self.a.get(row, inner) * self.b.get(inner, col)).sum();
                    let before = if self.beta == 0.0 { 0.0 } else { self.beta * self.c.get(row, col) };
                    self.c.set(row, col, self.alpha * sum + before);
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::compute`], until the stream has done it.
    unsafe fn submit(self, handle: *const Handle) -> Result<(), Status> {
        let known = [R_32F, R_64F, R_16F, R_16BF];
        if ![self.a, self.b, self.c].iter().all(|operand| known.contains(&operand.element)) {
            return Err(NOT_SUPPORTED);
        }
        // SAFETY: a handle is valid; the rest is this function's contract.
        unsafe {
            submit(
                (*handle).stream,
                Box::new(move || {
                    self.compute();
                    Ok(())
                }),
            )
        }
    }
}

exported! {
    fn cublasCreate_v2(handle: *mut *mut Handle) {
        *handle = Box::into_raw(Box::new(Handle { stream: std::ptr::null_mut() }));
    }
    fn cublasDestroy_v2(handle: *mut Handle) {
        drop(Box::from_raw(handle));
    }
    fn cublasSetStream_v2(handle: *mut Handle, stream: *mut c_void) {
        stream::of(stream)?;
        (*handle).stream = stream;
    }
    fn cublasSetMathMode() {}
    fn cublasGetMathMode(_handle: *mut Handle, mode: *mut c_int) {
        *mode = 0;
    }
    fn cublasSgemm_v2(handle: *mut Handle, trans_a: c_int, trans_b: c_int, m: c_int, n: c_int, k: c_int,
        alpha: *const f32, a: usize, lda: c_int, b: usize, ldb: c_int, beta: *const f32, c: usize, ldc: c_int) {
        let operand = |address, stride, transposed: c_int| Operand {
            address, element: R_32F, stride: stride as usize, transposed: transposed != 0,
        };
        Product {
            sizes: [m, n, k].map(|size| size as usize),
            alpha: (*alpha).into(),
            beta: (*beta).into(),
            a: operand(a, lda, trans_a),
            b: operand(b, ldb, trans_b),
            c: operand(c, ldc, 0),
        }.submit(handle)?;
    }
    fn cublasGemmEx(handle: *mut Handle, trans_a: c_int, trans_b: c_int, m: c_int, n: c_int, k: c_int,
        alpha: usize, a: usize, type_a: c_int, lda: c_int, b: usize, type_b: c_int, ldb: c_int,
        beta: usize, c: usize, type_c: c_int, ldc: c_int, compute: c_int, _algorithm: c_int) {
        let operand = |address, element, stride, transposed: c_int| Operand {
            address, element, stride: stride as usize, transposed: transposed != 0,
        };
        let scalar = if compute == COMPUTE_16F { R_16F } else { R_32F };
        Product {
            sizes: [m, n, k].map(|size| size as usize),
            alpha: read(alpha, scalar, 0),
            beta: read(beta, scalar, 0),
            a: operand(a, type_a, lda, trans_a),
            b: operand(b, type_b, ldb, trans_b),
            c: operand(c, type_c, ldc, 0),
        }.submit(handle)?;
    }
    fn cublasLtCreate(handle: *mut *mut Handle) {
        *handle = Box::into_raw(Box::new(Handle { stream: std::ptr::null_mut() }));
    }
    fn cublasLtDestroy(handle: *mut Handle) {
        drop(Box::from_raw(handle));
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasGetStatusName(_status: Status) -> *const c_char {
    c"CUBLAS_STATUS_STAND_IN".as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasGetStatusString(_status: Status) -> *const c_char {
    c"error of the stand-in".as_ptr()
}
