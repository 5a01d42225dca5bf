//! One node of the operator, and one call of it.

use std::sync::Arc;

use super::Error;
use super::attributes::{Attributes, check_damping};
use super::context::Context;
use super::element::Element;
use super::gemm::{Kernels, RuntimeProducts};
use super::info::KernelInfo;
use super::pool::Pool;
use super::shapes::Sizes;
use crate::curvature::{self, Layer, Matrix, Products, Sampled, conditioned_gradient};

/// Indices of the operator's inputs.
mod input {
    pub(super) const G: usize = 0;
    pub(super) const A: usize = 1;
    pub(super) const LAMBDA_A: usize = 2;
    pub(super) const G_BAR: usize = 3;
    pub(super) const LAMBDA_G: usize = 4;
}

/// Whether the operator can be left without input `index`.
pub(super) fn is_optional(index: usize) -> bool {
    index >= input::LAMBDA_A
}

/// Whether input `index` is a tensor of the operator's element type, and not a damping of any type.
pub(super) fn is_matrix(index: usize) -> bool {
    matches!(index, input::G | input::A | input::G_BAR)
}

/// Number of inputs that the operator declares.
pub(super) const INPUTS: usize = input::LAMBDA_G + 1;

/// Buffers of one call.
pub(super) struct Workspace<E: Element> {
    curvature: curvature::Workspace<E::Compute>,
    gradients: Vec<E::Compute>,
    inputs: Vec<E::Compute>,
    sampled: Vec<E::Compute>,
    output: Vec<E::Compute>,
}

impl<E: Element> Default for Workspace<E> {
    fn default() -> Self {
        Self {
            curvature: curvature::Workspace::default(),
            gradients: Vec::new(),
            inputs: Vec::new(),
            sampled: Vec::new(),
            output: Vec::new(),
        }
    }
}

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
        let missing = |name| move || Error::Input { name, problem: "is missing".into() };
        let g = context.input::<E>(input::G, "G")?.ok_or_else(missing("G"))?;
        let a = context.input::<E>(input::A, "A")?.ok_or_else(missing("A"))?;
        let g_bar = context.input::<E>(input::G_BAR, "GBar")?;
        let damping = |index, name, attribute: Option<f64>| match context.scalar(index, name)? {
            Some(lambda) => check_damping(name, lambda),
            None => attribute.ok_or(Error::NoDamping { name }),
        };
        let lambda_a = damping(input::LAMBDA_A, "lambda_a", self.attributes.lambda_a)?;
        let lambda_g = damping(input::LAMBDA_G, "lambda_g", Some(self.attributes.lambda_g))?;
        let layout = &self.attributes.layout;
        let g_bar_shape = g_bar.as_ref().map(|g_bar| g_bar.shape.as_slice());
        let sizes = Sizes::new(layout, &g.shape, &a.shape, g_bar_shape)?;
        let output = context.output::<E>(&sizes.output)?;
        if output.is_empty() {
            return Ok(());
        }
        let Sizes { layers, rows, sampled_rows, out_features, in_features, .. } = sizes;
        let mut products = self.kernels.during(context);
        self.pool.lend(|workspace| {
            let Workspace { curvature, gradients, inputs, sampled, output: buffer } = workspace;
            for (index, output) in output.chunks_exact_mut(out_features * in_features).enumerate() {
                let of_layer = |tensor| of_layer(tensor, index, layers);
                let gradients = E::widen(of_layer(g.data), gradients);
                let inputs = E::widen(of_layer(a.data), inputs);
                let sampled = g_bar.as_ref().map(|g_bar| E::widen(of_layer(g_bar.data), sampled));
                let layer = Layer {
                    gradients: samples(gradients, [rows, out_features], layout.trans_g),
                    inputs: samples(inputs, [rows, in_features], layout.trans_a),
                    lambda: lambda_a,
                    sampled: sampled.map(|sampled| Sampled {
                        gradients: samples(sampled, [sampled_rows, out_features], layout.trans_g),
                        lambda: lambda_g,
                    }),
                    alpha: self.attributes.alpha,
                    form: self.attributes.form,
                    transpose_output: layout.trans_y,
                };
                E::fill(output, buffer, |output| conditioned_gradient(&layer, curvature, &mut products, output))?;
            }
            Ok(())
        })
    }
}

/// The part of a batched tensor that belongs to one layer.
fn of_layer<E>(tensor: &[E], index: usize, layers: usize) -> &[E] {
    let len = tensor.len() / layers;
    &tensor[index * len..(index + 1) * len]
}

/// A matrix of which the rows are samples, over a tensor that is perhaps stored features-first.
fn samples<T: Copy>(data: &[T], [rows, features]: [usize; 2], transposed: bool) -> Matrix<'_, T> {
    if transposed { Matrix::new(data, features, rows).t() } else { Matrix::new(data, rows, features) }
}
