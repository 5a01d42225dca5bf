//! The tensors and the threads of one call.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use ort::sys::{self, ONNXTensorElementDataType as Type};

use super::Error;
use super::api::{Api, text_of};
use super::call::{Inputs, Tensor, input};
use super::element::Element;

/// Where a tensor begins in the memory of a device, which the host can't read.
pub(super) type DeviceAddress = u64;

/// Valid during one call of a kernel.
pub(super) struct Context<'a> {
    api: Api,
    context: *mut sys::OrtKernelContext,
    has_output: bool,
    lifetime: PhantomData<&'a sys::OrtKernelContext>,
}

impl<'a> Context<'a> {
    /// # Safety
    /// `context` must be what the runtime of `api` passed to the kernel's compute function, and outlive `'a`.
    pub(super) unsafe fn new(api: Api, context: *mut sys::OrtKernelContext) -> Self {
        Self { api, context, has_output: false, lifetime: PhantomData }
    }

    pub(super) fn as_ptr(&self) -> *const sys::OrtKernelContext {
        self.context
    }

    /// All inputs; `matrix` reads one that is no damping.
    pub(super) fn inputs<D>(
        &self,
        matrix: impl Fn(usize, &'static str) -> Result<Option<Tensor<D>>, Error>,
    ) -> Result<Inputs<D>, Error> {
        Ok(Inputs {
            g: matrix(input::G, "G")?,
            a: matrix(input::A, "A")?,
            lambda_a: self.scalar(input::LAMBDA_A, "lambda_a")?,
            g_bar: matrix(input::G_BAR, "GBar")?,
            lambda_g: self.scalar(input::LAMBDA_G, "lambda_g")?,
            c: matrix(input::C, "C")?,
        })
    }

    /// Input `index`, which is in main memory, or `None` if the node leaves it out.
    pub(super) fn host_input<E: Element>(
        &self,
        index: usize,
        name: &'static str,
    ) -> Result<Option<Tensor<&'a [E]>>, Error> {
        let Some(Tensor { shape, data }) = self.tensor::<E>(index, name)? else {
            return Ok(None);
        };
        let len = shape.iter().product();
        // SAFETY: the tensor has `len` elements of this type, which the runtime keeps unchanged during the call.
        Ok(Some(Tensor { shape, data: unsafe { slice::from_raw_parts(data, len) } }))
    }

    /// Input `index`, which is in the memory of a device, or `None` if the node leaves it out.
    pub(super) fn device_input<E: Element>(
        &self,
        index: usize,
        name: &'static str,
    ) -> Result<Option<Tensor<DeviceAddress>>, Error> {
        let tensor = self.tensor::<E>(index, name)?;
        Ok(tensor.map(|Tensor { shape, data }| Tensor { shape, data: data.addr() as DeviceAddress }))
    }

    fn tensor<E: Element>(&self, index: usize, name: &'static str) -> Result<Option<Tensor<*const E>>, Error> {
        let Some(value) = self.input_value(index)? else {
            return Ok(None);
        };
        let (element, shape) = self.type_and_shape(value)?;
        if element != E::TYPE {
            return Err(Error::Input { name, problem: format!("has elements of type {}", element as i32) });
        }
        let len = shape.iter().product();
        // SAFETY: the tensor has elements of this type.
        let data = unsafe { self.elements::<E>(value.cast_mut(), len)? };
        Ok(Some(Tensor { shape, data }))
    }

    /// Input `index` as one number of any floating-point type, or `None` if the node leaves it out.
    pub(super) fn scalar(&self, index: usize, name: &'static str) -> Result<Option<f64>, Error> {
        let Some(value) = self.input_value(index)? else {
            return Ok(None);
        };
        let (element, shape) = self.type_and_shape(value)?;
        if shape.iter().product::<usize>() != 1 {
            return Err(Error::Input { name, problem: format!("must be one number, but has the shape {shape:?}") });
        }
        let value = value.cast_mut();
        // SAFETY: the tensor has one element, of the type that is read.
        let number = unsafe {
            match element {
                Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT => f64::from(*self.elements::<f32>(value, 1)?),
                Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE => *self.elements::<f64>(value, 1)?,
                Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 => (*self.elements::<f16>(value, 1)?).to_f64(),
                Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 => (*self.elements::<bf16>(value, 1)?).to_f64(),
                other => {
                    let problem = format!("must be a floating-point number, but has the type {}", other as i32);
                    return Err(Error::Input { name, problem });
                }
            }
        };
        Ok(Some(number))
    }

    /// Allocates the only output in main memory, once.
    pub(super) fn host_output<E: Element>(&mut self, shape: &[usize]) -> Result<&'a mut [E], Error> {
        let len = shape.iter().product();
        let data = self.output::<E>(shape)?;
        // SAFETY: the runtime allocated `len` elements of the type that this operator declares for its output; nobody
        // else has them during the call, and no second slice of them is made.
        Ok(unsafe { slice::from_raw_parts_mut(data, len) })
    }

    /// Allocates the only output in the memory of a device, once.
    pub(super) fn device_output<E: Element>(&mut self, shape: &[usize]) -> Result<DeviceAddress, Error> {
        Ok(self.output::<E>(shape)?.addr() as DeviceAddress)
    }

    fn output<E: Element>(&mut self, shape: &[usize]) -> Result<*mut E, Error> {
        if std::mem::replace(&mut self.has_output, true) {
            return Err(Error::Runtime("the output was asked for twice".into()));
        }
        let dimensions: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let value = self.api.create("output", |out| {
            // SAFETY: the context is valid, and the dimensions are a live array of the given length.
            unsafe {
                let get = self.api.functions().KernelContext_GetOutput;
                get(self.context, 0, dimensions.as_ptr(), dimensions.len(), out)
            }
        })?;
        // SAFETY: the output is a tensor of this call, of the type that this operator declares for it.
        unsafe { self.elements::<E>(value, shape.iter().product()) }
    }

    /// The stream on which the device is to work for this call: for providers that have streams.
    pub(super) fn stream(&self) -> Result<*mut c_void, Error> {
        let mut stream = std::ptr::null_mut();
        let get = self.api.functions().KernelContext_GetGPUComputeStream;
        // SAFETY: the context is valid; the out-pointer is to a live variable. Null is the default stream.
        self.api.check(unsafe { get(self.context, &mut stream) })?;
        Ok(stream)
    }

    /// Calls `task` once with each index below `count`, on the session's threads, and returns when all calls have.
    pub(super) fn for_each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), Error> {
        struct Tasks<'t> {
            task: &'t (dyn Fn(usize) + Sync),
            /// What the last of them said that panicked.
            panic: Mutex<Option<String>>,
        }

        unsafe extern "C" fn run(tasks: *mut c_void, index: usize) {
            // SAFETY: the runtime passes on what it was given below, which lives until it returns.
            let tasks = unsafe { &*tasks.cast::<Tasks<'_>>() };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (tasks.task)(index))) {
                *tasks.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(text_of(panic.as_ref()).to_owned());
            }
        }

        let mut tasks = Tasks { task, panic: Mutex::default() };
        let parallel_for = self.api.functions().KernelContext_ParallelFor;
        // SAFETY: the context is valid, and the tasks live until all of them are done. No number of batches: each thread takes
        // the next task.
        self.api.check(unsafe { parallel_for(self.context, run, count, 0, (&raw mut tasks).cast()) })?;
        match tasks.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(text) => Err(Error::Runtime(format!("internal error on a thread of the session: {text}"))),
            None => Ok(()),
        }
    }

    fn input_value(&self, index: usize) -> Result<Option<*const sys::OrtValue>, Error> {
        let functions = self.api.functions();
        let mut count = 0;
        let mut value = std::ptr::null();
        // SAFETY: the context is valid; the out-pointers are to live variables; the index is in range.
        unsafe {
            self.api.check((functions.KernelContext_GetInputCount)(self.context, &mut count))?;
            if index < count {
                self.api.check((functions.KernelContext_GetInput)(self.context, index, &mut value))?;
            }
        }
        Ok((!value.is_null()).then_some(value))
    }

    fn type_and_shape(&self, value: *const sys::OrtValue) -> Result<(Type, Vec<usize>), Error> {
        let functions = self.api.functions();
        // SAFETY: `value` is a tensor of this call: the schema allows nothing else.
        let info = self.api.create("tensor shape", |out| unsafe { (functions.GetTensorTypeAndShape)(value, out) })?;
        // SAFETY: `info` is valid until it is released below, which happens whatever `read_info` returns.
        let read = unsafe { read_info(self.api, info) };
        // SAFETY: `info` was created above and is not used again.
        unsafe { (functions.ReleaseTensorTypeAndShapeInfo)(info) };
        let (element, dimensions) = read?;
        Ok((element, dimensions.into_iter().map(|size| size as usize).collect()))
    }

    /// Pointer to the first of `len` elements; never null.
    ///
    /// # Safety
    /// `value` must be a tensor of this call with elements of type `E`.
    unsafe fn elements<E>(&self, value: *mut sys::OrtValue, len: usize) -> Result<*mut E, Error> {
        if len == 0 {
            return Ok(std::ptr::NonNull::dangling().as_ptr());
        }
        let data = self.api.create("tensor data", |out| {
            // SAFETY: `value` is a tensor, by this function's contract.
            unsafe { (self.api.functions().GetTensorMutableData)(value, out) }
        })?;
        Ok(data.cast())
    }
}

/// Element type and dimensions; a dimension that is not known is negative.
///
/// # Safety
/// `info` must be valid.
pub(super) unsafe fn read_info(
    api: Api,
    info: *const sys::OrtTensorTypeAndShapeInfo,
) -> Result<(Type, Vec<i64>), Error> {
    let functions = api.functions();
    let mut element = Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    let mut rank = 0;
    // SAFETY: `info` is valid, and each out-pointer is to a live variable or array of the given length.
    unsafe {
        api.check((functions.GetTensorElementType)(info, &mut element))?;
        api.check((functions.GetDimensionsCount)(info, &mut rank))?;
        let mut dimensions = vec![0; rank];
        api.check((functions.GetDimensions)(info, dimensions.as_mut_ptr(), rank))?;
        Ok((element, dimensions))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ops::api::stand_in;

    unsafe extern "system" fn one_after_the_other(
        _: *const sys::OrtKernelContext,
        task: unsafe extern "C" fn(*mut c_void, usize),
        count: usize,
        _: usize,
        tasks: *mut c_void,
    ) -> sys::OrtStatusPtr {
        // SAFETY: what the caller gave, while it waits.
        (0..count).for_each(|index| unsafe { task(tasks, index) });
        sys::OrtStatusPtr::default()
    }

    #[test]
    fn a_panic_on_a_thread_is_an_error_that_says_what_it_said() {
        let api =
            stand_in::runtime(stand_in::some_version, |table| table.KernelContext_ParallelFor = one_after_the_other);
        // SAFETY: this runtime's ParallelFor asks nothing of the context.
        let context = unsafe { Context::new(api, std::ptr::null_mut()) };
        let done = AtomicUsize::new(0);
        let count = |_| {
            done.fetch_add(1, Ordering::Relaxed);
        };
        context.for_each(3, &count).unwrap();
        let broken = |index| if index == 1 { panic!("task {index} is broken") } else { count(index) };
        let error = context.for_each(3, &broken).unwrap_err().to_string();
        assert!(error.ends_with("internal error on a thread of the session: task 1 is broken"), "{error}");
        assert_eq!(done.into_inner(), 5, "the other tasks are done");
    }
}
