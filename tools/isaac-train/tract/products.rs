//! The dense products of the operator.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, Par};
use isaac::curvature::{Matrix, ProductError, Products, Scalar, Threads};

/// [`Products`] on one thread, like everything else in tract.
pub(super) struct Sequential;

impl Threads for Sequential {
    fn most(&self) -> usize {
        1
    }

    fn for_each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), ProductError> {
        (0..count).for_each(task);
        Ok(())
    }
}

impl<T: Scalar> Products<T> for Sequential {
    fn multiply(
        &mut self,
        a: Matrix<'_, T>,
        b: Matrix<'_, T>,
        addend: Option<&[T]>,
        out: &mut [T],
    ) -> Result<(), ProductError> {
        let accum = if addend.is_some() { Accum::Add } else { Accum::Replace };
        if let Some(addend) = addend {
            out.copy_from_slice(addend);
        }
        let out = MatMut::from_row_major_slice_mut(out, a.rows(), b.cols());
        matmul(out, accum, a.view(), b.view(), T::from_f64(1.0), Par::Seq);
        Ok(())
    }
}
