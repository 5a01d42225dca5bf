//! ONNX Runtime's table of functions, and its statuses.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use ort::sys;

use super::Error;

/// The function table of the ONNX Runtime that loaded the library.
///
/// It is not kept in a static: one process may hold several runtimes.
#[derive(Clone, Copy)]
pub(super) struct Api(&'static sys::OrtApi);

impl Api {
    /// Asks the host for the version of the table that this crate was built against.
    ///
    /// # Safety
    /// `base` is null or points to the host's base table.
    pub(super) unsafe fn from_base(base: *const sys::OrtApiBase) -> Option<Self> {
        // SAFETY: the caller vouches for `base`.
        let base = unsafe { base.as_ref() }?;
        // SAFETY: any version may be asked for; an unknown one gives null.
        unsafe { Self::from_table((base.GetApi)(sys::ORT_API_VERSION)) }
    }

    /// # Safety
    /// `table` is null or points to a function table of at least the version this crate was built against.
    pub(super) unsafe fn from_table(table: *const sys::OrtApi) -> Option<Self> {
        // SAFETY: the caller vouches for the pointer; a runtime never frees its tables.
        unsafe { table.as_ref() }.map(Self)
    }

    /// The functions, all of which are unsafe to call.
    pub(super) fn functions(self) -> &'static sys::OrtApi {
        self.0
    }

    /// Takes over the status that a call returned.
    pub(super) fn check(self, status: sys::OrtStatusPtr) -> Result<(), Error> {
        if status.0.is_null() {
            return Ok(());
        }
        // SAFETY: a status that is not null is valid until it is released, and so is its message.
        let message = unsafe {
            let message = CStr::from_ptr((self.0.GetErrorMessage)(status.0)).to_string_lossy().into_owned();
            (self.0.ReleaseStatus)(status.0);
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
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                let message = format!("{}: internal error: {}", describe(), text.unwrap_or("panic"));
                (sys::OrtErrorCode::ORT_RUNTIME_EXCEPTION, message)
            }
        };
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        // SAFETY: the message is terminated, and copied by the call.
        unsafe { (self.0.CreateStatus)(code, message.as_ptr()) }
    }
}

fn code(error: &Error) -> sys::OrtErrorCode {
    match error {
        Error::Runtime(_) => sys::OrtErrorCode::ORT_FAIL,
        Error::Curvature(_) => sys::OrtErrorCode::ORT_RUNTIME_EXCEPTION,
        _ => sys::OrtErrorCode::ORT_INVALID_ARGUMENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unwinds_out_of_a_guard() {
        let table: &'static _ = Box::leak(Box::new(sys::stub::api()));
        // SAFETY: `ort`'s stand-in for a runtime is a complete table, which makes real statuses.
        let api = unsafe { Api::from_table(table) }.unwrap();
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
