//! Streams: work in order, done at once or when somebody waits for it.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use crate::entry::{INVALID_VALUE, Status, lock};

/// Set: a stream's work waits until the stream is waited for.
const DEFER: &str = "ISAAC_STANDIN_DEFER";

/// One piece of work.
pub(crate) type Job = Box<dyn FnOnce() -> Result<(), Status> + Send>;

#[derive(Default)]
pub(crate) struct Stream(Mutex<VecDeque<Job>>);

/// Addresses of all streams but the default one, which is null. Those that end are forgotten, not freed.
static STREAMS: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

static DEFAULT: Stream = Stream(Mutex::new(VecDeque::new()));

pub(crate) fn create() -> *mut c_void {
    let stream = std::ptr::from_ref(Box::leak(Box::<Stream>::default())).cast_mut();
    lock(&STREAMS).insert(stream.expose_provenance());
    stream.cast()
}

pub(crate) fn destroy(handle: *mut c_void) -> Result<(), Status> {
    of(handle)?.synchronize()?;
    lock(&STREAMS).remove(&handle.addr());
    Ok(())
}

/// The stream of a handle.
pub(crate) fn of(handle: *mut c_void) -> Result<&'static Stream, Status> {
    if handle.is_null() {
        return Ok(&DEFAULT);
    }
    if !lock(&STREAMS).contains(&handle.addr()) {
        return Err(INVALID_VALUE);
    }
    // SAFETY: it is one of those that `create` made, and none is freed.
    Ok(unsafe { &*handle.cast::<Stream>() })
}

/// Puts work on the stream of a handle. On the default stream it is done at once, as the runtime's streams do not wait for
/// that one.
pub(crate) fn submit(handle: *mut c_void, job: Job) -> Result<(), Status> {
    static DEFERRED: LazyLock<bool> = LazyLock::new(|| std::env::var_os(DEFER).is_some());
    let stream = of(handle)?;
    if *DEFERRED && !handle.is_null() {
        lock(&stream.0).push_back(job);
        Ok(())
    } else {
        // Held while the work is done: a stream does one thing at a time.
        let _order = lock(&stream.0);
        job()
    }
}

impl Stream {
    /// Does what is left to do.
    pub(crate) fn synchronize(&self) -> Result<(), Status> {
        let mut jobs = lock(&self.0);
        let mut result = Ok(());
        for job in jobs.drain(..) {
            result = result.and_then(|()| job());
        }
        result
    }
}

/// What a `CUevent` points to: over when the stream no longer has the piece of work that was put behind all others then.
#[derive(Default)]
pub(crate) struct Event {
    work: Weak<()>,
    stream: usize,
}

impl Event {
    pub(crate) fn record(handle: *mut c_void) -> Result<Self, Status> {
        let work = Arc::new(());
        let event = Self { work: Arc::downgrade(&work), stream: handle.expose_provenance() };
        submit(
            handle,
            Box::new(move || {
                drop(work);
                Ok(())
            }),
        )?;
        Ok(event)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.work.strong_count() == 0
    }

    pub(crate) fn wait(&self) -> Result<(), Status> {
        if self.is_over() { Ok(()) } else { of(std::ptr::with_exposed_provenance_mut(self.stream))?.synchronize() }
    }

    /// Puts waiting for the event on a stream.
    pub(crate) fn hold(&self, handle: *mut c_void) -> Result<(), Status> {
        let event = Self { work: self.work.clone(), stream: self.stream };
        submit(handle, Box::new(move || event.wait()))
    }
}

/// Waits for all streams.
pub(crate) fn synchronize_all() -> Result<(), Status> {
    let all: Vec<usize> = lock(&STREAMS).iter().copied().collect();
    all.into_iter().try_for_each(|stream| of(std::ptr::with_exposed_provenance_mut(stream))?.synchronize())
}
