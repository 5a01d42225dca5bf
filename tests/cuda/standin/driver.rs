//! libcuda: what the operator asks the driver for. There is no function that waits for the device: the operator has none to call.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::entry::{LAUNCH_FAILED, NOT_SUPPORTED, OUT_OF_MEMORY, Status};
use crate::memory::{self, Kind};
use crate::stream::submit;

/// `CUdevice_attribute`, and `cudaDeviceAttr` with the same numbers.
const MULTIPROCESSOR_COUNT: c_int = 16;
const CAPABILITY_MAJOR: c_int = 75;

/// An attribute of the only device.
pub(crate) fn attribute(attribute: c_int) -> c_int {
    match attribute {
        MULTIPROCESSOR_COUNT => 4,
        CAPABILITY_MAJOR => 8,
        _ => 0,
    }
}

exported! {
    fn cuInit(_flags: c_uint) {}
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        *device = ordinal;
    }
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
        *value = self::attribute(attribute);
    }
    fn cuDevicePrimaryCtxRetain(context: *mut *const c_char, _device: c_int) {
        *context = c"the only context".as_ptr();
    }
    fn cuCtxSetCurrent(_context: *const c_char) {}
    fn cuMemHostAlloc(address: *mut usize, size: usize, _flags: c_uint) {
        *address = memory::allocate(size, Kind::Pinned)?;
    }
    fn cuMemHostGetDevicePointer_v2(device: *mut usize, host: usize, _flags: c_uint) {
        *device = host;
    }
    fn cuMemFreeHost(address: usize) {
        memory::free(address, Kind::Pinned)?;
    }
    fn cuMemsetD8Async(at: usize, value: u8, size: usize, stream: *mut c_void) {
        // SAFETY: the caller vouches for the memory.
        submit(stream, Box::new(move || { unsafe { memory::fill(at, value, size) }; Ok(()) }))?;
    }
    fn cuModuleLoadData(module: *mut *const c_void, _image: *const c_char) {
        *module = std::ptr::null();
    }
    fn cuModuleGetFunction(function: *mut *const c_void, _module: *const c_void, _name: *const c_char) {
        *function = std::ptr::null();
    }
    fn cuLaunchKernel() {
        return Err(NOT_SUPPORTED);
    }
}

fn describe(status: Status) -> (&'static CStr, &'static CStr) {
    match status {
        OUT_OF_MEMORY => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        LAUNCH_FAILED => (c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
        NOT_SUPPORTED => (c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
        _ => (c"CUDA_ERROR_UNKNOWN", c"unknown error"),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(status: Status, name: *mut *const c_char) -> Status {
    // SAFETY: the caller passes a place for the name.
    unsafe { *name = describe(status).0.as_ptr() };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(status: Status, text: *mut *const c_char) -> Status {
    // SAFETY: the caller passes a place for the text.
    unsafe { *text = describe(status).1.as_ptr() };
    0
}
