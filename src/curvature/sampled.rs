//! The second factor of ζ: output gradients conditioned with the curvature of gradients sampled from the model.
//!
//! g (I_m + s·ḡᵀḡ)⁻¹ with s = 1/(b·λg), either with the m×m inverse, or, by Woodbury's identity, with one of the order
//! of ḡ's rows: g − s (g ḡᵀ) (I + s·ḡ ḡᵀ)⁻¹ ḡ. The latter is a difference: to what is left of a g in the span of ḡ it is
//! accurate to the precision times the square of the condition number of I + s·ḡ ḡᵀ.

use faer::{Accum, unzip, zip};

use super::cost::Form;
use super::damped::{Damper, Damping, PANEL, Prepared, narrow_columns};
use super::inverse::Explicit;
use super::matrix::row_major_mut;
use super::parts::Target;
use super::products::{Threads, multiply, write_product};
use super::scalar::Limits;
use super::spd::resized;
use super::{Error, Matrix, Scalar};

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
    Pending(Explicit<'b, T>),
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
    pub(super) fn condition(
        &mut self,
        g: Matrix<'_, T>,
        sampled: &Sampled<'_, T>,
        form: Form,
        defer: bool,
        threads: &impl Threads,
    ) -> Result<Conditioned<'_, T>, Error> {
        let damping = Damping { lambda: sampled.lambda, rows: g.rows() };
        let g_bar = sampled.gradients;
        let x = if form == Form::Samples { g_bar } else { g_bar.t() };
        let limits = T::LIMITS.map(Limits::of_other_products);
        let order = x.rows();
        let prepared = self.damper.prepare(x, damping, 1.0, limits, threads)?;
        let (rows, cols) = (g.rows(), g.cols());
        let conditioned = match (prepared, form) {
            (Prepared::NotFinite, _) => return Ok(Conditioned::NotFinite),
            (Prepared::Narrow, Form::Samples) => {
                self.subtract_overlaps(g, g_bar, damping.scale(), threads)?;
                Matrix::new(&self.conditioned[..rows * cols], rows, cols)
            }
            (Prepared::Wide, Form::Samples) => {
                self.subtract_overlaps_in_double(g, g_bar, damping.scale(), threads)?;
                Matrix::new(&self.conditioned[..rows * cols], rows, cols)
            }
            (Prepared::Narrow, _) if defer => {
                return Ok(Conditioned::Pending(self.damper.explicit_inverse(order)));
            }
            (Prepared::Narrow, _) => {
                let conditioned = resized(&mut self.conditioned, rows * cols);
                self.damper.explicit_inverse(order).after(g, threads, conditioned)?;
                Matrix::new(conditioned, rows, cols)
            }
            (Prepared::Wide, _) => self.damper.wide_product(g.t(), threads)?.t(),
        };
        Ok(Conditioned::Gradients(conditioned))
    }

    fn subtract_overlaps(
        &mut self,
        g: Matrix<'_, T>,
        g_bar: Matrix<'_, T>,
        scale: f64,
        threads: &impl Threads,
    ) -> Result<(), Error> {
        let (rows, order, cols) = (g.rows(), g_bar.rows(), g.cols());
        let overlaps = resized(&mut self.overlaps, rows * order);
        write_product(g, g_bar.t(), threads, overlaps)?;
        let overlaps = Matrix::new(overlaps, rows, order);
        let weighted = resized(&mut self.weighted, rows * order);
        self.damper.explicit_inverse(order).after(overlaps, threads, weighted)?;
        let weighted = Matrix::new(weighted, rows, order);
        let mut conditioned = row_major_mut(resized(&mut self.conditioned, rows * cols), [rows, cols], cols);
        conditioned.copy_from(g.view());
        multiply(
            Target::Plain(conditioned),
            Accum::Add,
            [weighted.view(), g_bar.view()],
            T::from_f64(-scale),
            threads,
        )?;
        Ok(())
    }

    fn subtract_overlaps_in_double(
        &mut self,
        g: Matrix<'_, T>,
        g_bar: Matrix<'_, T>,
        scale: f64,
        threads: &impl Threads,
    ) -> Result<(), Error> {
        let (rows, order, cols) = (g.rows(), g_bar.rows(), g.cols());
        let panels = || (0..cols).step_by(PANEL).map(|start| start..cols.min(start + PANEL));
        let WideBuffers { overlaps, weighted, left, right } = &mut self.wide;
        let overlaps = resized(overlaps, rows * order);
        overlaps.fill(0.0);
        for columns in panels() {
            let g = g.widen_columns(columns.clone(), resized(left, rows * columns.len()));
            let g_bar = g_bar.widen_columns(columns.clone(), resized(right, order * columns.len()));
            let sum = row_major_mut(overlaps, [rows, order], order);
            multiply(Target::Plain(sum), Accum::Add, [g.view(), g_bar.t().view()], 1.0, threads)?;
        }
        let weighted = resized(weighted, rows * order);
        write_product(Matrix::new(overlaps, rows, order), self.damper.wide_inverse(order), threads, weighted)?;
        let weighted = Matrix::new(weighted, rows, order).view();
        let conditioned = resized(&mut self.conditioned, rows * cols);
        for columns in panels() {
            let width = columns.len();
            let g_bar = g_bar.widen_columns(columns.clone(), resized(right, order * width)).view();
            let panel = resized(left, rows * width);
            let mut sum = row_major_mut(panel, [rows, width], width);
            zip!(&mut sum, g.view().subcols(columns.start, width)).for_each(|unzip!(wide, g)| *wide = g.to_f64());
            multiply(Target::Plain(sum), Accum::Add, [weighted, g_bar], -scale, threads)?;
            narrow_columns(panel, columns, conditioned, cols);
        }
        Ok(())
    }
}
