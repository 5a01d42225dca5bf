//! The CUDA driver, as far as a node needs it. It is loaded when the first node is created.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::{DriverError, result, sys};

use super::plan::{Argument, Launch};
use crate::ops::Error;
use crate::ops::context::DeviceAddress;

/// Our kernels, for the driver to translate; `kernels.cu` is what they were compiled from.
const KERNELS: &str = include_str!("kernels.ptx");

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        Error::Cuda(error.to_string())
    }
}

/// A device with our kernels in its primary context, which is the one that the runtime uses.
pub(super) struct Device {
    context: sys::CUcontext,
    functions: HashMap<&'static str, sys::CUfunction>,
}

// SAFETY: contexts and functions may be used by several threads at once.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// The device of this number; its kernels are loaded when it is first asked for, and stay loaded.
    pub(super) fn get(ordinal: i32) -> Result<&'static Self, Error> {
        static DEVICES: Mutex<Vec<(i32, &Device)>> = Mutex::new(Vec::new());
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, device)) = devices.iter().find(|(known, _)| *known == ordinal) {
            return Ok(device);
        }
        let device: &'static Device = Box::leak(Box::new(Self::load(ordinal)?));
        devices.push((ordinal, device));
        Ok(device)
    }

    fn load(ordinal: i32) -> Result<Self, Error> {
        // SAFETY: looks for the library, and loads it.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::Cuda("there is no driver (libcuda) on this machine".into()));
        }
        result::init()?;
        let device = result::device::get(ordinal)?;
        // SAFETY: the device exists; its primary context is kept until the process ends.
        let context = unsafe { result::primary_ctx::retain(device)? };
        let image = CString::new(KERNELS).map_err(|_| Error::Cuda("the kernels are no text".into()))?;
        // SAFETY: the context is valid, and the image a text that ends; the module is kept until the process ends.
        let module = unsafe {
            result::ctx::set_current(context)?;
            result::module::load_data(image.as_ptr().cast())?
        };
        let functions = entries(KERNELS).map(|name| {
            let c_name = CString::new(name).unwrap_or_default();
            // SAFETY: the module is valid.
            Ok((name, unsafe { result::module::get_function(module, c_name)? }))
        });
        Ok(Self { context, functions: functions.collect::<Result<_, DriverError>>()? })
    }

    /// Makes the device the one that this thread's calls are for.
    pub(super) fn bind(&self) -> Result<(), Error> {
        // SAFETY: the context is valid.
        unsafe { result::ctx::set_current(self.context)? };
        Ok(())
    }

    /// Whether what is put on the stream is not done, but becomes part of a CUDA graph.
    ///
    /// # Safety
    /// The device must be bound, and the stream be one of its streams.
    pub(super) unsafe fn is_capturing(&self, stream: *mut c_void) -> Result<bool, Error> {
        // SAFETY: by this function's contract.
        let status = unsafe { result::stream::is_capturing(stream.cast())? };
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// Waits until the device, which must be bound, has done everything.
    pub(super) fn synchronize(&self) -> Result<(), Error> {
        Ok(result::ctx::synchronize()?)
    }

    /// Starts a kernel behind whatever else is on the stream.
    ///
    /// # Safety
    /// The device must be bound, the stream be one of its streams, and the arguments fit the kernel and its memory.
    pub(super) unsafe fn launch(&self, launch: &Launch, stream: *mut c_void) -> Result<(), Error> {
        let Some(function) = self.functions.get(launch.kernel) else {
            return Err(Error::Cuda(format!("there is no kernel {}", launch.kernel)));
        };
        let mut arguments: Vec<*mut c_void> = launch.arguments.iter().map(pointer_to).collect();
        let [grid, block] = [launch.grid, launch.block].map(|[x, y, z]| (x, y, z));
        // SAFETY: by this function's contract; the driver copies the arguments.
        unsafe {
            result::launch_kernel(*function, grid, block, launch.shared_bytes, stream.cast(), &mut arguments)?;
        }
        Ok(())
    }

    /// Writes zeros behind whatever else is on the stream.
    ///
    /// # Safety
    /// As [`Self::launch`]; there must be that many bytes.
    pub(super) unsafe fn clear(&self, address: DeviceAddress, bytes: usize, stream: *mut c_void) -> Result<(), Error> {
        // SAFETY: by this function's contract.
        unsafe { result::memset_d8_async(address, 0, bytes, stream.cast())? };
        Ok(())
    }

    /// Copies what is on the device behind whatever else is on the stream.
    ///
    /// # Safety
    /// As [`Self::launch`]; there must be that many bytes at both addresses.
    pub(super) unsafe fn copy(
        &self,
        [from, to]: [DeviceAddress; 2],
        bytes: usize,
        stream: *mut c_void,
    ) -> Result<(), Error> {
        // SAFETY: by this function's contract.
        unsafe { result::memcpy_dtod_async(to, from, bytes, stream.cast())? };
        Ok(())
    }
}

/// The names of the kernels in a module's text.
fn entries(module: &'static str) -> impl Iterator<Item = &'static str> {
    let entries = module.split(".visible .entry ").skip(1);
    entries.filter_map(|entry| entry.split('(').next()).map(str::trim)
}

/// The driver reads arguments where they lie.
fn pointer_to(argument: &Argument) -> *mut c_void {
    match argument {
        Argument::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
        Argument::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
        Argument::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
    }
}

/// What a kernel writes when a factorisation fails, in memory of the host that the device can write to.
///
/// The host reads it when the node is called again: reading it at once would mean to wait for the device.
pub(super) struct Record {
    words: *mut [AtomicU32; 3],
    address: DeviceAddress,
}

/// Where a factorisation failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) pivot: usize,
    pub(super) order: usize,
    pub(super) lambda: f32,
}

// SAFETY: the words are atomic.
unsafe impl Send for Record {}
// SAFETY: as above.
unsafe impl Sync for Record {}

impl Record {
    /// A record for kernels on this device.
    pub(super) fn new(device: &Device) -> Result<Self, Error> {
        device.bind()?;
        // SAFETY: the memory is as large as the words, and zero before anybody reads it.
        let words = unsafe {
            let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
            let words = result::malloc_host(size_of::<[AtomicU32; 3]>(), flags)?.cast::<[AtomicU32; 3]>();
            words.write_bytes(0, 1);
            words
        };
        let mut record = Self { words, address: 0 };
        // SAFETY: the memory is that of the record, which frees it if this fails.
        unsafe { sys::cuMemHostGetDevicePointer_v2(&mut record.address, words.cast(), 0).result()? };
        Ok(record)
    }

    /// Where the kernels find it.
    pub(super) fn address(&self) -> DeviceAddress {
        self.address
    }

    /// The failure that was recorded since this was last asked.
    pub(super) fn take(&self) -> Option<Failure> {
        // SAFETY: the words live as long as the record; the device writes the first one last.
        let [pivot, order, lambda] = unsafe { &*self.words };
        let pivot = pivot.swap(0, Ordering::Acquire).checked_sub(1)?;
        let [order, lambda] = [order, lambda].map(|word| word.load(Ordering::Relaxed));
        Some(Failure { pivot: pivot as usize, order: order as usize, lambda: f32::from_bits(lambda) })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: allocated by the driver and freed once. An error would have no reader.
        let _ = unsafe { result::free_host(self.words.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_their_names() {
        let module = ".version 8.0\n.visible .entry first(\n.param .u64 a\n) { }\n.visible .entry second()\n{ }\n";
        assert_eq!(entries(module).collect::<Vec<_>>(), ["first", "second"]);
        assert!(entries(KERNELS).count() > 0);
    }
}
