//! The dense products, which the host provides.

use super::Matrix;

/// Why the host could not multiply.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProductError(pub String);

/// Dense matrix multiplication on the host's kernels and threads.
pub trait Products<T> {
    /// Overwrites `out` with `a * b`, row-major, `a.rows() * b.cols()` elements; `a.cols() == b.rows()`, and no
    /// dimension is zero.
    ///
    /// # Errors
    /// When the host's kernel fails.
    fn multiply(&mut self, a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T]) -> Result<(), ProductError>;
}

/// The plainest products there are, for tests.
#[cfg(test)]
pub(super) mod plain {
    use super::*;

    pub(crate) struct Plain;

    impl<T: crate::curvature::Scalar> Products<T> for Plain {
        fn multiply(&mut self, a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T]) -> Result<(), ProductError> {
            assert_eq!(a.cols(), b.rows());
            assert_eq!(out.len(), a.rows() * b.cols());
            for (index, out) in out.iter_mut().enumerate() {
                let (row, col) = (index / b.cols(), index % b.cols());
                let mut sum = T::default();
                for k in 0..a.cols() {
                    sum += a.at(row, k) * b.at(k, col);
                }
                *out = sum;
            }
            Ok(())
        }
    }
}
