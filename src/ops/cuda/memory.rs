//! Scratch memory on the device, from the runtime.
//!
//! It comes straight from the runtime's allocator, which answers with a status where there is no more: the runtime's function
//! for memory that is tied to a stream would end the process. So it is tied to its stream here, and goes back when the device
//! is done with it.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ort::sys;

use super::allocator::Allocator;
use super::driver::Device;
use super::event::Event;
use crate::ops::Error;
use crate::ops::context::DeviceAddress;
use crate::ops::info::KernelInfo;

/// The memory from one of the runtime's allocators, shared by all nodes that have this allocator.
pub(super) struct DeviceMemory {
    allocator: Allocator,
    device: &'static Device,
    /// What the device may still be using, the oldest first.
    used: Mutex<Vec<Block>>,
}

/// Memory of a call, and behind that of the next one on the same stream, or of nobody.
struct Block {
    start: *mut c_void,
    bytes: usize,
    /// That of the last call.
    stream: *mut c_void,
    /// Over when the device is done with it. Without one, only calls on the same stream may have it.
    event: Option<Event>,
    /// Whether a CUDA graph writes there whenever it is launched.
    is_captured: bool,
}

// SAFETY: the addresses are only passed on, to functions that any thread may call.
unsafe impl Send for Block {}

impl DeviceMemory {
    /// The memory for a node.
    pub(super) fn of(info: &KernelInfo<'_>) -> Result<Arc<Self>, Error> {
        static KNOWN: Mutex<Vec<Weak<DeviceMemory>>> = Mutex::new(Vec::new());
        let allocator = Allocator::new(info)?;
        let description = allocator.description()?;
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|memory| memory.strong_count() > 0);
        for memory in known.iter().filter_map(Weak::upgrade) {
            if memory.description()? == description {
                return Ok(memory);
            }
        }
        let device = Device::get(allocator.device()?)?;
        let memory = Arc::new(Self { allocator, device, used: Mutex::default() });
        known.push(Arc::downgrade(&memory));
        Ok(memory)
    }

    /// What the runtime calls this memory.
    pub(super) fn description(&self) -> Result<*const sys::OrtMemoryInfo, Error> {
        self.allocator.description()
    }

    /// Where it is.
    pub(super) fn device(&self) -> &'static Device {
        self.device
    }

    /// Memory for what is put on this stream as long as the result lives. What the stream has used before is used again: a host
    /// that runs ahead of the device needs no more than one that waits.
    ///
    /// # Safety
    /// The device must be bound, and the stream be one of its streams.
    pub(super) unsafe fn scratch(&self, stream: *mut c_void, bytes: usize) -> Result<Option<Scratch<'_>>, Error> {
        if bytes == 0 {
            return Ok(None);
        }
        // SAFETY: by this function's contract.
        let is_captured = unsafe { self.device.is_capturing(stream)? };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_captured && self.free_one(&mut used, Event::is_over) {}
        // Always the largest one: the others are over in the end.
        let of_stream = (0..used.len()).filter(|index| used[*index].stream == stream);
        let largest = of_stream.max_by_key(|index| used[*index].bytes);
        let mut block = match largest.filter(|index| used[*index].bytes >= bytes) {
            Some(index) => {
                // A handle can be that of several streams: one after the other, or one of each thread.
                if let (Some(event), false) = (&used[index].event, is_captured) {
                    // SAFETY: by this function's contract.
                    unsafe { event.hold(stream)? };
                }
                used.remove(index)
            }
            None => {
                let start = self.allocate(bytes, &mut used, !is_captured)?;
                Block { start, bytes, stream, event: None, is_captured }
            }
        };
        block.is_captured |= is_captured;
        Ok(Some(Scratch { memory: self, block: Some(block) }))
    }

    /// Memory that nobody uses. Where there is none, and the host may wait for the device, it does so until there is.
    fn allocate(&self, bytes: usize, used: &mut Vec<Block>, may_wait: bool) -> Result<*mut c_void, Error> {
        loop {
            match self.allocator.allocate(bytes) {
                Ok(start) => return Ok(start),
                Err(_) if may_wait && self.free_one(used, |event| event.wait().is_ok()) => {}
                Err(error) => return Err(Error::Cuda(format!("no {bytes} bytes of scratch memory: {error}"))),
            }
        }
    }

    /// Gives back the first block whose event is over, or says that there is none.
    fn free_one(&self, used: &mut Vec<Block>, is_over: impl Fn(&Event) -> bool) -> bool {
        let found = used.iter().position(|block| block.event.as_ref().is_some_and(&is_over));
        if let Some(index) = found {
            // SAFETY: it is of this allocator, and the device is done with it.
            unsafe { self.allocator.free(used.remove(index).start) };
        }
        found.is_some()
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let used = std::mem::take(self.used.get_mut().unwrap_or_else(PoisonError::into_inner));
        // A device that can't be waited for may still be writing.
        if !used.is_empty() && self.device.bind().and_then(|()| self.device.synchronize()).is_ok() {
            for block in used {
                // SAFETY: it is of this allocator, and the device is done with it.
                unsafe { self.allocator.free(block.start) };
            }
        }
    }
}

/// Scratch memory of one call.
pub(super) struct Scratch<'a> {
    memory: &'a DeviceMemory,
    /// There until the drop.
    block: Option<Block>,
}

impl Scratch<'_> {
    pub(super) fn address(&self) -> DeviceAddress {
        self.block.as_ref().map_or(0, |block| block.start.addr() as DeviceAddress)
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let Some(mut block) = self.block.take() else { return };
        // No event says when a graph is done with it.
        block.event = if block.is_captured {
            None
        } else {
            // SAFETY: by the contract of the function that made this. Without an event the stream keeps the memory.
            unsafe { Event::record(block.stream) }.ok()
        };
        self.memory.used.lock().unwrap_or_else(PoisonError::into_inner).push(block);
    }
}
