//! A node as ONNX Runtime describes it when its kernel is created.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr;

use ort::sys;

use super::api::Api;
use super::attributes::Source;
use super::{Error, OPERATOR};

/// Valid while the kernel is being created.
#[derive(Clone, Copy)]
pub(super) struct KernelInfo<'a> {
    api: Api,
    info: *const sys::OrtKernelInfo,
    lifetime: PhantomData<&'a sys::OrtKernelInfo>,
}

impl KernelInfo<'_> {
    /// # Safety
    /// `info` must be what the runtime of `api` passed to the kernel's constructor, and outlive the result.
    pub(super) unsafe fn new(api: Api, info: *const sys::OrtKernelInfo) -> Self {
        Self { api, info, lifetime: PhantomData }
    }

    pub(super) fn api(&self) -> Api {
        self.api
    }

    pub(super) fn as_ptr(&self) -> *const sys::OrtKernelInfo {
        self.info
    }

    /// The node's name, or that of its output if it has none, for messages.
    pub(super) fn describe(&self) -> String {
        let functions = self.api.functions();
        // SAFETY: `info` is valid, and `text` passes either null or a buffer of the given size.
        let name = self.api.text(|out, size| unsafe { (functions.KernelInfo_GetNodeName)(self.info, out, size) });
        match name {
            Ok(name) if !name.is_empty() => format!("{OPERATOR} node {name:?}"),
            _ => {
                // SAFETY: as above.
                let output =
                    self.api.text(|out, size| unsafe { (functions.KernelInfo_GetOutputName)(self.info, 0, out, size) });
                format!("{OPERATOR} node with the output {:?}", output.unwrap_or_default())
            }
        }
    }

    /// An attribute that could not be read is either absent, or there with another type, which is an error.
    fn absent(&self, name: &'static str, expected: &str) -> Result<(), Error> {
        let functions = self.api.functions();
        let c_name = c_name(name);
        let (mut float, mut int, mut len) = (0.0, 0, 0);
        // SAFETY: `info` is valid; the out-pointers are to live variables, null asks for a size only.
        let found = unsafe {
            [
                ("FLOAT", (functions.KernelInfoGetAttribute_float)(self.info, c_name.as_ptr(), &mut float)),
                ("INT", (functions.KernelInfoGetAttribute_int64)(self.info, c_name.as_ptr(), &mut int)),
                (
                    "STRING",
                    (functions.KernelInfoGetAttribute_string)(self.info, c_name.as_ptr(), ptr::null_mut(), &mut len),
                ),
                (
                    "FLOATS",
                    (functions.KernelInfoGetAttributeArray_float)(
                        self.info,
                        c_name.as_ptr(),
                        ptr::null_mut(),
                        &mut len,
                    ),
                ),
                (
                    "INTS",
                    (functions.KernelInfoGetAttributeArray_int64)(
                        self.info,
                        c_name.as_ptr(),
                        ptr::null_mut(),
                        &mut len,
                    ),
                ),
            ]
        };
        let mut found = found.into_iter().filter_map(|(kind, status)| self.api.check(status).is_ok().then_some(kind));
        match found.next() {
            None => Ok(()),
            Some(kind) => Err(Error::Attribute { name, problem: format!("must be of type {expected}, not {kind}") }),
        }
    }
}

impl Source for KernelInfo<'_> {
    fn float(&self, name: &'static str) -> Result<Option<f32>, Error> {
        let mut value = 0.0;
        // SAFETY: `info` is valid, the name is terminated, and the out-pointer is to a live variable.
        let status = unsafe {
            (self.api.functions().KernelInfoGetAttribute_float)(self.info, c_name(name).as_ptr(), &mut value)
        };
        match self.api.check(status) {
            Ok(()) => Ok(Some(value)),
            Err(_) => self.absent(name, "FLOAT").map(|()| None),
        }
    }

    fn int(&self, name: &'static str) -> Result<Option<i64>, Error> {
        let mut value = 0;
        // SAFETY: `info` is valid, the name is terminated, and the out-pointer is to a live variable.
        let status = unsafe {
            (self.api.functions().KernelInfoGetAttribute_int64)(self.info, c_name(name).as_ptr(), &mut value)
        };
        match self.api.check(status) {
            Ok(()) => Ok(Some(value)),
            Err(_) => self.absent(name, "INT").map(|()| None),
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        let functions = self.api.functions();
        let c_name = c_name(name);
        let text = self.api.text(|out, size| {
            // SAFETY: `info` is valid, the name is terminated, and `text` passes null or a buffer of the given size.
            unsafe { (functions.KernelInfoGetAttribute_string)(self.info, c_name.as_ptr(), out, size) }
        });
        match text {
            Ok(text) => Ok(Some(text)),
            Err(_) => self.absent(name, "STRING").map(|()| None),
        }
    }
}

/// Attribute names are literals without a null byte.
fn c_name(name: &'static str) -> CString {
    CString::new(name).unwrap_or_else(|_| CStr::to_owned(c""))
}
