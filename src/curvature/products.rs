//! Dense products: long sums over samples are the host's to compute, all else is `faer`'s, on the host's threads.
//!
//! What conditions a layer are small products, symmetric ones of which half is enough, and products of parts of matrices, and what
//! follows them needs their rows where they are: in the caches of the thread that has just computed them. A runtime's `Gemm`
//! knows none of that, and brings both operands into its own order at every call. But where that is done for a sum of a thousand terms,
//! it is the faster one.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::reborrow::ReborrowMut;
use faer::{Accum, MatRef, Par, unzip, zip};

use super::dots::LongRows;
use super::matrix::{RowMajorMut, row_major_mut};
use super::parts::{TILE, Target};
use super::{Matrix, Scalar};

/// Why the host could not multiply, or run what it was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProductError(pub String);

/// The host's threads.
pub trait Threads {
    /// How many there may be, at most and at least one.
    fn most(&self) -> usize;

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

/// Columns of a strip, at most: six registers of float, what kernels compute at a time.
const WIDE: usize = 96;

/// Columns of a row that is written in strips of [`WIDEST`], if its elements are sums of few terms: memory takes as long for them as
/// kernels, and is quicker with longer runs.
const LONG: usize = 1024;

/// Terms of such sums, at most.
const FEW: usize = 200;

/// Five times [`WIDE`].
const WIDEST: usize = 480;

/// Terms that are added up before their sum is added to the result, at most: what kernels need of the operands for so many
/// stays in the caches, and where terms are equal, as of equal rows, fewer equal rounding errors come together.
const TERMS: usize = 100;

/// Writes left·right, row-major.
pub(super) fn write_product<T: Scalar>(
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    threads: &impl Threads,
    out: &mut [T],
) -> Result<(), ProductError> {
    let out = row_major_mut(out, [left.rows(), right.cols()], right.cols());
    multiply(Target::Plain(out), Accum::Replace, [left.view(), right.view()], T::from_f64(1.0), threads)
}

/// Replaces what is in `target` by alpha·left·right, or adds that to it. No dimension is zero.
pub(super) fn multiply<T: Scalar>(
    target: Target<'_, T>,
    accum: Accum,
    [left, right]: [MatRef<'_, T>; 2],
    alpha: T,
    threads: &impl Threads,
) -> Result<(), ProductError> {
    let inner = left.ncols();
    if let Target::Symmetric(_) = target
        && let Some(rows) = LongRows::of(left, right)
    {
        // Low bands, of which there are enough for threads: dot products bring nothing into another order for each.
        return target.compute_bands(left.nrows().div_ceil(TILE), inner, threads, |band| {
            rows.multiply_upper(band.out.rb_mut(), band.start[0], accum, alpha);
        });
    }
    target.compute(inner, threads, |band| {
        let [row, col] = band.start;
        let operands = [left.subrows(row, band.out.nrows()), right.subcols(col, band.out.ncols())];
        multiply_here(band.out.rb_mut(), accum, operands, alpha);
    })
}

/// Writes left·right plus what `begin` writes into each band of `out`, of which it is given the first row.
pub(super) fn multiply_onto<T: Scalar>(
    out: RowMajorMut<'_, T>,
    begin: impl Fn(RowMajorMut<'_, T>, usize) + Sync,
    [left, right]: [MatRef<'_, T>; 2],
    threads: &impl Threads,
) -> Result<(), ProductError> {
    Target::Plain(out).compute(left.ncols(), threads, |band| {
        let [row, _] = band.start;
        begin(band.out.rb_mut(), row);
        let left = left.subrows(row, band.out.nrows());
        multiply_here(band.out.rb_mut(), Accum::Add, [left, right], T::from_f64(1.0));
    })
}

/// Writes left·right + addend, where `left` gives some rows of the left operand: to the thread that multiplies them, once.
pub(super) fn multiply_added<'a, T: Scalar>(
    out: RowMajorMut<'_, T>,
    left: impl Fn(Range<usize>) -> MatRef<'a, T> + Sync,
    right: MatRef<'_, T>,
    addend: Option<MatRef<'_, T>>,
    threads: &impl Threads,
) -> Result<(), ProductError> {
    Target::Plain(out).compute(right.nrows(), threads, |band| {
        let ([row, _], rows) = (band.start, band.out.nrows());
        let left = left(row..row + rows);
        multiply_here(band.out.rb_mut(), Accum::Replace, [left, right], T::from_f64(1.0));
        if let Some(addend) = addend {
            zip!(band.out.rb_mut(), addend.subrows(row, rows)).for_each(|unzip!(out, addend)| *out += *addend);
        }
    })
}

/// As [`multiply`], on the calling thread.
pub(super) fn multiply_here<T: Scalar>(
    out: RowMajorMut<'_, T>,
    accum: Accum,
    [left, right]: [MatRef<'_, T>; 2],
    alpha: T,
) {
    let (cols, inner) = (out.ncols(), left.ncols());
    let width =
        if inner <= FEW && cols >= LONG { WIDEST } else { cols.div_ceil(cols.div_ceil(WIDE)).next_multiple_of(TILE) };
    let terms = inner.div_ceil(inner.div_ceil(TERMS));
    let (mut others, mut col) = (out, 0);
    while others.ncols() > 0 {
        let width = width.min(others.ncols());
        let (mut strip, right_of_strip) = others.split_at_col_mut(width);
        let mut accum = accum;
        for first in (0..inner).step_by(terms) {
            let terms = terms.min(inner - first);
            let operands = (left.subcols(first, terms), right.submatrix(first, col, terms, width));
            matmul(strip.rb_mut(), accum, operands.0, operands.1, alpha, Par::Seq);
            accum = Accum::Add;
        }
        (others, col) = (right_of_strip, col + width);
    }
}

/// The plainest products there are, for tests.
#[cfg(test)]
pub(super) mod plain {
    use super::*;

    pub(crate) struct Plain;

    impl Threads for Plain {
        fn most(&self) -> usize {
            2
        }

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

    /// As many threads as tasks, which are counted.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Threads for Counting {
        fn most(&self) -> usize {
            4
        }

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
        // Rows, inner size, columns, and how many threads that is for.
        for ([rows, inner, cols], shares) in [
            ([3, 5, 2], 0),
            ([40, 300, 30], 0),
            ([130, 70, 90], 3),
            ([90, 20, 130], 0),
            ([250, 70, 90], 4),
            ([400, 90, 401], 4),
            ([60, 80, 1700], 2),
        ] {
            let left: Vec<f64> = (0..rows * inner).map(element).collect();
            let right: Vec<f64> = (0..inner * cols).map(element).collect();
            let (a, b) = (Matrix::new(&left, rows, inner), Matrix::new(&right, inner, cols));
            let mut product = vec![f64::NAN; rows * cols];
            plain::Plain.multiply(a, b, None, &mut product).unwrap();
            let expected: Vec<f64> = product.iter().map(|element| 1.0 - 2.0 * element).collect();
            for is_reflected in [false, true] {
                let threads = Counting::default();
                let (mut out, mut reflection) = (vec![1.0; rows * cols], vec![f64::NAN; rows * cols]);
                let target = row_major_mut(&mut out, [rows, cols], cols);
                let target = if is_reflected {
                    Target::Reflected(target, row_major_mut(&mut reflection, [cols, rows], rows))
                } else {
                    Target::Plain(target)
                };
                multiply(target, Accum::Add, [a.view(), b.view()], -2.0, &threads).unwrap();
                assert_eq!(out, expected, "{rows}x{inner}x{cols}");
                assert_eq!(threads.0.into_inner(), shares, "{rows}x{inner}x{cols}");
                let (reflection, expected) = (Matrix::new(&reflection, cols, rows), Matrix::new(&expected, rows, cols));
                assert!(!is_reflected || reflection.t().view() == expected.view(), "{rows}x{inner}x{cols}");
            }
        }
    }

    #[test]
    fn a_product_begins_with_what_is_there() {
        let [rows, inner, cols] = [230, 110, 170];
        let left: Vec<f64> = (0..rows * inner).map(element).collect();
        let right: Vec<f64> = (0..inner * cols).map(element).collect();
        let (a, b) = (Matrix::new(&left, rows, inner), Matrix::new(&right, inner, cols));
        let mut expected = vec![f64::NAN; rows * cols];
        plain::Plain.multiply(a, b, None, &mut expected).unwrap();
        expected.iter_mut().enumerate().for_each(|(index, expected)| *expected += index as f64);
        let begin = |mut out: RowMajorMut<'_, f64>, row: usize| {
            for index in 0..out.nrows() {
                let first = (row + index) * cols;
                for (col, out) in out.rb_mut().row_mut(index).as_slice_mut().iter_mut().enumerate() {
                    *out = (first + col) as f64;
                }
            }
        };
        let mut out = vec![f64::NAN; rows * cols];
        let target = row_major_mut(&mut out, [rows, cols], cols);
        multiply_onto(target, begin, [a.view(), b.view()], &Counting::default()).unwrap();
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_added_is_added_once() {
        let [rows, inner, cols] = [410, 30, 170];
        let left: Vec<f64> = (0..inner * rows).map(element).collect();
        let right: Vec<f64> = (0..inner * cols).map(element).collect();
        let (a, b) = (Matrix::new(&left, inner, rows).t(), Matrix::new(&right, inner, cols));
        let addend: Vec<f64> = (0..rows * cols).map(|index| index as f64).collect();
        let mut expected = vec![f64::NAN; rows * cols];
        plain::Plain.multiply(a, b, Some(&addend), &mut expected).unwrap();
        let asked = AtomicUsize::new(0);
        let left = |rows: Range<usize>| {
            asked.fetch_add(rows.len(), Ordering::Relaxed);
            a.view().subrows(rows.start, rows.len())
        };
        let mut out = vec![f64::NAN; rows * cols];
        let target = row_major_mut(&mut out, [rows, cols], cols);
        let addend = Some(Matrix::new(&addend, rows, cols).view());
        multiply_added(target, left, b.view(), addend, &Counting::default()).unwrap();
        assert_eq!(out, expected);
        assert_eq!(asked.into_inner(), rows);
    }

    #[test]
    fn half_of_the_parts_are_the_symmetric_product() {
        // Order, inner size, and how many threads that is for, as rows and as columns of the memory.
        for ([order, inner], shares) in [
            ([1, 3], [0, 0]),
            ([60, 250], [0, 0]),
            ([60, 400], [2, 2]),
            ([100, 99], [0, 0]),
            ([130, 110], [3, 3]),
            ([160, 300], [10, 4]),
            ([301, 100], [5, 5]),
        ] {
            let stored: Vec<f64> = (0..order * inner).map(element).collect();
            let layouts = [Matrix::new(&stored, order, inner), Matrix::new(&stored, inner, order).t()];
            for (x, shares) in layouts.into_iter().zip(shares) {
                let mut expected = vec![f64::NAN; order * order];
                plain::Plain.multiply(x, x.t(), None, &mut expected).unwrap();
                let threads = Counting::default();
                let operands = [x.view(), x.view().transpose()];
                let mut out = vec![f64::NAN; order * order];
                for (accum, alpha) in [(Accum::Replace, 1.0), (Accum::Add, -3.0)] {
                    let target = Target::Symmetric(row_major_mut(&mut out, [order, order], order));
                    multiply(target, accum, operands, alpha, &threads).unwrap();
                }
                assert!(out.iter().zip(&expected).all(|(out, expected)| *out == -2.0 * expected), "{order}x{inner}");
                assert_eq!(threads.0.into_inner(), shares, "{order}x{inner}");
            }
        }
    }
}
