//! The runtime's allocator for the memory of a device.
#![allow(unsafe_code)]

use std::ffi::c_void;

use ort::sys;

use crate::ops::Error;
use crate::ops::api::Api;
use crate::ops::info::KernelInfo;

/// A handle to the allocator that the runtime gives its own kernels memory from.
pub(super) struct Allocator {
    api: Api,
    raw: *mut sys::OrtAllocator,
}

// SAFETY: the runtime's allocators may be used by several threads at once.
unsafe impl Send for Allocator {}
// SAFETY: as above.
unsafe impl Sync for Allocator {}

impl Allocator {
    /// The one for a node's device.
    pub(super) fn new(info: &KernelInfo<'_>) -> Result<Self, Error> {
        let api = info.api();
        let functions = api
            .functions_18()
            .ok_or_else(|| Error::Runtime("on CUDA this operator needs version 1.18 or newer".into()))?;
        let raw = api.create("allocator", |out| {
            // SAFETY: `info` is valid, and the out-pointer is to a live variable.
            unsafe { (functions.allocator)(info.as_ptr(), sys::OrtMemType::OrtMemTypeDefault, out) }
        })?;
        Ok(Self { api, raw })
    }

    /// What the runtime calls this memory. It is a part of the allocator: handles to the same allocator give the same address.
    pub(super) fn description(&self) -> Result<*const sys::OrtMemoryInfo, Error> {
        let mut description = std::ptr::null();
        // SAFETY: the allocator is valid, and owns the description.
        self.api.check(unsafe { (self.api.functions().AllocatorGetInfo)(self.raw, &mut description) })?;
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

    /// Memory that no stream uses.
    pub(super) fn allocate(&self, bytes: usize) -> Result<*mut c_void, Error> {
        self.api.create("memory", |out| {
            // SAFETY: the allocator is valid, and the out-pointer is to a live variable.
            unsafe { (self.api.functions().AllocatorAlloc)(self.raw, bytes, out) }
        })
    }

    /// # Safety
    /// The memory must be of this allocator, and neither the host nor the device may use it any more.
    pub(super) unsafe fn free(&self, memory: *mut c_void) {
        // SAFETY: by this function's contract. A status would have no reader.
        let _ = self.api.check(unsafe { (self.api.functions().AllocatorFree)(self.raw, memory) });
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        // SAFETY: a handle that is released once; the allocator stays as long as anybody has one.
        unsafe { (self.api.functions().ReleaseAllocator)(self.raw) };
    }
}
