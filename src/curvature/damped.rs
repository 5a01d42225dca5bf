//! (I + s·x xᵀ)⁻¹ for a matrix x of which the rows are samples or features, as accurately as the element type allows.
//!
//! In the directions in which x is small or zero the inverse is close to the identity, while in those of its large
//! singular values σ it is only 1/(1 + sσ²). Rounding errors, which are relative to the largest entries, therefore
//! reach the product with x (or with anything that is multiplied by x afterwards) magnified by the condition number of
//! I + s·x xᵀ at worst, and by ‖V‖·‖x‖/‖V x‖, where V is the inverse, as a rule. Beyond [`Limits`] all of it is done in
//! double precision.

use faer::reborrow::ReborrowMut;
use faer::{Accum, MatRef, RowRef};

use super::matrix::{RowMajorMut, row_major_mut};
use super::parts::Target;
use super::products::{Threads, multiply, multiply_here, multiply_onto, write_product};
use super::scalar::Limits;
use super::spd::{Breakdown, Inverter, resized};
use super::{Error, Matrix, ProductError, Scalar};

/// Columns that are widened at a time: such a panel of a usual batch stays in the cache.
pub(super) const PANEL: usize = 512;

/// Order above which it counts that sums of equal terms, of equal rows for instance, have equal rounding errors.
///
/// Then the diagonal of an inverse is multiplied apart from the rest: beside its one large term in each sum, all the small ones
/// would lose their last digits. And less magnification is tolerable.
const ALIKE: usize = 64;

/// The factor s = 1/(b·λ), and what it was made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damping {
    pub(super) lambda: f64,
    /// b, also where x has another number of rows.
    pub(super) rows: usize,
}

impl Damping {
    pub(super) fn scale(&self) -> f64 {
        1.0 / (self.rows as f64 * self.lambda)
    }
}

/// In which precision [`Damper::prepare`] computed the inverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prepared {
    /// In that of the elements: see [`Damper::narrow_inverse`].
    Narrow,
    /// In double, to be multiplied in double: see [`Damper::wide_product`].
    Wide,
    /// Not at all: x has a NaN or an infinity, and so would everything that depends on it.
    NotFinite,
}

/// A symmetric inverse in the precision of the elements.
#[derive(Clone, Copy)]
pub(super) struct NarrowInverse<'a, T> {
    matrix: Matrix<'a, T>,
    /// What belongs on its diagonal, where zeros are then: see [`ALIKE`].
    diagonal: Option<&'a [T]>,
}

impl<'a, T: Scalar> NarrowInverse<'a, T> {
    /// Writes the inverse times `y`.
    pub(super) fn times(&self, y: Matrix<'_, T>, threads: &impl Threads, out: &mut [T]) -> Result<(), ProductError> {
        self.write([self.matrix, y], y, |diagonal, row| std::iter::repeat(&diagonal[row]), threads, out)
    }

    /// Writes `y` times the inverse.
    pub(super) fn after(&self, y: Matrix<'_, T>, threads: &impl Threads, out: &mut [T]) -> Result<(), ProductError> {
        self.write([y, self.matrix], y, |diagonal, _| diagonal, threads, out)
    }

    /// Writes the inverse times `y`, on the calling thread.
    pub(super) fn times_here(&self, y: MatRef<'_, T>, mut out: RowMajorMut<'_, T>) {
        let mut accum = Accum::Replace;
        if let Some(diagonal) = self.diagonal {
            write_rows(y, |row| std::iter::repeat(&diagonal[row]), out.rb_mut(), 0);
            accum = Accum::Add;
        }
        multiply_here(out, accum, [self.matrix.view(), y], T::from_f64(1.0));
    }

    /// Writes `y` times the inverse, or the transpose of that.
    pub(super) fn write_after(
        &self,
        y: Matrix<'_, T>,
        transpose: bool,
        threads: &impl Threads,
        out: &mut [T],
    ) -> Result<(), ProductError> {
        if transpose { self.times(y.t(), threads, out) } else { self.after(y, threads, out) }
    }

    /// Writes the product of two operands, the matrix and `y`, with what the elements of the diagonal make of `y`: those that
    /// `factors` gives for a row of it.
    fn write<F: IntoIterator<Item = &'a T>>(
        &self,
        [left, right]: [Matrix<'_, T>; 2],
        y: Matrix<'_, T>,
        factors: impl Fn(&'a [T], usize) -> F + Sync,
        threads: &impl Threads,
        out: &mut [T],
    ) -> Result<(), ProductError> {
        let Some(diagonal) = self.diagonal else {
            return write_product(left, right, threads, out);
        };
        let (out, y) = (row_major_mut(out, [y.rows(), y.cols()], y.cols()), y.view());
        let begin = |out: RowMajorMut<'_, T>, first: usize| write_rows(y, |row| factors(diagonal, row), out, first);
        multiply_onto(out, begin, [left.view(), right.view()], threads)
    }
}

/// Writes the elements of rows of `y`, from one on, each times one of the factors for its row.
fn write_rows<'a, T: Scalar, F: IntoIterator<Item = &'a T>>(
    y: MatRef<'_, T>,
    factors: impl Fn(usize) -> F,
    mut out: RowMajorMut<'_, T>,
    first: usize,
) {
    for row in 0..out.nrows() {
        write_products(y.row(first + row), factors(first + row), out.rb_mut().row_mut(row).as_slice_mut());
    }
}

/// Writes each element of a row times a factor.
fn write_products<'a, T: Scalar>(row: RowRef<'_, T>, factors: impl IntoIterator<Item = &'a T>, out: &mut [T]) {
    match row.try_as_row_major() {
        Some(row) => {
            for ((out, element), factor) in out.iter_mut().zip(row.as_slice()).zip(factors) {
                *out = *factor * *element;
            }
        }
        None => {
            for ((out, element), factor) in out.iter_mut().zip(row.iter()).zip(factors) {
                *out = *factor * *element;
            }
        }
    }
}

/// Buffers for one damped inverse; they only ever grow.
pub(super) struct Damper<T> {
    narrow: Inverter<T>,
    /// Of the narrow inverse above order [`ALIKE`].
    diagonal: Vec<T>,
    wide: Inverter<f64>,
    panel: Vec<f64>,
    wide_product: Vec<f64>,
    product: Vec<T>,
}

impl<T: Scalar> Default for Damper<T> {
    fn default() -> Self {
        Self {
            narrow: Inverter::default(),
            diagonal: Vec::new(),
            wide: Inverter::default(),
            panel: Vec::new(),
            wide_product: Vec::new(),
            product: Vec::new(),
        }
    }
}

impl<T: Scalar> Damper<T> {
    /// Computes `alpha * (I + s·x xᵀ)⁻¹` in the precision of `T` within the limits given, or else in double.
    pub(super) fn prepare(
        &mut self,
        x: Matrix<'_, T>,
        damping: Damping,
        alpha: f64,
        limits: Option<Limits>,
        threads: &impl Threads,
    ) -> Result<Prepared, Error> {
        let order = x.rows();
        if let Some(limits) = limits
            && self.prepare_narrow(x, damping, limits, threads)?
        {
            self.narrow.scale(order, alpha);
            if order > ALIKE {
                let diagonal = self.narrow.matrix_mut(order).iter_mut().step_by(order + 1);
                for (kept, element) in resized(&mut self.diagonal, order).iter_mut().zip(diagonal) {
                    *kept = std::mem::take(element);
                }
            }
            return Ok(Prepared::Narrow);
        }
        self.gram_in_double(x, damping.scale(), threads)?;
        let inverted = self.wide.damp(order).and_then(|_| self.wide.invert_accurately(order));
        match inverted {
            Ok(()) => {
                self.wide.scale(order, alpha);
                Ok(Prepared::Wide)
            }
            Err(Breakdown::NotFinite) => Ok(Prepared::NotFinite),
            Err(Breakdown::Pivot(pivot)) => Err(Error::NotPositiveDefinite { lambda: damping.lambda, order, pivot }),
            Err(Breakdown::Product(error)) => Err(error.into()),
        }
    }

    /// Computes the inverse in the precision of `T`, and says whether that is accurate enough.
    fn prepare_narrow(
        &mut self,
        x: Matrix<'_, T>,
        damping: Damping,
        limits: Limits,
        threads: &impl Threads,
    ) -> Result<bool, Error> {
        let order = x.rows();
        let gram = row_major_mut(self.narrow.matrix_mut(order), [order; 2], order);
        let operands = [x.view(), x.view().transpose()];
        multiply(Target::Symmetric(gram), Accum::Replace, operands, T::from_f64(damping.scale()), threads)?;
        match self.invert_narrow(order, limits, threads) {
            Ok(is_accurate) => Ok(is_accurate),
            Err(Breakdown::NotFinite | Breakdown::Pivot(_)) => Ok(false),
            Err(Breakdown::Product(error)) => Err(error.into()),
        }
    }

    /// From the scaled Gram matrix to the inverse, and whether that is accurate enough.
    fn invert_narrow(&mut self, order: usize, limits: Limits, threads: &impl Threads) -> Result<bool, Breakdown> {
        let damped = self.narrow.damp(order)?;
        let is_inverted_in_double = damped.norm > limits.norm;
        if is_inverted_in_double {
            self.invert_in_double(order, threads)?;
        } else {
            self.narrow.invert_quickly(order, threads)?;
        }
        // Found by measuring groups of equal rows and features at orders up to 1,024.
        let tolerable = if order > ALIKE { 0.45 * limits.magnification } else { limits.magnification };
        // As the norm of the inverse is one at most, that of the damped matrix bounds the condition number.
        if damped.norm <= tolerable.min(limits.condition) {
            return Ok(true);
        }
        let remainder = if is_inverted_in_double { self.wide.remainder(order) } else { self.narrow.remainder(order) };
        let magnification = (damped.trace / remainder).sqrt();
        if damped.norm <= limits.condition && magnification <= tolerable {
            return Ok(true);
        }
        let norm = if is_inverted_in_double { self.wide.norm(order) } else { self.narrow.norm(order) };
        let condition = norm * damped.norm;
        // Where rounding leaves nothing of the remainder, the condition number still is a bound.
        let magnification = (norm * magnification).min(condition);
        Ok(condition <= limits.condition && magnification <= tolerable)
    }

    fn invert_in_double(&mut self, order: usize, threads: &impl Threads) -> Result<(), Breakdown> {
        let (narrow, wide) = (self.narrow.matrix_mut(order), self.wide.matrix_mut(order));
        wide.iter_mut().zip(&*narrow).for_each(|(wide, narrow)| *wide = narrow.to_f64());
        self.wide.invert_quickly(order, threads)?;
        let (narrow, wide) = (self.narrow.matrix_mut(order), self.wide.matrix(order));
        narrow.iter_mut().zip(wide.data()).for_each(|(narrow, wide)| *narrow = T::from_f64(*wide));
        Ok(())
    }

    /// The inverse after [`Prepared::Narrow`].
    pub(super) fn narrow_inverse(&self, order: usize) -> NarrowInverse<'_, T> {
        NarrowInverse { matrix: self.narrow.matrix(order), diagonal: (order > ALIKE).then(|| &self.diagonal[..order]) }
    }

    /// The inverse after [`Prepared::Wide`].
    pub(super) fn wide_inverse(&self, order: usize) -> Matrix<'_, f64> {
        self.wide.matrix(order)
    }

    /// The inverse times `y` after [`Prepared::Wide`]: multiplied in double, then rounded.
    pub(super) fn wide_product(&mut self, y: Matrix<'_, T>, threads: &impl Threads) -> Result<Matrix<'_, T>, Error> {
        let (order, cols) = (y.rows(), y.cols());
        let inverse = self.wide.matrix(order);
        let product = resized(&mut self.product, order * cols);
        for start in (0..cols).step_by(PANEL) {
            let columns = start..cols.min(start + PANEL);
            let width = columns.len();
            let panel = y.widen_columns(columns.clone(), resized(&mut self.panel, order * width));
            let wide = resized(&mut self.wide_product, order * width);
            write_product(inverse, panel, threads, wide)?;
            narrow_columns(wide, columns, product, cols);
        }
        Ok(Matrix::new(product, order, cols))
    }

    /// s·x xᵀ
    fn gram_in_double(&mut self, x: Matrix<'_, T>, scale: f64, threads: &impl Threads) -> Result<(), Error> {
        let order = x.rows();
        let gram = self.wide.matrix_mut(order);
        gram.fill(0.0);
        for start in (0..x.cols()).step_by(PANEL) {
            let columns = start..x.cols().min(start + PANEL);
            let panel = resized(&mut self.panel, order * columns.len());
            let panel = x.widen_columns(columns, panel).view();
            let gram = row_major_mut(gram, [order; 2], order);
            multiply(Target::Symmetric(gram), Accum::Add, [panel, panel.transpose()], scale, threads)?;
        }
        Ok(())
    }
}

/// Rounds a panel into some of the columns of a row-major matrix with `cols` columns.
pub(super) fn narrow_columns<T: Scalar>(panel: &[f64], columns: std::ops::Range<usize>, matrix: &mut [T], cols: usize) {
    for (row, panel) in matrix.chunks_exact_mut(cols).zip(panel.chunks_exact(columns.len())) {
        for (narrow, wide) in row[columns.clone()].iter_mut().zip(panel) {
            *narrow = T::from_f64(*wide);
        }
    }
}
