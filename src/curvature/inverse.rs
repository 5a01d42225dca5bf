//! Products with the inverse of a damped Gram matrix in the precision of the elements.

use std::sync::{Mutex, PoisonError};

use faer::reborrow::ReborrowMut;
use faer::{Accum, MatRef, RowRef};

use super::factors::Factors;
use super::matrix::{RowMajorMut, row_major_mut};
use super::parts::for_each_strip;
use super::products::{Threads, multiply_here, multiply_onto, write_product};
use super::spd::resized;
use super::{Matrix, ProductError, Scalar};

/// Columns that a thread multiplies by factors at a time: what kernels compute at once.
const STRIP: usize = 96;

/// A symmetric inverse.
#[derive(Clone, Copy)]
pub(super) struct Explicit<'a, T> {
    pub(super) matrix: Matrix<'a, T>,
    /// What belongs on its diagonal, where zeros are then: it is multiplied apart from the rest.
    pub(super) diagonal: Option<&'a [T]>,
}

impl<'a, T: Scalar> Explicit<'a, T> {
    /// Writes the inverse times `y`.
    pub(super) fn times(&self, y: Matrix<'_, T>, threads: &impl Threads, out: &mut [T]) -> Result<(), ProductError> {
        self.write([self.matrix, y], y, |diagonal, row| std::iter::repeat(&diagonal[row]), threads, out)
    }

    /// Writes `y` times the inverse.
    pub(super) fn after(&self, y: Matrix<'_, T>, threads: &impl Threads, out: &mut [T]) -> Result<(), ProductError> {
        self.write([y, self.matrix], y, |diagonal, _| diagonal, threads, out)
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

    /// The inverse times `y`, in a buffer, on the calling thread.
    fn times_here<'b>(&self, y: MatRef<'_, T>, buffer: &'b mut [T]) -> MatRef<'b, T> {
        let mut out = row_major_mut(buffer, [y.nrows(), y.ncols()], y.ncols());
        let mut accum = Accum::Replace;
        if let Some(diagonal) = self.diagonal {
            write_rows(y, |row| std::iter::repeat(&diagonal[row]), out.rb_mut(), 0);
            accum = Accum::Add;
        }
        multiply_here(out, accum, [self.matrix.view(), y], T::from_f64(1.0));
        MatRef::from_row_major_slice(buffer, y.nrows(), y.ncols())
    }
}

/// A symmetric inverse, or the factors of a matrix: with a number, that its inverse is to be multiplied by.
#[derive(Clone, Copy)]
pub(super) enum Inverse<'a, T> {
    Explicit(Explicit<'a, T>),
    Factors(Factors<'a, T>, T),
}

impl<'a, T: Scalar> Inverse<'a, T> {
    /// Writes the inverse times `y`, by way of a buffer, which only ever grows.
    pub(super) fn times(
        &self,
        y: Matrix<'_, T>,
        buffer: &mut Vec<T>,
        threads: &impl Threads,
        out: &mut [T],
    ) -> Result<(), ProductError> {
        if let Self::Explicit(inverse) = self {
            return inverse.times(y, threads, out);
        }
        let (rows, cols) = (y.rows(), y.cols());
        let columns = self.columns([rows, cols], buffer);
        for_each_strip(row_major_mut(out, [rows, cols], cols), STRIP, threads, |first, mut strip| {
            strip.copy_from(columns.times(y.view().subcols(first, strip.ncols())));
        })
    }

    /// The inverse, of this order, to be multiplied by so many columns in all, some at a time and on any thread; `buffer` only
    /// ever grows.
    pub(super) fn columns<'b>(&self, [order, cols]: [usize; 2], buffer: &'b mut Vec<T>) -> Columns<'a, 'b, T> {
        Columns { inverse: *self, space: Mutex::new(resized(buffer, self.space([order, cols]))) }
    }

    /// Elements of a buffer for so many columns of products.
    fn space(&self, [order, cols]: [usize; 2]) -> usize {
        match self {
            Self::Explicit(_) => order * cols,
            Self::Factors(..) => Factors::<T>::buffer_len(order, cols),
        }
    }
}

/// An inverse with space for products of it.
pub(super) struct Columns<'a, 'b, T> {
    inverse: Inverse<'a, T>,
    /// What is left of the space.
    space: Mutex<&'b mut [T]>,
}

impl<'b, T: Scalar> Columns<'_, 'b, T> {
    /// The inverse times columns, on the calling thread.
    ///
    /// # Panics
    /// If there is no space left for so many.
    pub(super) fn times(&self, y: MatRef<'_, T>) -> MatRef<'b, T> {
        let buffer = {
            let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
            let (buffer, others) = std::mem::take(&mut *space).split_at_mut(self.inverse.space([y.nrows(), y.ncols()]));
            *space = others;
            buffer
        };
        match self.inverse {
            Inverse::Explicit(inverse) => inverse.times_here(y, buffer),
            Inverse::Factors(factors, alpha) => factors.solve(y, alpha, buffer),
        }
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
