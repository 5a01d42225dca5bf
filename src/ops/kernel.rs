//! One node of the operator on the CPU.

use std::ffi::CStr;
use std::sync::Arc;

use super::Error;
use super::attributes::Attributes;
use super::call::{Call, Workspace};
use super::context::Context;
use super::element::Element;
use super::info::KernelInfo;
use super::pool::Pool;
use super::products::Kernels;
use super::register::NodeKernel;

/// A node's kernel. It is never changed by a call, so that runs of a session can share it.
pub(super) struct CpuKernel<E: Element> {
    description: String,
    attributes: Attributes,
    kernels: Kernels<E::Compute>,
    pool: Arc<Pool<Workspace<E>>>,
}

impl<E: Element> NodeKernel for CpuKernel<E> {
    type Element = E;
    type Shared = Pool<Workspace<E>>;

    const PROVIDER: &'static CStr = c"CPUExecutionProvider";

    fn new(info: &KernelInfo<'_>, pool: Arc<Self::Shared>) -> Result<Self, Error> {
        Ok(Self {
            description: info.describe(),
            attributes: Attributes::read(info)?,
            kernels: Kernels::new(info)?,
            pool,
        })
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn compute(&self, mut context: Context<'_>) -> Result<(), Error> {
        let inputs = context.inputs(|index, name| context.host_input::<E>(index, name))?;
        let call = Call::new(&self.attributes, inputs)?;
        let output = context.host_output::<E>(call.output_shape())?;
        let mut products = self.kernels.during(context);
        self.pool.lend(|workspace| call.write(output, workspace, &mut products))
    }
}
