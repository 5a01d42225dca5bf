//! (I + s·x xᵀ)⁻¹ for a matrix x of which the rows are samples or features, as accurately as the element type allows.
//!
//! In the directions in which x is small or zero the inverse is close to the identity, while in those of its large
//! singular values σ it is only 1/(1 + sσ²). Rounding errors, which are relative to the largest entries, therefore
//! reach the product with x (or with anything that is multiplied by x afterwards) magnified by the condition number of
//! I + s·x xᵀ. Beyond [`Scalar::MAX_CONDITION`] all of it is done in double precision.

use super::spd::{Breakdown, Inverter, resized};
use super::{Error, Matrix, ProductError, Products, Scalar};

/// Columns of x that are widened at a time: a panel of a usual batch stays in the cache.
const PANEL: usize = 512;

/// What [`Damper::prepare`] achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prepared {
    /// [`Damper::inverse`] holds alpha·(I + s·x xᵀ)⁻¹.
    Inverse,
    /// [`Damper::product`] holds alpha·(I + s·x xᵀ)⁻¹·x.
    Product,
    /// x has a NaN or an infinity, and so would everything that depends on it.
    NotFinite,
}

/// The factors in front of the inverse and of x xᵀ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    pub(super) alpha: f64,
    pub(super) lambda: f64,
    /// s = 1/(b·lambda).
    pub(super) scale: f64,
}

/// Buffers for one damped inverse; they only ever grow.
pub(super) struct Damper<T> {
    narrow: Inverter<T>,
    wide: Inverter<f64>,
    panel: Vec<f64>,
    wide_product: Vec<f64>,
    product: Vec<T>,
}

impl<T: Scalar> Default for Damper<T> {
    fn default() -> Self {
        Self {
            narrow: Inverter::default(),
            wide: Inverter::default(),
            panel: Vec::new(),
            wide_product: Vec::new(),
            product: Vec::new(),
        }
    }
}

impl<T: Scalar> Damper<T> {
    /// Computes the inverse in the precision of `T`, or, where that would lose too much, its product with x in double.
    pub(super) fn prepare<P>(&mut self, x: Matrix<'_, T>, weights: Weights, products: &mut P) -> Result<Prepared, Error>
    where
        P: Products<T> + Products<f64>,
    {
        let order = x.rows();
        products.multiply(x, x.t(), self.narrow.matrix_mut(order))?;
        match self.narrow.invert(order, weights.scale) {
            Ok(condition) if condition <= T::MAX_CONDITION => {
                self.narrow.scale_inverse(order, weights.alpha);
                Ok(Prepared::Inverse)
            }
            _ => self.multiply_in_double(x, weights, products),
        }
    }

    /// The inverse that [`Self::prepare`] computed.
    pub(super) fn inverse(&self, order: usize) -> Matrix<'_, T> {
        Matrix::new(self.narrow.inverse(order), order, order)
    }

    /// The product that [`Self::prepare`] computed, of the shape of x.
    pub(super) fn product(&self, rows: usize, cols: usize) -> Matrix<'_, T> {
        Matrix::new(&self.product[..rows * cols], rows, cols)
    }

    fn multiply_in_double<P: Products<f64>>(
        &mut self,
        x: Matrix<'_, T>,
        weights: Weights,
        products: &mut P,
    ) -> Result<Prepared, Error> {
        let order = x.rows();
        self.gram_in_double(x, products)?;
        match self.wide.invert(order, weights.scale) {
            Ok(_) => self.wide.scale_inverse(order, weights.alpha),
            Err(Breakdown::NotFinite) => return Ok(Prepared::NotFinite),
            Err(Breakdown::Pivot(pivot)) => {
                return Err(Error::NotPositiveDefinite { lambda: weights.lambda, order, pivot });
            }
        }
        let inverse = Matrix::new(self.wide.inverse(order), order, order);
        let product = resized(&mut self.product, order * x.cols());
        for start in (0..x.cols()).step_by(PANEL) {
            let columns = start..x.cols().min(start + PANEL);
            let width = columns.len();
            let panel = x.widen_columns(columns.clone(), resized(&mut self.panel, order * width));
            let wide = resized(&mut self.wide_product, order * width);
            products.multiply(inverse, panel, wide)?;
            for (row, wide) in product.chunks_exact_mut(x.cols()).zip(wide.chunks_exact(width)) {
                for (narrow, wide) in row[columns.clone()].iter_mut().zip(wide) {
                    *narrow = T::from_f64(*wide);
                }
            }
        }
        Ok(Prepared::Product)
    }

    fn gram_in_double<P: Products<f64>>(&mut self, x: Matrix<'_, T>, products: &mut P) -> Result<(), ProductError> {
        let order = x.rows();
        let gram = self.wide.matrix_mut(order);
        gram.fill(0.0);
        for start in (0..x.cols()).step_by(PANEL) {
            let columns = start..x.cols().min(start + PANEL);
            let panel = resized(&mut self.panel, order * columns.len());
            let panel = x.widen_columns(columns, panel);
            let partial = resized(&mut self.wide_product, order * order);
            products.multiply(panel, panel.t(), partial)?;
            for (sum, partial) in gram.iter_mut().zip(partial) {
                *sum += *partial;
            }
        }
        Ok(())
    }
}
