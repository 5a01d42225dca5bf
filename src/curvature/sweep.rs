//! In-place inverses of small symmetric positive definite matrices, by block Gauss-Jordan elimination.
//!
//! `faer`'s Cholesky factorisation and inverse of order 60 take as long as the products of a layer with 60 rows and
//! 400 features, because each of their steps waits for the one before. Here eight pivots are eliminated at a time, from
//! whole rows, which is two and a half to five times as fast up to [`LARGEST`]. Without pivoting it is as stable for a positive
//! definite matrix as a Cholesky factorisation, whose squared pivots it goes through.

use faer::traits::pulp;

use super::Scalar;

/// Above this order it is better to split the matrix.
pub(super) const LARGEST: usize = 112;

/// Pivots per step: as many rows as there are registers for.
const BLOCK: usize = 8;

/// Replaces a symmetric positive definite matrix (row-major, order×order) by its inverse.
///
/// `buffer` is scratch, which only grows. On failure the index of the first pivot that is not positive is returned, and
/// the matrix is lost.
pub(super) fn invert<T: Scalar>(
    matrix: &mut [T],
    order: usize,
    buffer: &mut Vec<T>,
) -> Result<(), usize> {
    let stride = order.next_multiple_of(BLOCK);
    buffer.clear();
    buffer.resize(stride * stride + BLOCK * stride, T::default());
    let (padded, pivots) = buffer.split_at_mut(stride * stride);
    // Whole blocks only: the rest of the diagonal is one, and stays so.
    for (row, target) in padded.chunks_exact_mut(stride).enumerate() {
        match matrix.get(row * order..(row + 1) * order) {
            Some(source) => target[..order].copy_from_slice(source),
            None => target[row] = T::from_f64(1.0),
        }
    }
    pulp::Arch::new().dispatch(Elimination {
        padded,
        pivots,
        stride,
    })?;
    for (row, source) in matrix
        .chunks_exact_mut(order)
        .zip(padded.chunks_exact(stride))
    {
        row.copy_from_slice(&source[..order]);
    }
    Ok(())
}

/// The work, in the form in which `pulp` compiles it for each kind of processor; all that it calls must be inlined.
struct Elimination<'a, T> {
    padded: &'a mut [T],
    pivots: &'a mut [T],
    stride: usize,
}

impl<T: Scalar> pulp::WithSimd for Elimination<'_, T> {
    type Output = Result<(), usize>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
        eliminate(self.padded, self.pivots, self.stride)
    }
}

#[inline(always)]
fn eliminate<T: Scalar>(matrix: &mut [T], pivots: &mut [T], stride: usize) -> Result<(), usize> {
    for start in (0..stride).step_by(BLOCK) {
        pivots.copy_from_slice(&matrix[start * stride..(start + BLOCK) * stride]);
        let inverse = invert_block(pivots, start, stride).map_err(|index| start + index)?;
        // With zeros in the pivots' own columns these are left alone by the update below.
        for pivot in pivots.chunks_exact_mut(stride) {
            pivot[start..start + BLOCK].fill(T::default());
        }
        for (index, row) in matrix.chunks_exact_mut(stride).enumerate() {
            if (start..start + BLOCK).contains(&index) {
                let factors = inverse[index - start];
                row.fill(T::default());
                add_multiples(row, factors, pivots);
                row[start..start + BLOCK].copy_from_slice(&factors);
            } else {
                let factors = times_block(&row[start..start + BLOCK], &inverse);
                add_multiples(row, factors, pivots);
                row[start..start + BLOCK].copy_from_slice(&factors);
            }
        }
    }
    Ok(())
}

/// row += Σ factors[p]·pivots[p]
#[inline(always)]
fn add_multiples<T: Scalar>(row: &mut [T], factors: [T; BLOCK], pivots: &[T]) {
    let stride = row.len();
    let pivot = |index: usize| &pivots[index * stride..(index + 1) * stride];
    let [p0, p1, p2, p3, p4, p5, p6, p7] = std::array::from_fn(pivot);
    let [f0, f1, f2, f3, f4, f5, f6, f7] = factors;
    for index in 0..stride {
        let low = f3.mul_add(
            p3[index],
            f2.mul_add(
                p2[index],
                f1.mul_add(p1[index], f0.mul_add(p0[index], row[index])),
            ),
        );
        row[index] = f7.mul_add(
            p7[index],
            f6.mul_add(p6[index], f5.mul_add(p5[index], f4.mul_add(p4[index], low))),
        );
    }
}

/// −row·block
#[inline(always)]
fn times_block<T: Scalar>(row: &[T], block: &[[T; BLOCK]; BLOCK]) -> [T; BLOCK] {
    let mut product = [T::default(); BLOCK];
    for (factor, block_row) in row.iter().zip(block) {
        for (sum, value) in product.iter_mut().zip(block_row) {
            *sum = (-*factor).mul_add(*value, *sum);
        }
    }
    product
}

/// The inverse of the block on the diagonal, or the index within it of the first pivot that is not positive.
#[inline(always)]
fn invert_block<T: Scalar>(
    pivots: &[T],
    start: usize,
    stride: usize,
) -> Result<[[T; BLOCK]; BLOCK], usize> {
    let mut block = [[T::default(); BLOCK]; BLOCK];
    for (row, source) in block.iter_mut().zip(pivots.chunks_exact(stride)) {
        row.copy_from_slice(&source[start..start + BLOCK]);
    }
    for index in 0..BLOCK {
        let pivot = block[index][index];
        // Written so that a NaN fails.
        if !(pivot > T::default()) {
            return Err(index);
        }
        let reciprocal = T::from_f64(1.0) / pivot;
        let mut pivot_row = block[index];
        for value in &mut pivot_row {
            *value *= reciprocal;
        }
        pivot_row[index] = reciprocal;
        for (other, row) in block.iter_mut().enumerate() {
            if other == index {
                *row = pivot_row;
            } else {
                let factor = -row[index];
                row[index] = T::default();
                for (value, pivot) in row.iter_mut().zip(&pivot_row) {
                    *value = factor.mul_add(*pivot, *value);
                }
            }
        }
    }
    Ok(block)
}
