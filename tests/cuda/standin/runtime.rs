//! libcudart: memory, streams, events, and one device.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::entry::{INVALID_VALUE, NOT_SUPPORTED, Status};
use crate::memory::{self, Kind};
use crate::stream::{self, submit};

/// Version 13.0, as the runtime counts.
const VERSION: c_int = 13_000;

/// Size of `cudaDeviceProp` in CUDA 13, and where in it the numbers are that the provider looks at.
const PROPERTIES: usize = 1008;
const TOTAL_MEMORY: usize = 288;
const SHARED_PER_BLOCK: usize = 296;
const WARP_SIZE: usize = 308;
const THREADS_PER_BLOCK: usize = 320;
const CAPABILITY: usize = 360;
const MULTIPROCESSORS: usize = 384;

/// Bytes of memory that the device says it has.
const MEMORY: usize = 2 << 30;

/// `cudaPointerAttributes`.
#[repr(C)]
struct PointerAttributes {
    kind: c_int,
    device: c_int,
    device_pointer: usize,
    host_pointer: usize,
    reserved: [i64; 8],
}

exported! {
    fn cudaGetDeviceCount(count: *mut c_int) {
        *count = 1;
    }
    fn cudaGetDevice(device: *mut c_int) {
        *device = 0;
    }
    fn cudaSetDevice(device: c_int) {
        if device != 0 {
            return Err(INVALID_VALUE);
        }
    }
    fn cudaGetDeviceProperties(properties: *mut u8, _device: c_int) {
        properties.write_bytes(0, PROPERTIES);
        properties.add(TOTAL_MEMORY).cast::<usize>().write(MEMORY);
        properties.add(SHARED_PER_BLOCK).cast::<usize>().write(48 << 10);
        for (offset, value) in [(WARP_SIZE, 32), (THREADS_PER_BLOCK, 1024), (CAPABILITY, 8), (MULTIPROCESSORS, 4)] {
            properties.add(offset).cast::<c_int>().write(value);
        }
    }
    fn cudaDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
        *value = crate::driver::attribute(attribute);
    }
    fn cudaDriverGetVersion(version: *mut c_int) {
        *version = VERSION;
    }
    fn cudaRuntimeGetVersion(version: *mut c_int) {
        *version = VERSION;
    }
    fn cudaMemGetInfo(free: *mut usize, total: *mut usize) {
        *free = MEMORY;
        *total = MEMORY;
    }
    fn cudaMalloc(address: *mut usize, size: usize) {
        *address = memory::allocate(size, Kind::Device)?;
    }
    fn cudaFree(address: usize) {
        stream::synchronize_all()?;
        memory::free(address, Kind::Device)?;
    }
    fn cudaMemPoolCreate(pool: *mut *const c_char, _properties: *const c_void) {
        *pool = c"the only pool, which keeps nothing".as_ptr();
    }
    fn cudaMemPoolDestroy(_pool: *const c_char) {}
    fn cudaMemPoolSetAttribute() {}
    fn cudaMemPoolTrimTo() {}
    fn cudaMallocFromPoolAsync(address: *mut usize, size: usize, _pool: *const c_char, stream: *mut c_void) {
        stream::of(stream)?;
        *address = memory::allocate(size, Kind::Device)?;
    }
    fn cudaFreeAsync(address: usize, stream: *mut c_void) {
        submit(stream, Box::new(move || memory::free(address, Kind::Device)))?;
    }
    fn cudaMallocHost(address: *mut usize, size: usize) {
        *address = memory::allocate(size, Kind::Pinned)?;
    }
    fn cudaHostAlloc(address: *mut usize, size: usize, _flags: c_uint) {
        *address = memory::allocate(size, Kind::Pinned)?;
    }
    fn cudaFreeHost(address: usize) {
        stream::synchronize_all()?;
        memory::free(address, Kind::Pinned)?;
    }
    fn cudaPointerGetAttributes(attributes: *mut PointerAttributes, pointer: usize) {
        let kind = match memory::block_of(pointer, 0) {
            None => 0,
            Some((_, _, Kind::Pinned)) => 1,
            Some((_, _, Kind::Device)) => 2,
        };
        let [host_pointer, device_pointer] = [kind != 2, kind != 0].map(|has| if has { pointer } else { 0 });
        attributes.write(PointerAttributes { kind, device: 0, device_pointer, host_pointer, reserved: [0; 8] });
    }
    fn cudaMemcpy(to: usize, from: usize, size: usize, _direction: c_int) {
        memory::copy(to, from, size);
    }
    fn cudaMemcpyAsync(to: usize, from: usize, size: usize, _direction: c_int, stream: *mut c_void) {
        copy_in_order(to, from, size, stream)?;
    }
    fn cudaMemset(at: usize, value: c_int, size: usize) {
        memory::fill(at, value as u8, size);
    }
    fn cudaMemsetAsync(at: usize, value: c_int, size: usize, stream: *mut c_void) {
        // SAFETY: the caller vouches for the memory.
        submit(stream, Box::new(move || { unsafe { memory::fill(at, value as u8, size) }; Ok(()) }))?;
    }
    fn cudaDeviceSynchronize() {
        stream::synchronize_all()?;
    }
    fn cudaStreamCreate(stream: *mut *mut c_void) {
        *stream = stream::create();
    }
    fn cudaStreamCreateWithFlags(stream: *mut *mut c_void, _flags: c_uint) {
        *stream = stream::create();
    }
    fn cudaStreamDestroy(stream: *mut c_void) {
        stream::destroy(stream)?;
    }
    fn cudaStreamSynchronize(stream: *mut c_void) {
        stream::of(stream)?.synchronize()?;
    }
    fn cudaStreamIsCapturing(_stream: *mut c_void, status: *mut c_int) {
        *status = 0;
    }
    fn cudaStreamWaitEvent(_stream: *mut c_void, event: *mut *mut c_void, _flags: c_uint) {
        stream::of(*event)?.synchronize()?;
    }
    fn cudaEventCreate(event: *mut *mut *mut c_void) {
        *event = new_event();
    }
    fn cudaEventCreateWithFlags(event: *mut *mut *mut c_void, _flags: c_uint) {
        *event = new_event();
    }
    fn cudaEventDestroy(event: *mut *mut c_void) {
        drop(Box::from_raw(event));
    }
    fn cudaEventRecord(event: *mut *mut c_void, stream: *mut c_void) {
        *event = stream;
    }
    fn cudaEventSynchronize(event: *mut *mut c_void) {
        stream::of(*event)?.synchronize()?;
    }
    fn cudaLaunchHostFunc(stream: *mut c_void, function: unsafe extern "C" fn(*mut c_void), data: *mut c_void) {
        let data = data.expose_provenance();
        // SAFETY: the caller vouches for function and data.
        submit(stream, Box::new(move || { unsafe { function(std::ptr::with_exposed_provenance_mut(data)) }; Ok(()) }))?;
    }
    fn cudaLaunchKernel() {
        eprintln!("the provider launched a kernel of its own, which stand-ins can't run");
        return Err(NOT_SUPPORTED);
    }
    fn cudaGetLastError() {}
    fn cudaPeekAtLastError() {}
    fn cudaFuncSetAttribute() {}
    fn __cudaRegisterVar() {}
    fn __cudaRegisterFunction() {}
    fn __cudaRegisterFatBinaryEnd() {}
    fn __cudaUnregisterFatBinary() {}
}

/// An event holds the stream that it was recorded on; waiting for it is waiting for all of that.
fn new_event() -> *mut *mut c_void {
    Box::into_raw(Box::new(std::ptr::null_mut()))
}

/// As CUDA does: bytes of the host that are not pinned are read before the call returns, or written before it does.
///
/// # Safety
/// Both ends must be valid.
unsafe fn copy_in_order(to: usize, from: usize, size: usize, stream: *mut c_void) -> Result<(), Status> {
    let is_pageable = |address| memory::block_of(address, 0).is_none();
    if is_pageable(from) {
        let mut bytes = vec![0u8; size];
        // SAFETY: by this function's contract.
        unsafe { memory::copy(bytes.as_mut_ptr().expose_provenance(), from, size) };
        // SAFETY: by this function's contract; the copy is alive.
        submit(
            stream,
            Box::new(move || {
                unsafe { memory::copy(to, bytes.as_ptr().expose_provenance(), size) };
                Ok(())
            }),
        )?;
    } else {
        // SAFETY: by this function's contract.
        submit(
            stream,
            Box::new(move || {
                unsafe { memory::copy(to, from, size) };
                Ok(())
            }),
        )?;
    }
    if is_pageable(to) { stream::of(stream)?.synchronize() } else { Ok(()) }
}

/// A handle that is never looked at.
#[unsafe(no_mangle)]
unsafe extern "C" fn __cudaRegisterFatBinary() -> *const c_char {
    c"".as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cudaGetErrorName(_status: Status) -> *const c_char {
    c"cudaErrorStandIn".as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cudaGetErrorString(_status: Status) -> *const c_char {
    c"error of the stand-in".as_ptr()
}
