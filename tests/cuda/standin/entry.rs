//! What every exported function does first.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A `CUresult`, a `cudaError_t` or a `cublasStatus_t`: zero is success in all of them.
pub(crate) type Status = i32;

pub(crate) const INVALID_VALUE: Status = 1;
pub(crate) const OUT_OF_MEMORY: Status = 2;
pub(crate) const INVALID_PTX: Status = 218;
pub(crate) const NOT_FOUND: Status = 500;
pub(crate) const NOT_READY: Status = 600;
pub(crate) const LAUNCH_FAILED: Status = 719;
pub(crate) const NOT_SUPPORTED: Status = 801;
pub(crate) const CAPTURE_UNSUPPORTED: Status = 900;
const UNKNOWN: Status = 999;

/// Names a function that is to fail, as `cuLaunchKernel`, or the count of the call that is, as `cuLaunchKernel:2`. Counting
/// starts when the variable is set to another value.
const FAIL: &str = "ISAAC_STANDIN_FAIL";

/// What was called since the process started, and since the variable last changed.
struct Calls {
    all: BTreeMap<&'static str, usize>,
    wanted: String,
    since: BTreeMap<&'static str, usize>,
}

static CALLS: Mutex<Calls> = Mutex::new(Calls { all: BTreeMap::new(), wanted: String::new(), since: BTreeMap::new() });

/// Locks a mutex whose content no panic leaves half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the body of the function `name`, unless it is to fail. What goes wrong is printed, and never unwinds.
pub(crate) fn enter(name: &'static str, body: impl FnOnce() -> Result<(), Status>) -> Status {
    if is_to_fail(name) {
        return LAUNCH_FAILED;
    }
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(status)) => status,
        Err(_) => UNKNOWN,
    }
}

fn is_to_fail(name: &'static str) -> bool {
    let wanted = std::env::var(FAIL).unwrap_or_default();
    let calls = &mut *lock(&CALLS);
    if calls.wanted != wanted {
        calls.wanted = wanted;
        calls.since.clear();
    }
    *calls.all.entry(name).or_default() += 1;
    let count = calls.since.entry(name).or_default();
    *count += 1;
    match calls.wanted.split_once(':') {
        None => calls.wanted == name,
        Some((function, call)) => function == name && call == count.to_string(),
    }
}

/// How often a function was called; for the tests, which load this library beside the provider.
#[unsafe(no_mangle)]
unsafe extern "C" fn isaac_standin_calls(name: *const c_char) -> usize {
    // SAFETY: the caller passes a terminated name.
    let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default();
    lock(&CALLS).all.get(name).copied().unwrap_or_default()
}

/// Exported C functions that return a status. A body may use `?`; its safety is that of the real function.
macro_rules! exported {
    ($(fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)*) => {$(
        #[unsafe(no_mangle)]
        #[allow(unused_unsafe, unreachable_code)]
        unsafe extern "C" fn $name($($argument: $kind),*) -> $crate::entry::Status {
            $crate::entry::enter(stringify!($name), move || {
                // SAFETY: the caller keeps to the contract of the function that this one stands in for.
                unsafe {
                    $body
                }
                Ok(())
            })
        }
    )*};
}
