//! The shape-inference callback.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use ort::sys;

use super::Error;
use super::api::Api;
use super::attributes::{Layout, Source};
use super::context::read_info;
use super::shapes::output_shape;

/// A dimension as known before a run: a size, or a negative number and perhaps a name.
#[derive(Clone, Debug)]
struct Dimension {
    size: i64,
    name: CString,
}

impl Dimension {
    fn is_known(&self) -> bool {
        self.size >= 0 || !self.name.is_empty()
    }
}

/// Tells the runtime the shape of the output as far as the inputs' shapes say.
///
/// Shapes that contradict each other are reported when the node runs and the actual ones are known.
///
/// # Safety
/// `context` must be what the runtime of `api` passed to the shape-inference function.
pub(super) unsafe fn infer_output_shape(api: Api, context: *mut sys::OrtShapeInferContext) -> Result<(), Error> {
    let layout = Layout::read(&Node { api, context })?;
    // SAFETY: the context is valid, by this function's contract.
    let ((element, g), (_, a)) = unsafe { (input(api, context, 0)?, input(api, context, 1)?) };
    let Some(shape) = output_shape(&layout, &g, &a) else {
        // Also how the runtime shows a rank that it doesn't know.
        return Ok(());
    };
    // A dimension of which nothing is known can't be passed on: the runtime would take it for a size.
    if !shape.iter().all(Dimension::is_known) {
        return Ok(());
    }
    // SAFETY: as above.
    unsafe { set_output(api, context, element, &shape) }
}

/// # Safety
/// `context` must be valid.
unsafe fn input(
    api: Api,
    context: *mut sys::OrtShapeInferContext,
    index: usize,
) -> Result<(sys::ONNXTensorElementDataType, Vec<Dimension>), Error> {
    let functions = api.functions();
    let info = api.create("input shape", |out| {
        // SAFETY: the context is valid, and both inputs are required ones. It keeps the result.
        unsafe { (functions.ShapeInferContext_GetInputTypeShape)(context, index, out) }
    })?;
    // SAFETY: `info` is valid as long as the context is.
    let (element, sizes) = unsafe { read_info(api, info)? };
    let mut names = vec![ptr::null::<c_char>(); sizes.len()];
    // SAFETY: there is room for as many names as there are dimensions.
    api.check(unsafe { (functions.GetSymbolicDimensions)(info, names.as_mut_ptr(), names.len()) })?;
    let dimensions = sizes.into_iter().zip(names).map(|(size, name)| {
        // SAFETY: a name that is not null is terminated and valid as long as `info` is.
        let name = if name.is_null() { CString::default() } else { unsafe { CStr::from_ptr(name) }.to_owned() };
        Dimension { size, name }
    });
    Ok((element, dimensions.collect()))
}

/// # Safety
/// `context` must be valid.
unsafe fn set_output(
    api: Api,
    context: *mut sys::OrtShapeInferContext,
    element: sys::ONNXTensorElementDataType,
    shape: &[Dimension],
) -> Result<(), Error> {
    let functions = api.functions();
    let sizes: Vec<i64> = shape.iter().map(|dimension| dimension.size).collect();
    let mut names: Vec<_> = shape.iter().map(|dimension| dimension.name.as_ptr()).collect();
    // SAFETY: the out-pointer is to a live variable.
    let info = api.create("output shape", |out| unsafe { (functions.CreateTensorTypeAndShapeInfo)(out) })?;
    // SAFETY: `info` is valid until it is released below; both arrays have the lengths given and are copied.
    let set = unsafe {
        api.check((functions.SetTensorElementType)(info, element))
            .and_then(|()| api.check((functions.SetDimensions)(info, sizes.as_ptr(), sizes.len())))
            .and_then(|()| api.check((functions.SetSymbolicDimensions)(info, names.as_mut_ptr(), names.len())))
            .and_then(|()| api.check((functions.ShapeInferContext_SetOutputTypeShape)(context, 0, info)))
    };
    // SAFETY: created above, not used again.
    unsafe { (functions.ReleaseTensorTypeAndShapeInfo)(info) };
    set
}

/// The attributes, as this callback can see them. Only integers bear on the shape.
struct Node {
    api: Api,
    context: *mut sys::OrtShapeInferContext,
}

impl Source for Node {
    fn float(&self, _: &'static str) -> Result<Option<f32>, Error> {
        Ok(None)
    }

    fn int(&self, name: &'static str) -> Result<Option<i64>, Error> {
        let functions = self.api.functions();
        let name = CString::new(name).unwrap_or_default();
        let (mut attribute, mut value, mut len) = (ptr::null(), 0i64, 0);
        // SAFETY: the context is valid, the name is terminated, and the out-pointers are to live variables.
        let found = unsafe { (functions.ShapeInferContext_GetAttribute)(self.context, name.as_ptr(), &mut attribute) };
        if self.api.check(found).is_err() {
            return Ok(None);
        }
        let kind = sys::OrtOpAttrType::ORT_OP_ATTR_INT;
        // SAFETY: the attribute was found, and there is room for one integer.
        let read =
            unsafe { (functions.ReadOpAttr)(attribute, kind, (&raw mut value).cast(), size_of_val(&value), &mut len) };
        self.api.check(read).map(|()| Some(value))
    }

    fn text(&self, _: &'static str) -> Result<Option<String>, Error> {
        Ok(None)
    }
}
