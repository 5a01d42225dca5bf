//! Scratch memory on the device, from the runtime.
#![allow(unsafe_code)]

use std::ffi::c_void;

use ort::sys;

use crate::ops::Error;
use crate::ops::api::{Api, Functions18};
use crate::ops::context::{Context, DeviceAddress};
use crate::ops::info::KernelInfo;

/// The runtime's allocator for a node's device.
pub(super) struct DeviceMemory {
    api: Api,
    functions: &'static Functions18,
    allocator: *mut sys::OrtAllocator,
}

// SAFETY: the runtime's allocators may be used by several threads at once.
unsafe impl Send for DeviceMemory {}
// SAFETY: as above.
unsafe impl Sync for DeviceMemory {}

impl DeviceMemory {
    pub(super) fn new(info: &KernelInfo<'_>) -> Result<Self, Error> {
        let api = info.api();
        let functions = api
            .functions_18()
            .ok_or_else(|| Error::Runtime("on CUDA this operator needs version 1.18 or newer".into()))?;
        let allocator = api.create("allocator", |out| {
            // SAFETY: `info` is valid, and the out-pointer is to a live variable.
            unsafe { (functions.allocator)(info.as_ptr(), sys::OrtMemType::OrtMemTypeDefault, out) }
        })?;
        Ok(Self { api, functions, allocator })
    }

    /// What the runtime calls this memory.
    pub(super) fn description(&self) -> Result<*const sys::OrtMemoryInfo, Error> {
        let mut description = std::ptr::null();
        // SAFETY: the allocator is valid, and owns the description.
        let get = self.api.functions().AllocatorGetInfo;
        self.api.check(unsafe { get(self.allocator, &mut description) })?;
        Ok(description)
    }

    /// The device's number.
    pub(super) fn device(&self) -> Result<i32, Error> {
        let mut device = 0;
        let description = self.description()?;
        // SAFETY: the description is valid as long as the allocator.
        self.api.check(unsafe { (self.api.functions().MemoryInfoGetId)(description, &mut device) })?;
        Ok(device)
    }

    /// Memory for one call, tied to its stream: it is given back as soon as everything is submitted, and what the runtime
    /// puts there next is computed after it.
    ///
    /// Memory straight from the allocator would not be tied to the stream: concurrent runs would share it. When the device has
    /// no more memory, the function that ties it ends the process instead of returning a status (seen in 1.31). The allocator
    /// returns one: so it is asked for as much first, and gets that back at once, untouched.
    pub(super) fn scratch<'a>(&'a self, context: &Context<'_>, bytes: usize) -> Result<Option<Scratch<'a>>, Error> {
        if bytes == 0 {
            return Ok(None);
        }
        self.look_for(bytes)?;
        let description = self.description()?;
        let address = self.api.create("scratch memory", |out| {
            // SAFETY: context and description are valid, and the out-pointer is to a live variable.
            unsafe { (self.functions.scratch_buffer)(context.as_ptr(), description, bytes, out) }
        })?;
        Ok(Some(Scratch { memory: self, raw: address }))
    }

    /// Fails if the device has not so many bytes left.
    fn look_for(&self, bytes: usize) -> Result<(), Error> {
        let found = self.api.create("memory", |out| {
            // SAFETY: the allocator is valid, and the out-pointer is to a live variable.
            unsafe { (self.api.functions().AllocatorAlloc)(self.allocator, bytes, out) }
        });
        let raw = found.map_err(|error| Error::Cuda(format!("no {bytes} bytes of scratch memory: {error}")))?;
        drop(Scratch { memory: self, raw });
        Ok(())
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: made by this runtime, released once; no scratch memory outlives `self`.
        unsafe { (self.api.functions().ReleaseAllocator)(self.allocator) };
    }
}

/// Scratch memory of one call.
pub(super) struct Scratch<'a> {
    memory: &'a DeviceMemory,
    raw: *mut c_void,
}

impl Scratch<'_> {
    pub(super) fn address(&self) -> DeviceAddress {
        self.raw.addr() as DeviceAddress
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let DeviceMemory { api, allocator, .. } = self.memory;
        // SAFETY: the buffer came from this allocator and is freed once. A status would have no reader.
        let _ = api.check(unsafe { (api.functions().AllocatorFree)(*allocator, self.raw) });
    }
}
