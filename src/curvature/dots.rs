//! Symmetric products of a few long rows, each element as a dot product.
//!
//! `faer`'s kernels go through the inner axis element by element, with a tile of the result in registers. Where the rows are what lies together in
//! memory, they bring them into another order first, which takes as long as half of the product for a usual batch. A dot product needs no other
//! order, only a sum over the lanes of a register at its end.

use faer::{Accum, MatRef};

use super::Scalar;
use super::matrix::{RowMajor, RowMajorMut};

/// Rows of each operand at a time: there are registers for the dot products of that many.
const TILE: usize = 4;

/// Bytes of a row. Shorter ones take less time in another order than sums over lanes.
const LONG: usize = 768;

/// More rows come from the outer caches too often.
const FEW: usize = 160;

/// Few long rows that are multiplied with as many others.
pub(super) struct LongRows<'a, T> {
    left: RowMajor<'a, T>,
    /// The columns of the right operand.
    right: RowMajor<'a, T>,
}

impl<'a, T: Scalar> LongRows<'a, T> {
    /// The rows of `left` and the columns of `right`, if dot products are the way to multiply them.
    pub(super) fn of(left: MatRef<'a, T>, right: MatRef<'a, T>) -> Option<Self> {
        let rows = Self { left: left.try_as_row_major()?, right: right.transpose().try_as_row_major()? };
        (left.nrows() <= FEW && left.ncols() * size_of::<T>() >= LONG).then_some(rows)
    }

    /// Replaces what is on and above the diagonal by alpha times the product, or adds that to it, in the rows `out` of the
    /// result, from the diagonal on, of which this is the first; some of what is below the diagonal is written too.
    pub(super) fn multiply_upper(&self, out: RowMajorMut<'_, T>, first: usize, accum: Accum, alpha: T) {
        pulp::Arch::new().dispatch(Product { rows: self, out, first, accum, alpha });
    }
}

/// The work, compiled for each kind of processor; all that it calls must be inlined.
struct Product<'a, 'b, T> {
    rows: &'b LongRows<'a, T>,
    out: RowMajorMut<'b, T>,
    first: usize,
    accum: Accum,
    alpha: T,
}

impl<T: Scalar> pulp::WithSimd for Product<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { rows: LongRows { left, right }, mut out, first, accum, alpha } = self;
        let (rows, cols) = (out.nrows(), out.ncols());
        for row in (0..rows).step_by(TILE) {
            for col in (row..cols).step_by(TILE) {
                let sums = dot_products(simd, tile(*left, first + row), tile(*right, first + col));
                for (row, sums) in (row..rows).zip(sums) {
                    for (col, sum) in (col..cols).zip(sums) {
                        match accum {
                            Accum::Replace => out[(row, col)] = alpha * sum,
                            Accum::Add => out[(row, col)] += alpha * sum,
                        }
                    }
                }
            }
        }
    }
}

/// The rows from `first` on; the last one for those that a matrix does not have.
#[inline(always)]
fn tile<T>(rows: RowMajor<'_, T>, first: usize) -> [&[T]; TILE] {
    let row = |row: usize| rows.row(row.min(rows.nrows() - 1)).as_slice();
    [row(first), row(first + 1), row(first + 2), row(first + 3)]
}

/// Those of each row on the left with each on the right.
#[inline(always)]
fn dot_products<T: Scalar, S: pulp::Simd>(simd: S, left: [&[T]; TILE], right: [&[T]; TILE]) -> [[T; TILE]; TILE] {
    let ctx = T::simd_ctx(simd);
    let mut sums = [[T::simd_splat(&ctx, &T::default()); TILE]; TILE];
    let [a, b, c, d] = left.map(T::registers::<S>);
    let [e, f, g, h] = right.map(T::registers::<S>);
    let columns = a.0.iter().zip(b.0).zip(c.0).zip(d.0).zip(e.0).zip(f.0).zip(g.0).zip(h.0);
    for (((((((a, b), c), d), e), f), g), h) in columns {
        add_products::<T, S>(&ctx, &mut sums, [*a, *b, *c, *d], [*e, *f, *g, *h]);
    }
    if !a.1.is_empty() {
        let left = [a.1, b.1, c.1, d.1].map(|rest| T::partial_register(simd, rest));
        let right = [e.1, f.1, g.1, h.1].map(|rest| T::partial_register(simd, rest));
        add_products::<T, S>(&ctx, &mut sums, left, right);
    }
    let mut products = [[T::default(); TILE]; TILE];
    for (product, sum) in products.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *product = T::simd_reduce_sum(&ctx, *sum);
    }
    products
}

/// Adds lane by lane.
#[inline(always)]
fn add_products<T: Scalar, S: pulp::Simd>(
    ctx: &T::SimdCtx<S>,
    sums: &mut [[T::SimdVec<S>; TILE]; TILE],
    left: [T::SimdVec<S>; TILE],
    right: [T::SimdVec<S>; TILE],
) {
    for (sums, left) in sums.iter_mut().zip(left) {
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum = T::simd_mul_add(ctx, left, right, *sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use faer::Mat;
    use faer::reborrow::ReborrowMut;

    use super::super::matrix::row_major_mut;
    use super::*;

    /// With integers, so that sums are exact in any order.
    fn check<T: Scalar>(order: usize, inner: usize) {
        let integers = |cols: usize, seed: usize| {
            let integer = |index: usize| T::from_f64(((index * index + seed) % 17) as f64 - 8.0);
            (0..order * cols).map(integer).collect::<Vec<T>>()
        };
        let (left, right) = (integers(inner, 1), integers(inner, 5));
        let [left, right] = [&left, &right].map(|rows| MatRef::from_row_major_slice(rows, order, inner));
        let expected: Mat<T> = left * right.transpose();
        let start = integers(order, 3);
        let mut out = vec![T::default(); order * order];
        let mut out = row_major_mut(&mut out, [order, order], order);
        for (accum, start) in [(Accum::Replace, None), (Accum::Add, Some(&start))] {
            if let Some(start) = start {
                out.rb_mut().copy_from(MatRef::from_row_major_slice(start, order, order));
            }
            let rows = LongRows::of(left, right.transpose()).unwrap();
            rows.multiply_upper(out.rb_mut(), 0, accum, T::from_f64(-2.0));
            for (row, col) in (0..order).flat_map(|row| (row..order).map(move |col| (row, col))) {
                let start = start.map_or(T::default(), |start| start[row * order + col]);
                assert!(
                    out[(row, col)] == start - expected[(row, col)] * T::from_f64(2.0),
                    "{order}x{inner}: {row}, {col}"
                );
            }
        }
    }

    #[test]
    fn dot_products_are_the_product() {
        for (order, inner) in
            (1..=9).chain([60, 63, 160]).flat_map(|order| [192, 193, 207, 400].map(|inner| (order, inner)))
        {
            check::<f32>(order, inner);
            check::<f64>(order, inner);
        }
    }

    /// Whether rows of so many ones are multiplied this way, as rows or as columns of the memory.
    fn takes<T: Scalar>(order: usize, inner: usize) -> [bool; 2] {
        let ones = vec![T::from_f64(1.0); order * inner];
        let rows = MatRef::from_row_major_slice(&ones, order, inner);
        let columns = MatRef::from_column_major_slice(&ones, order, inner);
        [rows, columns].map(|matrix| LongRows::of(matrix, matrix.transpose()).is_some())
    }

    #[test]
    fn for_few_long_rows_that_lie_together() {
        assert_eq!([takes::<f32>(160, 192), takes::<f64>(160, 96)], [[true, false]; 2]);
        assert_eq!([takes::<f32>(161, 192), takes::<f32>(160, 191), takes::<f64>(160, 95)], [[false; 2]; 3]);
    }
}
