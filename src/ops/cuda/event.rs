//! When the device is done with what was put on a stream.
#![allow(unsafe_code)]

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use crate::ops::Error;

/// Over as soon as a stream has done what was on it when the event was recorded.
pub(super) struct Event(sys::CUevent);

// SAFETY: an event may be used by several threads at once.
unsafe impl Send for Event {}

impl Event {
    /// Records an event behind whatever else is on the stream.
    ///
    /// # Safety
    /// The stream must be one of those of the device that is bound.
    pub(super) unsafe fn record(stream: *mut c_void) -> Result<Self, Error> {
        let event = Self(result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?);
        // SAFETY: the event is valid, and so is the stream by this function's contract.
        unsafe { result::event::record(event.0, stream.cast())? };
        Ok(event)
    }

    /// Whether the driver says that it is over. Nobody waits for that.
    pub(super) fn is_over(&self) -> bool {
        // SAFETY: the event is valid.
        unsafe { result::event::query(self.0) }.is_ok()
    }

    /// Waits on the host until it is over.
    pub(super) fn wait(&self) -> Result<(), Error> {
        // SAFETY: the event is valid.
        unsafe { result::event::synchronize(self.0)? };
        Ok(())
    }

    /// Has the stream wait, on the device, before it does what is put on it from now on.
    ///
    /// # Safety
    /// As [`Self::record`].
    pub(super) unsafe fn hold(&self, stream: *mut c_void) -> Result<(), Error> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: the event is valid, and so is the stream by this function's contract.
        unsafe { result::stream::wait_event(stream.cast(), self.0, flags)? };
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by the driver and destroyed once, which it may be before it is over. An error would have no reader.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}
