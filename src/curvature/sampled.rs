//! The second factor of ζ: output gradients conditioned with the curvature of gradients sampled from the model.
//!
//! g (I_m + s·ḡᵀḡ)⁻¹ with s = 1/(b·λg), either with the m×m inverse, or, by Woodbury's identity, with one of the order
//! of ḡ's rows: g − s (g ḡᵀ) (I + s·ḡ ḡᵀ)⁻¹ ḡ. The latter is a difference: to what is left of a g in the span of ḡ it is
//! accurate to the precision times the square of the condition number of I + s·ḡ ḡᵀ.

use super::cost::Form;
use super::damped::{Damper, Damping, NarrowInverse, PANEL, Prepared, narrow_columns};
use super::scalar::Limits;
use super::spd::resized;
use super::{Error, Matrix, Products, Scalar};

/// Gradients for labels sampled from the model, and their damping.
#[derive(Clone, Copy, Debug)]
pub struct Sampled<'a, T> {
    /// ḡ: per-example gradients with respect to the layer's outputs, with any number of rows, and m columns.
    pub gradients: Matrix<'a, T>,
    /// λg > 0; infinity leaves the factor out.
    pub lambda: f64,
}

/// What became of the output gradients.
pub(super) enum Conditioned<'b, T> {
    /// g (I_m + s·ḡᵀḡ)⁻¹, b×m.
    Gradients(Matrix<'b, T>),
    /// (I_m + s·ḡᵀḡ)⁻¹, m×m, for the caller to multiply into the product with the inputs.
    Pending(NarrowInverse<'b, T>),
    /// ḡ has a NaN or an infinity.
    NotFinite,
}

/// Buffers of this factor; they only ever grow.
pub(super) struct Workspace<T> {
    damper: Damper<T>,
    overlaps: Vec<T>,
    weighted: Vec<T>,
    conditioned: Vec<T>,
    wide: WideBuffers,
}

#[derive(Default)]
struct WideBuffers {
    overlaps: Vec<f64>,
    weighted: Vec<f64>,
    left: Vec<f64>,
    right: Vec<f64>,
    product: Vec<f64>,
}

impl<T: Scalar> Default for Workspace<T> {
    fn default() -> Self {
        Self {
            damper: Damper::default(),
            overlaps: Vec::new(),
            weighted: Vec::new(),
            conditioned: Vec::new(),
            wide: WideBuffers::default(),
        }
    }
}

impl<T: Scalar> Workspace<T> {
    /// Conditions `g`. With [`Form::Samples`] the inverse is of the order of ḡ's rows, otherwise m×m; the latter is left
    /// for the caller to multiply if `defer` allows it and its precision is that of the elements.
    pub(super) fn condition<P>(
        &mut self,
        g: Matrix<'_, T>,
        sampled: &Sampled<'_, T>,
        form: Form,
        defer: bool,
        products: &mut P,
    ) -> Result<Conditioned<'_, T>, Error>
    where
        P: Products<T> + Products<f64>,
    {
        let damping = Damping { lambda: sampled.lambda, rows: g.rows() };
        let g_bar = sampled.gradients;
        let x = if form == Form::Samples { g_bar } else { g_bar.t() };
        let limits = T::LIMITS.map(Limits::of_other_products);
        let order = x.rows();
        let prepared = self.damper.prepare(x, damping, 1.0, limits, products)?;
        let (rows, cols) = (g.rows(), g.cols());
        let conditioned = match (prepared, form) {
            (Prepared::NotFinite, _) => return Ok(Conditioned::NotFinite),
            (Prepared::Narrow, Form::Samples) => {
                self.subtract_overlaps(g, g_bar, damping.scale(), products)?;
                Matrix::new(&self.conditioned[..rows * cols], rows, cols)
            }
            (Prepared::Wide, Form::Samples) => {
                self.subtract_overlaps_in_double(g, g_bar, damping.scale(), products)?;
                Matrix::new(&self.conditioned[..rows * cols], rows, cols)
            }
            (Prepared::Narrow, _) if defer => {
                return Ok(Conditioned::Pending(self.damper.narrow_inverse(order)));
            }
            (Prepared::Narrow, _) => {
                let conditioned = resized(&mut self.conditioned, rows * cols);
                self.damper.narrow_inverse(order).after(g, products, conditioned)?;
                Matrix::new(conditioned, rows, cols)
            }
            (Prepared::Wide, _) => self.damper.wide_product(g.t(), products)?.t(),
        };
        Ok(Conditioned::Gradients(conditioned))
    }

    fn subtract_overlaps<P: Products<T>>(
        &mut self,
        g: Matrix<'_, T>,
        g_bar: Matrix<'_, T>,
        scale: f64,
        products: &mut P,
    ) -> Result<(), Error> {
        let (rows, order, cols) = (g.rows(), g_bar.rows(), g.cols());
        let overlaps = resized(&mut self.overlaps, rows * order);
        products.multiply(g, g_bar.t(), overlaps)?;
        let overlaps = Matrix::new(overlaps, rows, order);
        let weighted = resized(&mut self.weighted, rows * order);
        self.damper.narrow_inverse(order).after(overlaps, products, weighted)?;
        let conditioned = resized(&mut self.conditioned, rows * cols);
        products.multiply(Matrix::new(weighted, rows, order), g_bar, conditioned)?;
        let scale = T::from_f64(scale);
        for row in 0..rows {
            for (col, value) in conditioned[row * cols..(row + 1) * cols].iter_mut().enumerate() {
                *value = g.at(row, col) - scale * *value;
            }
        }
        Ok(())
    }

    fn subtract_overlaps_in_double<P: Products<f64>>(
        &mut self,
        g: Matrix<'_, T>,
        g_bar: Matrix<'_, T>,
        scale: f64,
        products: &mut P,
    ) -> Result<(), Error> {
        let (rows, order, cols) = (g.rows(), g_bar.rows(), g.cols());
        let panels = || (0..cols).step_by(PANEL).map(|start| start..cols.min(start + PANEL));
        let WideBuffers { overlaps, weighted, left, right, product } = &mut self.wide;
        let overlaps = resized(overlaps, rows * order);
        overlaps.fill(0.0);
        for columns in panels() {
            let g = g.widen_columns(columns.clone(), resized(left, rows * columns.len()));
            let g_bar = g_bar.widen_columns(columns.clone(), resized(right, order * columns.len()));
            let partial = resized(product, rows * order);
            products.multiply(g, g_bar.t(), partial)?;
            overlaps.iter_mut().zip(partial).for_each(|(sum, partial)| *sum += *partial);
        }
        let weighted = resized(weighted, rows * order);
        products.multiply(Matrix::new(overlaps, rows, order), self.damper.wide_inverse(order), weighted)?;
        let weighted = Matrix::new(weighted, rows, order);
        let conditioned = resized(&mut self.conditioned, rows * cols);
        for columns in panels() {
            let width = columns.len();
            let g_bar = g_bar.widen_columns(columns.clone(), resized(right, order * width));
            let product = resized(product, rows * width);
            products.multiply(weighted, g_bar, product)?;
            for (index, value) in product.iter_mut().enumerate() {
                *value = g.at(index / width, columns.start + index % width).to_f64() - scale * *value;
            }
            narrow_columns(product, columns, conditioned, cols);
        }
        Ok(())
    }
}
