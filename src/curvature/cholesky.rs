//! Inverses by Cholesky factorisation, with `faer`.
//!
//! Slower than [`super::sweep`], but where the condition number κ of M is large this inverse V is the one to use: its
//! error has the form R·V with a small R, so that the product V·x is accurate to κ times the precision even where it is
//! κ times smaller than x. Elimination only bounds the error by κ·‖V‖, which in such a product is κ².

use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::linalg::cholesky::llt;
use faer::{MatMut, MatRef, Par};

/// Buffers, which only grow.
pub(super) struct Cholesky {
    factor: Vec<f64>,
    stack: MemBuffer,
}

impl Default for Cholesky {
    fn default() -> Self {
        Self { factor: Vec::new(), stack: MemBuffer::new(StackReq::EMPTY) }
    }
}

impl Cholesky {
    /// Replaces a symmetric positive definite matrix by its inverse, or returns the index of the first pivot that is
    /// not positive.
    pub(super) fn invert(&mut self, matrix: &mut [f64], order: usize) -> Result<(), usize> {
        let request = llt::factor::cholesky_in_place_scratch::<f64>(order, Par::Seq, Default::default())
            .or(llt::inverse::inverse_scratch::<f64>(order, Par::Seq));
        if self.stack.len() < request.unaligned_bytes_required() {
            self.stack = MemBuffer::new(request);
        }
        let stack = MemStack::new(&mut self.stack);
        self.factor.clear();
        self.factor.extend_from_slice(matrix);
        llt::factor::cholesky_in_place(
            MatMut::from_column_major_slice_mut(&mut self.factor, order, order),
            Default::default(),
            Par::Seq,
            stack,
            Default::default(),
        )
        .map_err(|llt::factor::LltError::NonPositivePivot { index }| index)?;
        llt::inverse::inverse(
            MatMut::from_column_major_slice_mut(matrix, order, order),
            MatRef::from_column_major_slice(&self.factor, order, order),
            Par::Seq,
            stack,
        );
        // Only the lower triangle of the column-major result is written.
        for col in 0..order {
            for row in col + 1..order {
                matrix[row * order + col] = matrix[col * order + row];
            }
        }
        Ok(())
    }
}
