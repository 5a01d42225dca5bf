//! The dense products of the operator.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use isaac::curvature::{Matrix, ProductError, Products, Scalar};

/// [`Products`] on one thread, like everything else in tract.
pub(super) struct Sequential;

impl<T: Scalar> Products<T> for Sequential {
    fn multiply(&mut self, a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T]) -> Result<(), ProductError> {
        let out = MatMut::from_row_major_slice_mut(out, a.rows(), b.cols());
        matmul(out, Accum::Replace, view(a), view(b), T::from_f64(1.0), Par::Seq);
        Ok(())
    }
}

fn view<T: Scalar>(matrix: Matrix<'_, T>) -> MatRef<'_, T> {
    let [rows, cols] = matrix.stored_shape();
    let stored = MatRef::from_row_major_slice(matrix.data(), rows, cols);
    if matrix.is_transposed() { stored.transpose() } else { stored }
}
