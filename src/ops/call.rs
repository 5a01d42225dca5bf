//! One call of the operator, wherever its tensors come from.

use super::Error;
use super::attributes::{Attributes, check_damping};
use super::element::Element;
use super::shapes::Sizes;
use crate::curvature::{self, Layer, Matrix, Products, Sampled, conditioned_gradient};

/// Indices of the operator's inputs.
pub mod input {
    /// The gradient of the layer's output.
    pub const G: usize = 0;
    /// The layer's input.
    pub const A: usize = 1;
    /// The damping of the curvature from A.
    pub const LAMBDA_A: usize = 2;
    /// The output gradients of sampled labels.
    pub const G_BAR: usize = 3;
    /// The damping of the curvature from GBar.
    pub const LAMBDA_G: usize = 4;
    /// What the gradient is added to.
    pub const C: usize = 5;
}

/// Number of inputs that the operator declares.
pub const INPUTS: usize = input::C + 1;

/// Whether the operator can be left without input `index`.
pub(super) fn is_optional(index: usize) -> bool {
    index >= input::LAMBDA_A
}

/// Whether input `index` is a tensor of the operator's element type, and not a damping of any type.
pub(super) fn is_matrix(index: usize) -> bool {
    matches!(index, input::G | input::A | input::G_BAR | input::C)
}

/// A tensor's shape and its elements, or where they are.
pub struct Tensor<D> {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, or where they are.
    pub data: D,
}

/// The inputs of a call; `None` is one that the node leaves out.
pub struct Inputs<D> {
    /// G.
    pub g: Option<Tensor<D>>,
    /// A.
    pub a: Option<Tensor<D>>,
    /// The damping for A.
    pub lambda_a: Option<f64>,
    /// GBar.
    pub g_bar: Option<Tensor<D>>,
    /// The damping for GBar.
    pub lambda_g: Option<f64>,
    /// C.
    pub c: Option<Tensor<D>>,
}

/// Buffers of a call.
pub struct Workspace<E: Element> {
    curvature: curvature::Workspace<E::Compute>,
    gradients: Vec<E::Compute>,
    inputs: Vec<E::Compute>,
    sampled: Vec<E::Compute>,
    addend: Vec<E::Compute>,
    output: Vec<E::Compute>,
}

impl<E: Element> Default for Workspace<E> {
    fn default() -> Self {
        Self {
            curvature: curvature::Workspace::default(),
            gradients: Vec::new(),
            inputs: Vec::new(),
            sampled: Vec::new(),
            addend: Vec::new(),
            output: Vec::new(),
        }
    }
}

/// A call whose inputs fit the attributes and each other.
pub struct Call<'a, D> {
    pub(super) attributes: &'a Attributes,
    pub(super) g: Tensor<D>,
    pub(super) a: Tensor<D>,
    pub(super) g_bar: Option<Tensor<D>>,
    pub(super) c: Option<Tensor<D>>,
    pub(super) lambda_a: f64,
    pub(super) lambda_g: f64,
    pub(super) sizes: Sizes,
}

impl<'a, D> Call<'a, D> {
    /// Checks a call.
    ///
    /// # Errors
    /// Inputs that are missing, that fit neither each other nor the attributes, or a damping that is none.
    pub fn new(attributes: &'a Attributes, inputs: Inputs<D>) -> Result<Self, Error> {
        let missing = |name| move || Error::Input { name, problem: "is missing".into() };
        let g = inputs.g.ok_or_else(missing("G"))?;
        let a = inputs.a.ok_or_else(missing("A"))?;
        let damping = |name, input, attribute: Option<f64>| match input {
            Some(lambda) => check_damping(name, lambda),
            None => attribute.ok_or(Error::NoDamping { name }),
        };
        let lambda_a = damping("lambda_a", inputs.lambda_a, attributes.lambda_a)?;
        let lambda_g = damping("lambda_g", inputs.lambda_g, Some(attributes.lambda_g))?;
        let g_bar_shape = inputs.g_bar.as_ref().map(|g_bar| g_bar.shape.as_slice());
        let sizes = Sizes::new(&attributes.layout, &g.shape, &a.shape, g_bar_shape)?;
        if let Some(c) = inputs.c.as_ref().filter(|c| c.shape != sizes.output) {
            let problem = format!("has the shape {:?}, and the output has the shape {:?}", c.shape, sizes.output);
            return Err(Error::Input { name: "C", problem });
        }
        Ok(Self { attributes, g, a, g_bar: inputs.g_bar, c: inputs.c, lambda_a, lambda_g, sizes })
    }

    /// The shape of the output.
    pub fn output_shape(&self) -> &[usize] {
        &self.sizes.output
    }
}

impl<E: Element> Call<'_, &[E]> {
    /// Writes the output, which has the shape [`Self::output_shape`].
    ///
    /// # Errors
    /// A curvature that breaks down, or what `products` says.
    pub fn write<P>(&self, output: &mut [E], workspace: &mut Workspace<E>, products: &mut P) -> Result<(), Error>
    where
        P: Products<E::Compute>,
    {
        if output.is_empty() {
            return Ok(());
        }
        let Sizes { layers, rows, sampled_rows, out_features, in_features, .. } = self.sizes;
        let layout = &self.attributes.layout;
        let Workspace { curvature, gradients, inputs, sampled, addend, output: buffer } = workspace;
        for (index, output) in output.chunks_exact_mut(out_features * in_features).enumerate() {
            let of_layer = |tensor| of_layer(tensor, index, layers);
            let gradients = E::widen(of_layer(self.g.data), gradients);
            let inputs = E::widen(of_layer(self.a.data), inputs);
            let sampled = self.g_bar.as_ref().map(|g_bar| E::widen(of_layer(g_bar.data), sampled));
            let addend = self.c.as_ref().map(|c| E::widen(of_layer(c.data), addend));
            let layer = Layer {
                gradients: samples(gradients, [rows, out_features], layout.trans_g),
                inputs: samples(inputs, [rows, in_features], layout.trans_a),
                lambda: self.lambda_a,
                sampled: sampled.map(|sampled| Sampled {
                    gradients: samples(sampled, [sampled_rows, out_features], layout.trans_g),
                    lambda: self.lambda_g,
                }),
                alpha: self.attributes.alpha,
                addend,
                form: self.attributes.form,
                transpose_output: layout.trans_y,
            };
            E::fill(output, buffer, |output| conditioned_gradient(&layer, curvature, products, output))?;
        }
        Ok(())
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
