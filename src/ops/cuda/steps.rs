//! From a call to what a stream does for it, in this order.

use super::plan::{Convert, Damping, Element, Planned, Sampled, Solve, View};
use crate::curvature::Form;
use crate::ops::Error;
use crate::ops::call::{Call, Tensor};
use crate::ops::context::DeviceAddress;

/// What a stream does for a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// By kernels of our own, with scratch memory at this address.
    Solve(Solve, DeviceAddress),
    /// As above.
    Sampled(Sampled, DeviceAddress),
    /// By a kernel of our own.
    Convert(Convert),
    /// The runtime's product of two stored matrices of this element type, and what is added to it.
    Product { element: Element, operands: [Stored; 2], addend: Option<Stored>, out: Stored },
    /// Zeros instead of a product of nothing.
    Clear { address: DeviceAddress, bytes: usize },
    /// What is added to a product of nothing.
    Copy { from: DeviceAddress, to: DeviceAddress, bytes: usize },
}

/// A row-major matrix as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) address: DeviceAddress,
    pub(super) shape: [usize; 2],
}

/// Scratch memory, handed out from the front. Planned from address zero, it says how much a call needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bump {
    start: DeviceAddress,
    /// Bytes handed out at once, at most.
    pub(super) needed: usize,
    used: usize,
}

impl Bump {
    /// Of what the kernels load at once, a multiple.
    const ALIGNMENT: usize = 256;

    pub(super) fn new(start: DeviceAddress) -> Self {
        Self { start, needed: 0, used: 0 }
    }

    fn take(&mut self, bytes: usize) -> DeviceAddress {
        let address = self.start + self.used as DeviceAddress;
        self.used += bytes.next_multiple_of(Self::ALIGNMENT);
        self.needed = self.needed.max(self.used);
        address
    }

    /// Memory for one step: the next may have it too.
    fn lend(&mut self, bytes: usize) -> DeviceAddress {
        let used = self.used;
        let address = self.take(bytes);
        self.used = used;
        address
    }

    fn floats(&mut self, count: usize) -> DeviceAddress {
        self.take(count * Element::Float.bytes())
    }
}

/// A call with everything that its launches need to know.
pub(super) struct Planner<'a> {
    pub(super) call: &'a Call<'a, DeviceAddress>,
    pub(super) element: Element,
    pub(super) output: DeviceAddress,
}

impl Planner<'_> {
    /// The steps of all layers. They come one after the other, in the same scratch memory.
    pub(super) fn steps(&self, scratch: &mut Bump) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        for index in 0..self.call.sizes.layers {
            scratch.used = 0;
            self.layer(index, scratch, &mut steps)?;
        }
        Ok(steps)
    }

    fn layer(&self, index: usize, scratch: &mut Bump, steps: &mut Vec<Step>) -> Result<(), Error> {
        let sizes = &self.call.sizes;
        let count = sizes.out_features * sizes.in_features;
        let output = self.output + (index * count * self.element.bytes()) as DeviceAddress;
        let layout = &self.call.attributes.layout;
        let shape = [sizes.out_features, sizes.in_features];
        let addend = self.call.c.as_ref().map(|c| self.matrix(c, index, shape, layout.trans_y));
        if sizes.rows == 0 {
            let bytes = count * self.element.bytes();
            steps.push(match addend {
                Some(View { address, .. }) => Step::Copy { from: address, to: output, bytes },
                None => Step::Clear { address: output, bytes },
            });
            return Ok(());
        }
        let g = self.matrix(&self.call.g, index, [sizes.rows, sizes.out_features], layout.trans_g);
        let a = self.matrix(&self.call.a, index, [sizes.rows, sizes.in_features], layout.trans_a);
        let damping_a = self.damping(self.call.lambda_a);
        let damping_g = self.damping(self.call.lambda_g).zip(self.sampled(index));
        if damping_a.is_none() && damping_g.is_none() {
            self.product(self.element, [g, a], addend, output, steps);
            return Ok(());
        }
        let [mut g, mut a] = [g, a].map(|matrix| self.widened(matrix, scratch, steps));
        if let Some(damping) = damping_a {
            a = self.condition_inputs(a, damping, scratch, steps)?;
        }
        if let Some((damping, g_bar)) = damping_g {
            let g_bar = self.widened(g_bar, scratch, steps);
            g = self.condition_gradients(g, g_bar, damping, scratch, steps)?;
        }
        if self.element == Element::Float {
            self.product(Element::Float, [g, a], addend, output, steps);
            return Ok(());
        }
        let addend = addend.map(|addend| self.widened(addend, scratch, steps));
        let wide = scratch.floats(count);
        self.product(Element::Float, [g, a], addend, wide, steps);
        let narrow = Convert { from: (wide, Element::Float), to: (output, self.element), count };
        steps.push(Step::Convert(narrow));
        Ok(())
    }

    /// A layer's part of a tensor.
    fn matrix(
        &self,
        tensor: &Tensor<DeviceAddress>,
        index: usize,
        [rows, cols]: [usize; 2],
        stored_transposed: bool,
    ) -> View {
        let offset = index * rows * cols * self.element.bytes();
        View { address: tensor.data + offset as DeviceAddress, rows, cols, stored_transposed }
    }

    /// The gradients for sampled labels, if there are any.
    fn sampled(&self, index: usize) -> Option<View> {
        let sizes = &self.call.sizes;
        let g_bar = self.call.g_bar.as_ref().filter(|_| sizes.sampled_rows > 0)?;
        let shape = [sizes.sampled_rows, sizes.out_features];
        Some(self.matrix(g_bar, index, shape, self.call.attributes.layout.trans_g))
    }

    /// a (I + aᵀa/(b·λ))⁻¹
    fn condition_inputs(
        &self,
        a: View,
        damping: Damping,
        scratch: &mut Bump,
        steps: &mut Vec<Step>,
    ) -> Result<View, Error> {
        let side = if self.by_samples(a.rows <= a.cols) { a } else { a.t() };
        let result = scratch.floats(a.rows * a.cols);
        self.solve(Solve { s: side, y: side, damping, result }, scratch, steps)?;
        Ok(View { address: result, ..a })
    }

    /// g (I + ḡᵀḡ/(b·λ))⁻¹
    fn condition_gradients(
        &self,
        g: View,
        g_bar: View,
        damping: Damping,
        scratch: &mut Bump,
        steps: &mut Vec<Step>,
    ) -> Result<View, Error> {
        let result = scratch.floats(g.rows * g.cols);
        if self.by_samples(g_bar.rows < g_bar.cols) {
            let sampled = Sampled { g, g_bar, damping, result };
            self.check(sampled.is_counted())?;
            steps.push(Step::Sampled(sampled, scratch.lend(sampled.scratch_bytes())));
        } else {
            self.solve(Solve { s: g_bar.t(), y: g.t(), damping, result }, scratch, steps)?;
        }
        Ok(View { address: result, ..g })
    }

    fn solve(&self, solve: Solve, scratch: &mut Bump, steps: &mut Vec<Step>) -> Result<(), Error> {
        self.check(solve.is_counted())?;
        steps.push(Step::Solve(solve, scratch.lend(solve.scratch_bytes())));
        Ok(())
    }

    fn check(&self, is_counted: bool) -> Result<(), Error> {
        let shape = |tensor: &Tensor<DeviceAddress>| tensor.shape.clone();
        let Call { g, a, g_bar, .. } = self.call;
        is_counted.then_some(()).ok_or_else(|| Error::Shapes {
            problem: "the layer is larger than what CUDA kernels can count".into(),
            gradients: shape(g),
            inputs: shape(a),
            sampled: g_bar.as_ref().map(shape),
        })
    }

    /// Whether the order is the number of samples, and not of features: as the node says, or else as is cheaper.
    fn by_samples(&self, is_cheaper: bool) -> bool {
        match self.call.attributes.form {
            Form::Samples => true,
            Form::Features | Form::Kronecker => false,
            Form::Auto => is_cheaper,
        }
    }

    /// `None` is what an infinite damping leaves as it is.
    fn damping(&self, lambda: f64) -> Option<Damping> {
        let scale = 1.0 / (self.call.sizes.rows as f64 * lambda);
        lambda.is_finite().then_some(Damping { scale: scale as f32, lambda: lambda as f32 })
    }

    /// The matrix in floats.
    fn widened(&self, matrix: View, scratch: &mut Bump, steps: &mut Vec<Step>) -> View {
        if self.element == Element::Float {
            return matrix;
        }
        let count = matrix.rows * matrix.cols;
        let wide = scratch.floats(count);
        let widen = Convert { from: (matrix.address, self.element), to: (wide, Element::Float), count };
        steps.push(Step::Convert(widen));
        View { address: wide, ..matrix }
    }

    fn product(
        &self,
        element: Element,
        [g, a]: [View; 2],
        addend: Option<View>,
        output: DeviceAddress,
        steps: &mut Vec<Step>,
    ) {
        let (m, n) = (g.cols, a.cols);
        let (operands, shape) = if self.call.attributes.layout.trans_y { ([a, g], [n, m]) } else { ([g, a], [m, n]) };
        let operands = operands.map(|View { address, rows, cols, stored_transposed }| Stored {
            address,
            shape: if stored_transposed { [cols, rows] } else { [rows, cols] },
        });
        let addend = addend.map(|View { address, .. }| Stored { address, shape });
        steps.push(Step::Product { element, operands, addend, out: Stored { address: output, shape } });
    }
}

#[cfg(test)]
mod tests;
