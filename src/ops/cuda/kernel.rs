//! One node of the operator on a CUDA device.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::sync::Arc;

use half::{bf16, f16};

use super::driver::{Device, Failure, Record};
use super::memory::{DeviceMemory, Scratch};
use super::plan::{self, Launch, Planned};
use super::steps::{Bump, Planner, Step, Stored};
use crate::ops::Error;
use crate::ops::attributes::{Attributes, Layout};
use crate::ops::call::Call;
use crate::ops::context::Context;
use crate::ops::element::Element;
use crate::ops::gemm::{Form, Gemm, Operand};
use crate::ops::info::KernelInfo;
use crate::ops::register::NodeKernel;

/// An element type that our kernels read.
pub(in crate::ops) trait DeviceElement: Element {
    /// What they call it.
    const KIND: plan::Element;
}

impl DeviceElement for f32 {
    const KIND: plan::Element = plan::Element::Float;
}

impl DeviceElement for f16 {
    const KIND: plan::Element = plan::Element::Half;
}

impl DeviceElement for bf16 {
    const KIND: plan::Element = plan::Element::BFloat16;
}

/// A node's kernel. It is never changed by a call, so that runs of a session can share it.
pub(in crate::ops) struct CudaKernel<E> {
    description: String,
    attributes: Attributes,
    device: &'static Device,
    memory: Arc<DeviceMemory>,
    record: Record,
    /// The product of conditioned operands, which are floats.
    single: Gemm,
    /// The product of the inputs as they are.
    plain: Gemm,
    element: PhantomData<fn(E)>,
}

impl<E: DeviceElement> NodeKernel for CudaKernel<E> {
    type Element = E;
    type Shared = ();

    const PROVIDER: &'static CStr = c"CUDAExecutionProvider";

    fn new(info: &KernelInfo<'_>, _: Arc<()>) -> Result<Self, Error> {
        let attributes = Attributes::read(info)?;
        let memory = DeviceMemory::of(info)?;
        let device = memory.device();
        let form = form(&attributes);
        Ok(Self {
            description: info.describe(),
            device,
            memory,
            record: Record::new(device)?,
            single: Gemm::new(info, f32::TYPE, form)?,
            plain: Gemm::new(info, E::TYPE, form)?,
            attributes,
            element: PhantomData,
        })
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn compute(&self, mut context: Context<'_>) -> Result<(), Error> {
        if let Some(Failure { pivot, order, lambda }) = self.record.take() {
            return Err(Error::Breakdown { pivot, order, lambda });
        }
        let inputs = context.inputs(|index, name| context.device_input::<E>(index, name))?;
        let call = Call::new(&self.attributes, inputs)?;
        let output = context.device_output::<E>(call.output_shape())?;
        if call.output_shape().contains(&0) {
            return Ok(());
        }
        let planner = Planner { call: &call, element: E::KIND, output };
        let mut needed = Bump::new(0);
        planner.steps(&mut needed)?;
        self.device.bind()?;
        let stream = context.stream()?;
        // SAFETY: the device is bound, and the stream one of its streams.
        let scratch = unsafe { self.memory.scratch(stream, needed.needed)? };
        let steps = planner.steps(&mut Bump::new(scratch.as_ref().map_or(0, Scratch::address)))?;
        steps.iter().try_for_each(|step| self.submit(step, &context, stream))
    }
}

impl<E: DeviceElement> CudaKernel<E> {
    fn submit(&self, step: &Step, context: &Context<'_>, stream: *mut c_void) -> Result<(), Error> {
        match *step {
            Step::Solve(solve, scratch) => self.launch(&solve.launches(scratch, self.record.address()), stream),
            Step::Sampled(sampled, scratch) => self.launch(&sampled.launches(scratch, self.record.address()), stream),
            Step::Convert(convert) => self.launch(&convert.launches(), stream),
            // SAFETY: the device is bound, the stream one of its streams, and there are as many bytes of output.
            Step::Clear { address, bytes } => unsafe { self.device.clear(address, bytes, stream) },
            // SAFETY: as above, and as many bytes of what is copied.
            Step::Copy { from, to, bytes } => unsafe { self.device.copy([from, to], bytes, stream) },
            Step::Product { element, operands, addend, out } => {
                let gemm = if element == plan::Element::Float { &self.single } else { &self.plain };
                let memory = self.memory.description()?;
                // SAFETY: the matrices are the call's tensors and its scratch memory, which stay as they are until the
                // stream has done this step.
                unsafe { gemm.multiply(context, memory, operands.map(operand), addend.map(operand), operand(out)) }
            }
        }
    }

    fn launch(&self, launches: &[Launch], stream: *mut c_void) -> Result<(), Error> {
        launches.iter().try_for_each(|launch| {
            // SAFETY: the device is bound, and the stream one of its streams. The addresses are of the call's tensors, of
            // scratch memory and of the record, which stay as they are until the stream has done this step.
            unsafe { self.device.launch(launch, stream) }
        })
    }
}

fn operand(Stored { address, shape }: Stored) -> Operand {
    Operand { data: std::ptr::without_provenance_mut(address as usize), shape }
}

/// dW = alpha·Gᵀ A, or dWᵀ = alpha·Aᵀ G, for operands that are stored as the attributes say.
fn form(attributes: &Attributes) -> Form {
    let Layout { trans_g, trans_a, trans_y, .. } = attributes.layout;
    let alpha = attributes.alpha as f32;
    if trans_y {
        Form { trans_a: !trans_a, trans_b: trans_g, alpha }
    } else {
        Form { trans_a: !trans_g, trans_b: trans_a, alpha }
    }
}
