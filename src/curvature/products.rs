//! Dense products: the layer's own is the host's, those that condition it are `faer`'s, on the host's threads.
//!
//! What conditions a layer are small products, symmetric ones of which half is enough, and products of parts of matrices. A
//! runtime's `Gemm` knows no symmetric product and no part of a matrix, and puts both operands into its own order at every
//! call.

use std::sync::{Mutex, PoisonError};

use faer::linalg::matmul::matmul;
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

/// Flops of a part of a product: fewer take less time than it takes to wake a thread.
const SHARE: usize = 8_000_000;

/// Parts of a product, at most.
const PARTS: usize = 16;

/// Columns of a symmetric product that are computed at a time.
const STRIP: usize = 32;

/// Rows of a part are a multiple of this, and so of what kernels compute at a time.
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

/// Replaces `out` by alpha·left·right, or adds that to it. No dimension is zero.
pub(super) fn multiply<T: Scalar>(
    out: MatMut<'_, T>,
    accum: Accum,
    [left, right]: [MatRef<'_, T>; 2],
    alpha: T,
    threads: &impl Threads,
) -> Result<(), ProductError> {
    let (rows, cols) = (out.nrows(), out.ncols());
    if cols > rows {
        return multiply(out.transpose_mut(), accum, [right.transpose(), left.transpose()], alpha, threads);
    }
    let height = height_of_parts(rows, (2 * rows * cols * left.ncols() / SHARE).min(PARTS));
    let mut parts = Parts::default();
    let mut below = out;
    for start in (0..rows).step_by(height) {
        let (part, rest) = below.split_at_row_mut(height.min(rows - start));
        below = rest;
        parts.push(Part { out: part, start: [start, 0] });
    }
    parts.compute(threads, |Part { out, start: [start, _] }| {
        let left = left.subrows(start, out.nrows());
        matmul(out, accum, left, right, alpha, Par::Seq);
    })
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
    // A matrix of k×k parts has k(k + 1)/2 on and below the diagonal.
    let height = height_of_parts(order, (2 * order * order * left.ncols() / SHARE).min(PARTS).isqrt());
    let mut parts = Parts::default();
    let mut below = out;
    for row in (0..order).step_by(height) {
        let (mut of_row, rest) = below.split_at_row_mut(height.min(order - row));
        below = rest;
        for col in (0..=row).step_by(height) {
            let (part, rest) = of_row.split_at_col_mut(height.min(order - col));
            of_row = rest;
            parts.push(Part { out: part, start: [row, col] });
        }
    }
    parts.compute(threads, |Part { out, start: [row, col] }| {
        let (left, right) = (left.subrows(row, out.nrows()), right.subcols(col, out.ncols()));
        if row == col {
            match LongRows::of(left, right) {
                Some(rows) => rows.multiply_lower(out, accum, alpha),
                None => multiply_by_strips(out, accum, [left, right], alpha),
            }
        } else {
            matmul(out, accum, left, right, alpha, Par::Seq);
        }
    })
}

/// As [`multiply_lower`]: each strip of columns from its own rows on. `faer`'s product of triangles leaves out whole tiles of what
/// is above the diagonal, and one tile is as high as a usual batch.
fn multiply_by_strips<T: Scalar>(out: MatMut<'_, T>, accum: Accum, [left, right]: [MatRef<'_, T>; 2], alpha: T) {
    let order = out.nrows();
    let mut columns = out;
    for start in (0..order).step_by(STRIP) {
        let width = STRIP.min(order - start);
        let (strip, rest) = columns.split_at_col_mut(width);
        columns = rest;
        let (_, strip) = strip.split_at_row_mut(start);
        let (left, right) = (left.subrows(start, order - start), right.subcols(start, width));
        matmul(strip, accum, left, right, alpha, Par::Seq);
    }
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

fn height_of_parts(rows: usize, parts: usize) -> usize {
    rows.div_ceil(parts.max(1)).next_multiple_of(ALIGNED)
}

/// A part of a product's result.
struct Part<'a, T> {
    out: MatMut<'a, T>,
    /// Its first row and column in the whole.
    start: [usize; 2],
}

/// The parts of a product, each of which goes to one thread.
struct Parts<'a, T> {
    parts: [Option<Part<'a, T>>; PARTS],
    count: usize,
}

impl<T> Default for Parts<'_, T> {
    fn default() -> Self {
        Self { parts: [const { None }; PARTS], count: 0 }
    }
}

impl<'a, T: Scalar> Parts<'a, T> {
    fn push(&mut self, part: Part<'a, T>) {
        self.parts[self.count] = Some(part);
        self.count += 1;
    }

    fn compute(self, threads: &impl Threads, compute: impl Fn(Part<'a, T>) + Sync) -> Result<(), ProductError> {
        if let [Some(_), None, ..] = self.parts {
            self.parts.into_iter().flatten().for_each(compute);
            return Ok(());
        }
        let parts = self.parts.map(Mutex::new);
        threads.for_each(self.count, &|index| {
            let part = parts[index].lock().unwrap_or_else(PoisonError::into_inner).take();
            part.into_iter().for_each(&compute);
        })
    }
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

    use faer::reborrow::ReborrowMut;

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
        for ([rows, inner, cols], parts) in
            [([3, 5, 2], 0), ([40, 2000, 30], 0), ([130, 700, 90], 2), ([90, 700, 130], 2), ([400, 900, 401], 13)]
        {
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
        for ([order, inner], parts) in [([1, 3], 0), ([100, 90], 0), ([130, 1100], 3), ([301, 1000], 10)] {
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
