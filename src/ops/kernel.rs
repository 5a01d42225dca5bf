//! One node of the operator in ONNX Runtime.

use std::sync::Arc;

use super::Error;
use super::attributes::Attributes;
use super::call::{Call, Inputs, Workspace, input};
use super::context::Context;
use super::element::Element;
use super::gemm::{Kernels, RuntimeProducts};
use super::info::KernelInfo;
use super::pool::Pool;
use crate::curvature::Products;

/// A node's kernel. It is never changed by a call, so that runs of a session can share it.
pub(super) struct Kernel<E: Element> {
    description: String,
    attributes: Attributes,
    kernels: Kernels,
    pool: Arc<Pool<Workspace<E>>>,
}

impl<E: Element> Kernel<E>
where
    for<'a> RuntimeProducts<'a>: Products<E::Compute>,
{
    pub(super) fn new(info: &KernelInfo<'_>, pool: Arc<Pool<Workspace<E>>>) -> Result<Self, Error> {
        Ok(Self {
            description: info.describe(),
            attributes: Attributes::read(info)?,
            kernels: Kernels::new(info)?,
            pool,
        })
    }

    /// The node, for messages.
    pub(super) fn describe(&self) -> String {
        self.description.clone()
    }

    /// Reads the inputs of a call and writes its output.
    pub(super) fn compute(&self, mut context: Context<'_>) -> Result<(), Error> {
        let inputs = Inputs {
            g: context.input::<E>(input::G, "G")?,
            a: context.input(input::A, "A")?,
            lambda_a: context.scalar(input::LAMBDA_A, "lambda_a")?,
            g_bar: context.input(input::G_BAR, "GBar")?,
            lambda_g: context.scalar(input::LAMBDA_G, "lambda_g")?,
        };
        let call = Call::new(&self.attributes, inputs)?;
        let output = context.output::<E>(call.output_shape())?;
        let mut products = self.kernels.during(context);
        self.pool.lend(|workspace| call.write(output, workspace, &mut products))
    }
}
