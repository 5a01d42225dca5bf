//! libcuda: what the operator asks the driver for. Kernels are run by the interpreter of PTX.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::slice;

use crate::entry::{
    CAPTURE_UNSUPPORTED, INVALID_PTX, INVALID_VALUE, LAUNCH_FAILED, NOT_FOUND, NOT_READY, NOT_SUPPORTED, OUT_OF_MEMORY,
    Status,
};
use crate::memory::{self, Kind};
use crate::ptx::{Kernel, Launch, Memory, Module, Order};
use crate::stream::{self, Event, submit};

/// Set: streams say that they are being captured, and no event may be used. Work is done all the same.
const CAPTURE: &str = "ISAAC_STANDIN_CAPTURE";

fn is_capturing() -> bool {
    std::env::var_os(CAPTURE).is_some()
}

fn not_capturing() -> Result<(), Status> {
    if is_capturing() { Err(CAPTURE_UNSUPPORTED) } else { Ok(()) }
}

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
    fn cuCtxSynchronize() {
        not_capturing()?;
        stream::synchronize_all()?;
    }
    fn cuStreamIsCapturing(stream: *mut c_void, status: *mut c_int) {
        stream::of(stream)?;
        *status = is_capturing().into();
    }
    fn cuStreamWaitEvent(stream: *mut c_void, event: *const Event, _flags: c_uint) {
        not_capturing()?;
        (*event).hold(stream)?;
    }
    fn cuEventCreate(event: *mut *mut Event, _flags: c_uint) {
        *event = Box::into_raw(Box::default());
    }
    fn cuEventDestroy_v2(event: *mut Event) {
        drop(Box::from_raw(event));
    }
    fn cuEventRecord(event: *mut Event, stream: *mut c_void) {
        not_capturing()?;
        *event = Event::record(stream)?;
    }
    fn cuEventQuery(event: *const Event) {
        not_capturing()?;
        if !(*event).is_over() {
            return Err(NOT_READY);
        }
    }
    fn cuEventSynchronize(event: *const Event) {
        not_capturing()?;
        (*event).wait()?;
    }
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
    fn cuMemcpyDtoDAsync_v2(to: usize, from: usize, size: usize, stream: *mut c_void) {
        // SAFETY: the caller vouches for the memory.
        submit(stream, Box::new(move || { unsafe { memory::copy(to, from, size) }; Ok(()) }))?;
    }
    fn cuModuleLoadData(module: *mut *const Module, image: *const c_char) {
        let text = CStr::from_ptr(image).to_str().map_err(|_| INVALID_PTX)?;
        let parsed = Module::parse(text).map_err(|what| said(&what, INVALID_PTX))?;
        *module = Box::leak(Box::new(parsed));
    }
    fn cuModuleGetFunction(function: *mut *const Kernel, module: *const Module, name: *const c_char) {
        let name = CStr::from_ptr(name).to_str().map_err(|_| NOT_FOUND)?;
        *function = (*module).kernel(name).ok_or(NOT_FOUND)?;
    }
    fn cuLaunchKernel(
        function: *const Kernel,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint, stream: *mut c_void, parameters: *const *const u8, extra: *const c_void,
    ) {
        if !extra.is_null() {
            return Err(NOT_SUPPORTED);
        }
        // Modules are never unloaded.
        let kernel: &'static Kernel = function.as_ref().ok_or(INVALID_VALUE)?;
        let bytes_of = |(index, size)| slice::from_raw_parts(*parameters.add(index), size).to_vec();
        let sizes = kernel.parameters().iter().map(|parameter| parameter.size);
        let values: Vec<Vec<u8>> = sizes.enumerate().map(bytes_of).collect();
        let launch = Launch {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared_bytes: shared_bytes as usize,
            parameters: kernel.pack(&values),
            order: Order::Shuffled,
        };
        submit(stream, Box::new(move || {
            let done = kernel.launch(&launch, &Blocks);
            done.map(drop).map_err(|fault| said(&fault.to_string(), LAUNCH_FAILED))
        }))?;
    }
}

/// What `memory` has allocated.
struct Blocks;

impl Memory for Blocks {
    fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        memory::block_of(address as usize, 1).map(|(start, length, _)| (start as u64, length as u64))
    }
}

/// The status, after what led to it was printed: a status says little.
fn said(what: &str, status: Status) -> Status {
    eprintln!("stand-in for libcuda: {what}");
    status
}

fn describe(status: Status) -> (&'static CStr, &'static CStr) {
    match status {
        OUT_OF_MEMORY => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        LAUNCH_FAILED => (c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
        NOT_SUPPORTED => (c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
        INVALID_PTX => (c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
        NOT_FOUND => (c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
        NOT_READY => (c"CUDA_ERROR_NOT_READY", c"device not ready"),
        CAPTURE_UNSUPPORTED => {
            (c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", c"operation not permitted when stream is capturing")
        }
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
