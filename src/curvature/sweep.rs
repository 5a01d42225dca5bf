//! In-place inverses of small symmetric positive definite matrices, by block Gauss-Jordan elimination.
//!
//! `faer`'s Cholesky factorisation and inverse of order 60 take as long as the products of a layer with 60 rows and
//! 400 features, because each of their steps waits for the one before. Here eight pivots are eliminated at a time, from
//! whole rows. Without pivoting that is safe for a positive definite matrix: it goes through the same pivots as a
//! Cholesky factorisation, squared.

use faer::traits::pulp;

use super::Scalar;

/// Above this order it is better to split the matrix.
pub(super) const LARGEST: usize = 112;

/// Pivots per step: as many rows as there are registers for.
const BLOCK: usize = 8;

type Block<T> = [[T; BLOCK]; BLOCK];

/// Buffers, which only grow.
#[derive(Default)]
pub(super) struct Sweep<T> {
    /// The matrix, up to a whole number of blocks.
    padded: Vec<T>,
    /// The rows of the pivots that are being eliminated, by blocks.
    pivots: Vec<Block<T>>,
}

impl<T: Scalar> Sweep<T> {
    /// Replaces a symmetric positive definite matrix (row-major, order×order) by its inverse.
    ///
    /// On failure the index of the first pivot that is not positive is returned, and the matrix is left as it was.
    pub(super) fn invert(&mut self, matrix: &mut [T], order: usize) -> Result<(), usize> {
        let stride = order.next_multiple_of(BLOCK);
        self.padded.clear();
        self.padded.resize(stride * stride, T::default());
        self.pivots.resize(stride / BLOCK, [[T::default(); BLOCK]; BLOCK]);
        for (target, source) in self.padded.chunks_exact_mut(stride).zip(matrix.chunks_exact(order)) {
            target[..order].copy_from_slice(source);
        }
        for diagonal in self.padded.iter_mut().step_by(stride + 1).skip(order) {
            *diagonal = T::from_f64(1.0);
        }
        pulp::Arch::new().dispatch(Elimination { matrix: &mut self.padded, pivots: &mut self.pivots })?;
        for (target, source) in matrix.chunks_exact_mut(order).zip(self.padded.chunks_exact(stride)) {
            target.copy_from_slice(&source[..order]);
        }
        Ok(())
    }
}

/// The work, in the form in which `pulp` compiles it for each kind of processor; all that it calls must be inlined.
struct Elimination<'a, T> {
    matrix: &'a mut [T],
    pivots: &'a mut [Block<T>],
}

impl<T: Scalar> pulp::WithSimd for Elimination<'_, T> {
    type Output = Result<(), usize>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
        let Elimination { matrix, pivots } = self;
        let stride = pivots.len() * BLOCK;
        for step in 0..pivots.len() {
            let start = step * BLOCK;
            for (index, row) in matrix[start * stride..(start + BLOCK) * stride].chunks_exact(stride).enumerate() {
                for (block, source) in pivots.iter_mut().zip(row.as_chunks().0) {
                    block[index] = *source;
                }
            }
            let inverse = invert_block(pivots[step]).map_err(|index| start + index)?;
            // With zeros in the pivots' own columns these are left alone by the updates below.
            pivots[step] = [[T::default(); BLOCK]; BLOCK];
            for (index, row) in matrix.chunks_exact_mut(stride).enumerate() {
                let row = row.as_chunks_mut().0;
                let factors = if (start..start + BLOCK).contains(&index) {
                    row.fill([T::default(); BLOCK]);
                    inverse[index - start]
                } else {
                    minus_product(&row[step], &inverse)
                };
                for (chunk, block) in row.iter_mut().zip(&*pivots) {
                    *chunk = add_multiples(*chunk, &factors, block);
                }
                row[step] = factors;
            }
        }
        Ok(())
    }
}

/// row + factors·block
#[inline(always)]
fn add_multiples<T: Scalar>(mut row: [T; BLOCK], factors: &[T; BLOCK], block: &Block<T>) -> [T; BLOCK] {
    for (factor, values) in factors.iter().zip(block) {
        for (sum, value) in row.iter_mut().zip(values) {
            *sum = factor.mul_add(*value, *sum);
        }
    }
    row
}

/// −row·block
#[inline(always)]
fn minus_product<T: Scalar>(row: &[T; BLOCK], block: &Block<T>) -> [T; BLOCK] {
    add_multiples([T::default(); BLOCK], &row.map(|value| -value), block)
}

/// The inverse of a block, or the index within it of the first pivot that is not positive.
#[inline(always)]
fn invert_block<T: Scalar>(mut block: Block<T>) -> Result<Block<T>, usize> {
    for index in 0..BLOCK {
        let pivot = block[index][index];
        let is_positive = pivot > T::default(); // and not NaN
        if !is_positive {
            return Err(index);
        }
        let reciprocal = T::from_f64(1.0) / pivot;
        let mut pivot_row = block[index].map(|value| value * reciprocal);
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
