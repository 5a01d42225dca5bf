//! Dense products: the layer's own is the host's, those that condition it are `faer`'s, on the host's threads.
//!
//! What conditions a layer are small products, symmetric ones of which half is enough, and products of parts of matrices. A
//! runtime's `Gemm` knows no symmetric product and no part of a matrix, and puts both operands into its own order at every
//! call.

use std::sync::{Mutex, PoisonError};

use faer::linalg::matmul::matmul;
use faer::reborrow::ReborrowMut;
use faer::{Accum, MatMut, MatRef, Par};

use super::dots::LongRows;
use super::{Matrix, Scalar};

/// Why the host could not multiply, or run what it was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProductError(pub String);

/// The host's threads.
pub trait Threads {
    /// Calls `task` once with each index below `count`, on as many threads as the host has for it, and returns when all
    /// calls have.
    ///
    /// # Errors
    /// When the host can't, or a call panicked.
    fn for_each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), ProductError>;
}

/// Dense matrix multiplication on the host's kernels and threads.
pub trait Products<T>: Threads {
    /// Overwrites `out` with `a * b`, or with `a * b + addend`: row-major, `a.rows() * b.cols()` elements, as `addend`;
    /// `a.cols() == b.rows()`, and no dimension is zero.
    ///
    /// # Errors
    /// When the host's kernel fails.
    fn multiply(
        &mut self,
        a: Matrix<'_, T>,
        b: Matrix<'_, T>,
        addend: Option<&[T]>,
        out: &mut [T],
    ) -> Result<(), ProductError>;
}

/// Terms of the sums of a product that is added to something else as it is made, at most. ONNX Runtime adds up 128 at a time: what they are added to is
/// rounded with each of these parts, and parts that are small beside it are lost.
pub const TERMS_BESIDE_ADDEND: usize = 256;

/// Flops of a thread's share of a product: fewer take less time than it takes to wake a thread.
const SHARE: usize = 8_000_000;

/// Parts of a product where there are shares for so many; more only where strips make them.
const PARTS: usize = 16;

/// Columns of a strip: what kernels compute at a time, five or six registers of float, so that none is left over.
const WIDTHS: [usize; 2] = [96, 80];

/// Columns of a strip of a symmetric product, of which what lies above the diagonal is computed for nothing: at least and at
/// most.
const LOWER_WIDTHS: [usize; 2] = [48, 96];

/// Terms that are added up before their sum is added to the result, at most: what kernels need of the operands for so many
/// stays in the caches, and where terms are equal, as of equal rows, fewer equal rounding errors come together.
const TERMS: usize = 100;

/// Rows of a part are a multiple of this, as are the tiles of [`mirror`].
const ALIGNED: usize = 16;

/// Writes left·right, row-major.
pub(super) fn write_product<T: Scalar>(
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    threads: &impl Threads,
    out: &mut [T],
) -> Result<(), ProductError> {
    let out = MatMut::from_row_major_slice_mut(out, left.rows(), right.cols());
    multiply(out, Accum::Replace, [left.view(), right.view()], T::from_f64(1.0), threads)
}

/// Replaces `out`, row-major, by alpha·left·right, or adds that to it. No dimension is zero.
pub(super) fn multiply<T: Scalar>(
    out: MatMut<'_, T>,
    accum: Accum,
    [left, right]: [MatRef<'_, T>; 2],
    alpha: T,
    threads: &impl Threads,
) -> Result<(), ProductError> {
    let (rows, cols) = (out.nrows(), out.ncols());
    let width = WIDTHS.into_iter().min_by_key(|width| cols.next_multiple_of(*width)).unwrap_or(cols);
    let parting = Parting::new([rows, cols], width, |_| 0, 2 * rows * cols * left.ncols());
    parting.compute(out, threads, |part| part.multiply(accum, [left, right], alpha))
}

/// As [`multiply`] for a product that is symmetric, of which only what is on and below the diagonal is meant; some of what is
/// above it is written too.
pub(super) fn multiply_lower<T: Scalar>(
    out: MatMut<'_, T>,
    accum: Accum,
    [left, right]: [MatRef<'_, T>; 2],
    alpha: T,
    threads: &impl Threads,
) -> Result<(), ProductError> {
    let order = out.nrows();
    let long_rows = LongRows::of(left, right);
    let [least, most] = LOWER_WIDTHS;
    let width = order.div_ceil(4).next_multiple_of(ALIGNED).clamp(least, most);
    let parting = Parting::new([order, order], width, |col| col, order * order * left.ncols());
    parting.compute(out, threads, |part| match &long_rows {
        Some(rows) => rows.multiply_lower(part.out, part.start, accum, alpha),
        None => part.multiply(accum, [left, right], alpha),
    })
}

/// Copies what is below the diagonal of a row-major matrix to above it; `stride` elements lie between two rows.
pub(super) fn mirror<T: Copy>(matrix: &mut [T], order: usize, stride: usize) {
    // Tile by tile, because what is written next lies a row away.
    for (first_row, first_col) in tiles(order) {
        if first_col < first_row && first_row + ALIGNED <= order {
            mirror_tile(matrix, [first_row, first_col], stride);
            continue;
        }
        for row in first_row..order.min(first_row + ALIGNED) {
            for col in first_col..row.min(first_col + ALIGNED) {
                matrix[col * stride + row] = matrix[row * stride + col];
            }
        }
    }
}

/// A whole tile below the diagonal.
fn mirror_tile<T: Copy>(matrix: &mut [T], [first_row, first_col]: [usize; 2], stride: usize) {
    let place = |row: usize, col: usize| row * stride + col..row * stride + col + ALIGNED;
    let tile: [[T; ALIGNED]; ALIGNED] = std::array::from_fn(|row| {
        let source = &matrix[place(first_row + row, first_col)];
        std::array::from_fn(|col| source[col])
    });
    for col in 0..ALIGNED {
        let target = &mut matrix[place(first_col + col, first_row)];
        for (target, source) in target.iter_mut().zip(&tile) {
            *target = source[col];
        }
    }
}

fn tiles(order: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..order).step_by(ALIGNED).flat_map(|row| (0..=row).step_by(ALIGNED).map(move |col| (row, col)))
}

/// How the result of a product is parted: in strips of columns, and these in rows where there are few strips for many
/// threads. How many threads there are is not known, and changes nothing about the numbers.
#[derive(Clone, Copy)]
struct Parting {
    width: usize,
    height: usize,
    /// The row that a strip begins with, by its first column.
    first_row: fn(usize) -> usize,
    count: usize,
    is_shared: bool,
}

impl Parting {
    fn new([rows, cols]: [usize; 2], width: usize, first_row: fn(usize) -> usize, flops: usize) -> Self {
        let shares = flops / SHARE;
        let height = rows.div_ceil(shares.clamp(1, PARTS).div_ceil(cols.div_ceil(width))).next_multiple_of(ALIGNED);
        let count = (0..cols).step_by(width).map(|col| (rows - first_row(col)).div_ceil(height)).sum();
        Self { width, height, first_row, count, is_shared: shares > 1 }
    }

    fn parts<T>(self, out: MatMut<'_, T>) -> impl Iterator<Item = Part<'_, T>> {
        cut(out, self.width).flat_map(move |(col, strip)| {
            let first_row = (self.first_row)(col);
            let (_, strip) = strip.split_at_row_mut(first_row);
            cut(strip.transpose_mut(), self.height)
                .map(move |(row, part)| Part { out: part.transpose_mut(), start: [first_row + row, col] })
        })
    }

    fn compute<'a, T: Scalar>(
        self,
        out: MatMut<'a, T>,
        threads: &impl Threads,
        compute: impl Fn(Part<'a, T>) + Sync,
    ) -> Result<(), ProductError> {
        let parts = self.parts(out);
        if !self.is_shared {
            parts.for_each(compute);
            return Ok(());
        }
        let parts = Mutex::new(parts);
        threads.for_each(self.count, &|_| {
            let part = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            part.into_iter().for_each(&compute);
        })
    }
}

/// A part of a product's result.
struct Part<'a, T> {
    out: MatMut<'a, T>,
    /// Its first row and column in the whole.
    start: [usize; 2],
}

impl<T: Scalar> Part<'_, T> {
    fn multiply(self, mut accum: Accum, [left, right]: [MatRef<'_, T>; 2], alpha: T) {
        let Self { mut out, start: [row, col] } = self;
        let (left, right) = (left.subrows(row, out.nrows()), right.subcols(col, out.ncols()));
        let inner = left.ncols();
        let terms = inner.div_ceil(inner.div_ceil(TERMS));
        for first in (0..inner).step_by(terms) {
            let terms = terms.min(inner - first);
            let (left, right) = (left.subcols(first, terms), right.subrows(first, terms));
            matmul(out.rb_mut(), accum, left, right, alpha, Par::Seq);
            accum = Accum::Add;
        }
    }
}

/// Strips of so many columns, the last one of what is left, each with its first column.
fn cut<T>(matrix: MatMut<'_, T>, width: usize) -> impl Iterator<Item = (usize, MatMut<'_, T>)> {
    let cols = matrix.ncols();
    let mut rest = Some(matrix);
    (0..cols).step_by(width).map_while(move |start| {
        let (cut, right) = rest.take()?.split_at_col_mut(width.min(cols - start));
        rest = Some(right);
        Some((start, cut))
    })
}

/// The plainest products there are, for tests.
#[cfg(test)]
pub(super) mod plain {
    use super::*;

    pub(crate) struct Plain;

    impl Threads for Plain {
        fn for_each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), ProductError> {
            (0..count).for_each(task);
            Ok(())
        }
    }

    impl<T: Scalar> Products<T> for Plain {
        fn multiply(
            &mut self,
            a: Matrix<'_, T>,
            b: Matrix<'_, T>,
            addend: Option<&[T]>,
            out: &mut [T],
        ) -> Result<(), ProductError> {
            assert_eq!(a.cols(), b.rows());
            assert_eq!(out.len(), a.rows() * b.cols());
            for (index, out) in out.iter_mut().enumerate() {
                let (row, col) = (index / b.cols(), index % b.cols());
                let mut sum = addend.map_or(T::default(), |addend| addend[index]);
                for k in 0..a.cols() {
                    sum += a.at(row, k) * b.at(k, col);
                }
                *out = sum;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// As many threads as there are parts, which are counted.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Threads for Counting {
        fn for_each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), ProductError> {
            self.0.store(count, Ordering::Relaxed);
            std::thread::scope(|scope| {
                for index in 0..count {
                    scope.spawn(move || task(index));
                }
            });
            Ok(())
        }
    }

    /// An integer, so that sums are exact in any order.
    fn element(index: usize) -> f64 {
        (index * index % 17) as f64 - 8.0
    }

    #[test]
    fn parts_are_the_product() {
        // Rows, inner size, columns, and into how many parts that goes.
        for ([rows, inner, cols], parts) in [
            ([3, 5, 2], 0),
            ([40, 2000, 30], 0),
            ([130, 700, 90], 2),
            ([90, 700, 130], 2),
            ([400, 900, 401], 20),
            ([60, 80, 1700], 18),
        ] {
            let left: Vec<f64> = (0..rows * inner).map(element).collect();
            let right: Vec<f64> = (0..inner * cols).map(element).collect();
            let (a, b) = (Matrix::new(&left, rows, inner), Matrix::new(&right, inner, cols));
            let mut expected = vec![f64::NAN; rows * cols];
            plain::Plain.multiply(a, b, None, &mut expected).unwrap();
            let threads = Counting::default();
            let mut out = vec![1.0; rows * cols];
            let view = MatMut::from_row_major_slice_mut(&mut out, rows, cols);
            multiply(view, Accum::Add, [a.view(), b.view()], -2.0, &threads).unwrap();
            assert!(out.iter().zip(&expected).all(|(out, expected)| *out == 1.0 - 2.0 * expected), "{rows}x{cols}");
            assert_eq!(threads.0.into_inner(), parts, "{rows}x{inner}x{cols}");
        }
    }

    #[test]
    fn half_of_the_parts_are_the_symmetric_product() {
        for ([order, inner], parts) in
            [([1, 3], 0), ([100, 90], 0), ([130, 1100], 3), ([160, 3000], 7), ([301, 1000], 8)]
        {
            let stored: Vec<f64> = (0..order * inner).map(element).collect();
            for x in [Matrix::new(&stored, order, inner), Matrix::new(&stored, inner, order).t()] {
                let mut expected = vec![f64::NAN; order * order];
                plain::Plain.multiply(x, x.t(), None, &mut expected).unwrap();
                let threads = Counting::default();
                let operands = [x.view(), x.view().transpose()];
                let mut out = vec![f64::NAN; order * order];
                let mut view = MatMut::from_row_major_slice_mut(&mut out, order, order);
                multiply_lower(view.rb_mut(), Accum::Replace, operands, 1.0, &threads).unwrap();
                multiply_lower(view, Accum::Add, operands, -3.0, &threads).unwrap();
                mirror(&mut out, order, order);
                assert!(out.iter().zip(&expected).all(|(out, expected)| *out == -2.0 * expected), "{order}x{inner}");
                assert_eq!(threads.0.into_inner(), parts, "{order}x{inner}");
            }
        }
    }
}
