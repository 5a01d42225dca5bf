//! ONNX Runtime's table of functions, and its statuses.
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use ort::sys;

use super::Error;

/// The function table of the ONNX Runtime that loaded the library.
///
/// It is not kept in a static: one process may hold several runtimes.
#[derive(Clone, Copy)]
pub(super) struct Api {
    base: &'static sys::OrtApiBase,
    functions: &'static sys::OrtApi,
}

/// The table of API version 18, as far as it is needed here: what `ort::sys` has, and the functions that follow.
#[repr(C)]
pub(super) struct Functions18 {
    before: sys::OrtApi,
    append_vitis_ai: *const c_void,
    scratch_buffer: *const c_void,
    /// `KernelInfoGetAllocator`
    pub(super) allocator: unsafe extern "system" fn(
        *const sys::OrtKernelInfo,
        sys::OrtMemType,
        *mut *mut sys::OrtAllocator,
    ) -> sys::OrtStatusPtr,
}

// SAFETY: the table is constant; the pointers in it are to code.
unsafe impl Sync for Functions18 {}

const _: () = assert!(sys::ORT_API_VERSION == 17, "what follows the table of `ort::sys` is version 18");

impl Api {
    /// Asks the host for the version of the table that this crate was built against.
    ///
    /// # Safety
    /// `base` is null or points to the host's base table.
    pub(super) unsafe fn from_base(base: *const sys::OrtApiBase) -> Option<Self> {
        // SAFETY: the caller vouches for `base`; a runtime never frees its tables.
        let base: &'static sys::OrtApiBase = unsafe { base.as_ref() }?;
        // SAFETY: any version may be asked for; an unknown one gives null.
        let functions = unsafe { (base.GetApi)(sys::ORT_API_VERSION).as_ref() }?;
        Some(Self { base, functions })
    }

    /// The functions, all of which are unsafe to call.
    pub(super) fn functions(self) -> &'static sys::OrtApi {
        self.functions
    }

    /// The functions of version 18, if the host has them. An older host prints that it was asked for too much.
    pub(super) fn functions_18(self) -> Option<&'static Functions18> {
        // SAFETY: the table of that version begins as `Functions18` does.
        unsafe { (self.base.GetApi)(18).cast::<Functions18>().as_ref() }
    }

    /// Whether it infers shapes of nodes that leave out an input in the middle: up to 1.19 it reads that one's type through a
    /// null pointer.
    pub(super) fn infers_around_gaps(self) -> bool {
        // SAFETY: a runtime's version is a text that it never frees.
        let version = unsafe { CStr::from_ptr((self.base.GetVersionString)()) }.to_str().unwrap_or_default();
        let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(1), Some(20))
    }

    /// Takes over the status that a call returned.
    pub(super) fn check(self, status: sys::OrtStatusPtr) -> Result<(), Error> {
        if status.0.is_null() {
            return Ok(());
        }
        // SAFETY: a status that is not null is valid until it is released, and so is its message.
        let message = unsafe {
            let message = CStr::from_ptr((self.functions.GetErrorMessage)(status.0)).to_string_lossy().into_owned();
            (self.functions.ReleaseStatus)(status.0);
            message
        };
        Err(Error::Runtime(message))
    }

    /// Calls a function that fills an out-pointer, and fails if that stays null.
    pub(super) fn create<T>(
        self,
        what: &str,
        call: impl FnOnce(*mut *mut T) -> sys::OrtStatusPtr,
    ) -> Result<*mut T, Error> {
        let mut created = ptr::null_mut();
        self.check(call(&mut created))?;
        if created.is_null() { Err(Error::Runtime(format!("no {what}"))) } else { Ok(created) }
    }

    /// Reads a string of unknown length: the call is made once for the size and once for the bytes.
    pub(super) fn text(self, call: impl Fn(*mut c_char, *mut usize) -> sys::OrtStatusPtr) -> Result<String, Error> {
        let mut size = 0;
        self.check(call(ptr::null_mut(), &mut size))?;
        let mut bytes = vec![0u8; size];
        self.check(call(bytes.as_mut_ptr().cast(), &mut size))?;
        let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
        Ok(text.to_string_lossy().into_owned())
    }

    /// Runs a callback's body; an error or a panic becomes a status, so that nothing unwinds into the host.
    ///
    /// `describe` is put in front of the message.
    pub(super) fn guard(
        self,
        describe: impl Fn() -> String,
        body: impl FnOnce() -> Result<(), Error>,
    ) -> sys::OrtStatusPtr {
        let (code, message) = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => return sys::OrtStatusPtr::default(),
            Ok(Err(error)) => (code(&error), format!("{}: {error}", describe())),
            Err(panic) => {
                let message = format!("{}: internal error: {}", describe(), text_of(panic.as_ref()));
                (sys::OrtErrorCode::ORT_RUNTIME_EXCEPTION, message)
            }
        };
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        // SAFETY: the message is terminated, and copied by the call.
        unsafe { (self.functions.CreateStatus)(code, message.as_ptr()) }
    }
}

/// What a panic said.
pub(super) fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

fn code(error: &Error) -> sys::OrtErrorCode {
    match error {
        Error::Runtime(_) | Error::Cuda(_) => sys::OrtErrorCode::ORT_FAIL,
        Error::Curvature(_) | Error::Breakdown { .. } => sys::OrtErrorCode::ORT_RUNTIME_EXCEPTION,
        _ => sys::OrtErrorCode::ORT_INVALID_ARGUMENT,
    }
}

/// Runtimes for tests.
#[cfg(test)]
pub(super) mod stand_in {
    use super::*;

    /// One of this version, with the functions of `ort`'s stand-in but for what `change` puts in their place.
    pub(crate) fn runtime(
        version: extern "system" fn() -> *const c_char,
        change: impl FnOnce(&mut sys::OrtApi),
    ) -> Api {
        extern "system" fn no_other(_: u32) -> *const sys::OrtApi {
            ptr::null()
        }
        let mut functions = sys::stub::api();
        change(&mut functions);
        let base = sys::OrtApiBase { GetApi: no_other, GetVersionString: version };
        Api { base: Box::leak(Box::new(base)), functions: Box::leak(Box::new(functions)) }
    }

    pub(crate) extern "system" fn some_version() -> *const c_char {
        c"0".as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_from_1_20_on() {
        macro_rules! runtime {
            ($version:literal) => {{
                extern "system" fn version() -> *const c_char {
                    $version.as_ptr()
                }
                stand_in::runtime(version, |_| {}).infers_around_gaps()
            }};
        }
        assert_eq!([runtime!(c"1.17.3"), runtime!(c"1.19.2"), runtime!(c""), runtime!(c"new")], [false; 4]);
        assert_eq!([runtime!(c"1.20.0"), runtime!(c"1.32.0+cu12"), runtime!(c"2.0")], [true; 3]);
    }

    #[test]
    fn nothing_unwinds_out_of_a_guard() {
        let api = stand_in::runtime(stand_in::some_version, |_| {});
        let run = |body: fn() -> Result<(), Error>| {
            let result = api.check(api.guard(|| "node \"x\"".into(), body));
            result.map_err(|error| error.to_string())
        };
        assert_eq!(run(|| Ok(())), Ok(()));
        let failed = run(|| Err(Error::NoDamping { name: "lambda_a" })).unwrap_err();
        assert!(failed.starts_with("ONNX Runtime: node \"x\": lambda_a is given neither"), "{failed}");
        for panicking in [|| panic!("boom"), || panic!("{}", "boom")] {
            assert_eq!(run(panicking).unwrap_err(), "ONNX Runtime: node \"x\": internal error: boom");
        }
    }
}
