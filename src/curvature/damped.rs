//! (I + s·x xᵀ)⁻¹ for a matrix x of which the rows are samples or features, as accurately as the element type allows.
//!
//! In the directions in which x is small or zero the inverse is close to the identity, while in those of its large
//! singular values σ it is only 1/(1 + sσ²). Rounding errors, which are relative to the largest entries, therefore
//! reach the product with x (or with anything that is multiplied by x afterwards) magnified by the condition number of
//! I + s·x xᵀ at worst, and by ‖V‖·‖x‖/‖V x‖, where V is the inverse, as a rule. Beyond [`Limits`] all of it is done in
//! double precision.

use faer::Accum;

use super::factors::Factors;
use super::inverse::{Explicit, Inverse};
use super::matrix::row_major_mut;
use super::parts::Target;
use super::products::{Threads, multiply, write_product};
use super::scalar::Limits;
use super::spd::{Breakdown, Damped, Inverter, resized};
use super::sweep;
use super::{Error, Matrix, Scalar};

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
    /// In that of the elements: see [`Damper::narrow_inverse`] and [`Damper::explicit_inverse`].
    Narrow,
    /// In double, to be multiplied in double: see [`Damper::wide_product`].
    Wide,
    /// Not at all: x has a NaN or an infinity, and so would everything that depends on it.
    NotFinite,
}

/// Buffers for one damped inverse; they only ever grow.
pub(super) struct Damper<T> {
    narrow: Inverter<T>,
    /// If the narrow matrix holds factors, not an inverse: what the inverse is to be multiplied by.
    factored: Option<T>,
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
            factored: None,
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
            && self.prepare_narrow(x, damping, alpha, limits, threads)?
        {
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
        alpha: f64,
        limits: Limits,
        threads: &impl Threads,
    ) -> Result<bool, Error> {
        let order = x.rows();
        let gram = row_major_mut(self.narrow.matrix_mut(order), [order; 2], order);
        let operands = [x.view(), x.view().transpose()];
        multiply(Target::Symmetric(gram), Accum::Replace, operands, T::from_f64(damping.scale()), threads)?;
        match self.invert_narrow(order, alpha, limits, threads) {
            Ok(is_accurate) => Ok(is_accurate),
            Err(Breakdown::NotFinite | Breakdown::Pivot(_)) => Ok(false),
            Err(Breakdown::Product(error)) => Err(error.into()),
        }
    }

    /// From the scaled Gram matrix to the inverse times alpha, and whether that is accurate enough.
    fn invert_narrow(
        &mut self,
        order: usize,
        alpha: f64,
        limits: Limits,
        threads: &impl Threads,
    ) -> Result<bool, Breakdown> {
        let damped = self.narrow.damp(order)?;
        let is_factored = order > sweep::LARGEST && damped.norm <= limits.substitution;
        self.factored = is_factored.then(|| T::from_f64(alpha));
        if is_factored {
            self.narrow.factorise(order, threads)?;
            return Ok(true);
        }
        let is_inverted_in_double = damped.norm > limits.norm;
        if is_inverted_in_double {
            self.invert_in_double(order, threads)?;
        } else {
            self.narrow.invert_quickly(order, threads)?;
        }
        if !self.is_accurate(order, damped, is_inverted_in_double, limits) {
            return Ok(false);
        }
        self.narrow.scale(order, alpha);
        if order > ALIKE {
            let diagonal = self.narrow.matrix_mut(order).iter_mut().step_by(order + 1);
            for (kept, element) in resized(&mut self.diagonal, order).iter_mut().zip(diagonal) {
                *kept = std::mem::take(element);
            }
        }
        Ok(true)
    }

    /// Whether the inverse of a matrix of which this is known is accurate enough.
    fn is_accurate(&mut self, order: usize, damped: Damped, is_inverted_in_double: bool, limits: Limits) -> bool {
        // Found by measuring groups of equal rows and features at orders up to 1,024.
        let tolerable = if order > ALIKE { 0.45 * limits.magnification } else { limits.magnification };
        // As the norm of the inverse is one at most, that of the damped matrix bounds the condition number.
        if damped.norm <= tolerable.min(limits.condition) {
            return true;
        }
        // With the eigenvalues σ of S the magnification is the root of Σσ / Σσ(1+σ)⁻². As (1+σ)⁻² is convex, its mean, weighted
        // with σ, is not less than what it is at the weighted mean of σ.
        if damped.norm <= limits.condition && 1.0 + damped.square / damped.trace <= tolerable {
            return true;
        }
        let remainder = if is_inverted_in_double { self.wide.remainder(order) } else { self.narrow.remainder(order) };
        let magnification = (damped.trace / remainder).sqrt();
        if damped.norm <= limits.condition && magnification <= tolerable {
            return true;
        }
        let norm = if is_inverted_in_double { self.wide.norm(order) } else { self.narrow.norm(order) };
        let condition = norm * damped.norm;
        // Where rounding leaves nothing of the remainder, the condition number still is a bound.
        let magnification = (norm * magnification).min(condition);
        condition <= limits.condition && magnification <= tolerable
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
    pub(super) fn narrow_inverse(&self, order: usize) -> Inverse<'_, T> {
        match self.factored {
            Some(alpha) => Inverse::Factors(Factors::of(self.narrow.matrix(order).data(), order), alpha),
            None => Inverse::Explicit(self.explicit_inverse(order)),
        }
    }

    /// The inverse after [`Prepared::Narrow`] with limits that allow no substitution.
    pub(super) fn explicit_inverse(&self, order: usize) -> Explicit<'_, T> {
        assert!(self.factored.is_none(), "limits that allow no substitution");
        Explicit { matrix: self.narrow.matrix(order), diagonal: (order > ALIKE).then(|| &self.diagonal[..order]) }
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
