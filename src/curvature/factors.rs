//! Block LDLᵀ factorisations of damped Gram matrices, and products with the inverse by substitution.
//!
//! A factorisation takes a third of an inverse's flops, and substitution as many as a product with the inverse. M = L·D·Lᵀ, where L
//! has identities as its diagonal blocks and D is block diagonal: as the blocks of D are inverted, all else is products. They replace M:
//! D⁻¹ is on the diagonal, Lᵀ above it, and C = L·D below. Block by block, from the first one on,
//!
//! ```text
//! C_qp = M_qp − Σ_{r<p} C_qr (Lᵀ)_rp  for q ≥ p, where C_pp is D_p     (Lᵀ)_pq = D_p⁻¹ (C_qp)ᵀ
//! ```
//!
//! and for M⁻¹y from y, from the first block on and then from the last one on,
//!
//! ```text
//! z_p = D_p⁻¹ (y_p − Σ_{r<p} C_pr z_r)     x_p = z_p − Σ_{q>p} (Lᵀ)_pq x_q
//! ```

use std::ops::Range;

use faer::reborrow::{Reborrow, ReborrowMut};
use faer::{Accum, MatRef};

use super::Scalar;
use super::matrix::{RowMajor, RowMajorMut, row_major_mut};
use super::parts::{TILE, Target, write_transpose};
use super::products::{Threads, multiply, multiply_here};
use super::spd::Breakdown;
use super::sweep::Sweep;

/// Order of a block on the diagonal, at most: sums of so many terms may have equal ones beside a large one, as the inverse of a
/// block has on its diagonal.
const BLOCK: usize = 64;

/// Rows and columns of the blocks: as many as have to be, and as even as tiles allow.
fn blocks(order: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    let width = order.div_ceil(order.div_ceil(BLOCK)).next_multiple_of(TILE);
    (0..order).step_by(width).map(move |start| start..order.min(start + width))
}

/// Replaces a symmetric positive definite matrix, order×order and row-major, by its factors. What is above the diagonal is not read.
pub(super) fn factorise<T: Scalar>(
    matrix: &mut [T],
    order: usize,
    sweep: &mut Sweep<T>,
    threads: &impl Threads,
) -> Result<(), Breakdown> {
    let one = T::from_f64(1.0);
    for Range { start, end } in blocks(order) {
        let width = end - start;
        if start > 0 {
            let (_, above, left, others) = row_major_mut(matrix, [order, order], order).split_at_mut(start, start);
            let (column, _) = others.split_at_col_mut(width);
            let operands = [left.rb().as_dyn_stride(), above.rb().as_dyn_stride().subcols(0, width)];
            multiply(Target::Plain(column), Accum::Add, operands, -one, threads)?;
        }
        sweep
            .invert(&mut matrix[start * (order + 1)..], [width, order])
            .map_err(|pivot| Breakdown::Pivot(start + pivot))?;
        if end < order {
            let (before, above, below, _) = row_major_mut(matrix, [order, order], order).split_at_mut(end, end);
            let inverse = before.rb().as_dyn_stride().submatrix(start, start, width, width);
            let column = below.rb().as_dyn_stride().subcols(start, width);
            let (_, row) = above.split_at_row_mut(start);
            multiply(Target::Plain(row), Accum::Replace, [inverse, column.transpose()], one, threads)?;
        }
    }
    Ok(())
}

/// What [`factorise`] left.
#[derive(Clone, Copy)]
pub(super) struct Factors<'a, T>(RowMajor<'a, T>);

impl<'a, T: Scalar> Factors<'a, T> {
    /// Those in a matrix of this order, row-major.
    ///
    /// # Panics
    /// If it does not have order·order elements.
    pub(super) fn of(matrix: &'a [T], order: usize) -> Self {
        let matrix = MatRef::from_row_major_slice(matrix, order, order);
        Self(matrix.try_as_row_major().expect("one element from column to column"))
    }

    /// Elements of a buffer for so many columns at a time.
    pub(super) fn buffer_len(order: usize, cols: usize) -> usize {
        (order + BLOCK) * cols
    }

    /// The inverse times alpha·y, order×cols, on the calling thread, in a buffer of [`Self::buffer_len`].
    pub(super) fn solve<'b>(&self, y: MatRef<'_, T>, alpha: T, buffer: &'b mut [T]) -> MatRef<'b, T> {
        let Self(factors) = self;
        let (order, cols) = (factors.nrows(), y.ncols());
        let (x, spare) = buffer.split_at_mut(order * cols);
        let mut all = row_major_mut(x, [order, cols], cols);
        let one = T::from_f64(1.0);
        for Range { start, end } in blocks(order) {
            let width = end - start;
            let (before, others) = all.rb_mut().split_at_row_mut(start);
            let (block, _) = others.split_at_row_mut(width);
            let mut right = row_major_mut(&mut spare[..width * cols], [width, cols], cols);
            write_scaled(y.subrows(start, width), alpha, right.rb_mut());
            if start > 0 {
                let row = factors.submatrix(start, 0, width, start);
                multiply_here(right.rb_mut(), Accum::Add, [row.as_dyn_stride(), before.rb().as_dyn_stride()], -one);
            }
            let inverse = factors.submatrix(start, start, width, width);
            multiply_here(block, Accum::Replace, [inverse.as_dyn_stride(), right.rb().as_dyn_stride()], one);
        }
        for Range { start, end } in blocks(order).rev().skip(1) {
            let (others, after) = all.rb_mut().split_at_row_mut(end);
            let (_, block) = others.split_at_row_mut(start);
            let row = factors.submatrix(start, end, end - start, order - end);
            multiply_here(block, Accum::Add, [row.as_dyn_stride(), after.rb().as_dyn_stride()], -one);
        }
        MatRef::from_row_major_slice(x, order, cols)
    }
}

/// Writes alpha·y.
fn write_scaled<T: Scalar>(y: MatRef<'_, T>, alpha: T, mut out: RowMajorMut<'_, T>) {
    match y.transpose().try_as_row_major() {
        Some(columns) => write_transpose(columns, out.rb_mut()),
        None => out.copy_from(y),
    }
    if alpha != T::from_f64(1.0) {
        for row in 0..out.nrows() {
            out.rb_mut().row_mut(row).as_slice_mut().iter_mut().for_each(|element| *element *= alpha);
        }
    }
}

#[cfg(test)]
mod tests {
    use faer::Mat;

    use super::super::products::plain::Plain;
    use super::*;

    /// I + x xᵀ/10 with x[i][k] = sin(i·k + i).
    fn damped(order: usize) -> Mat<f64> {
        let x = Mat::from_fn(order, order + 3, |i, k| ((i * k + i) as f64).sin());
        &x * x.transpose() * faer::Scale(0.1) + Mat::<f64>::identity(order, order)
    }

    #[test]
    fn solutions_times_the_matrix_are_the_right_hand_side() {
        for order in [1, 16, 63, 64, 65, 113, 130, 200, 257] {
            let matrix = damped(order);
            // What is above the diagonal may be anything.
            let mut factors: Vec<f64> = (0..order * order)
                .map(|index| (index / order, index % order))
                .map(|(row, col)| if row < col { f64::NAN } else { matrix[(row, col)] })
                .collect();
            factorise(&mut factors, order, &mut Sweep::default(), &Plain).unwrap();
            let y = Mat::from_fn(order, 100, |row, col| ((row * 7 + col * 3) as f64).cos());
            let rows = y.transpose().to_owned();
            for y in [y.as_ref(), rows.transpose()] {
                let mut buffer = vec![f64::NAN; Factors::<f64>::buffer_len(order, 100)];
                let x = Factors::of(&factors, order).solve(y, -2.0, &mut buffer);
                let error = (&matrix * x + y * faer::Scale(2.0)).norm_max();
                assert!(error < 1e-11, "order {order}: {error:e}");
            }
        }
    }

    #[test]
    fn the_pivot_that_is_not_positive_is_told() {
        for pivot in [0, 70, 149] {
            let mut matrix = vec![0.0f32; 150 * 150];
            matrix.iter_mut().step_by(151).for_each(|diagonal| *diagonal = 1.0);
            matrix[pivot * 151] = -2.0;
            let broken = factorise(&mut matrix, 150, &mut Sweep::default(), &Plain);
            assert!(matches!(broken, Err(Breakdown::Pivot(index)) if index == pivot), "{broken:?}");
        }
    }
}
