//! Inverses of damped Gram matrices, by Cholesky factorisation.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::{MatMut, MatRef, Par};

use super::Scalar;

/// Why a damped Gram matrix was not inverted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Breakdown {
    /// It has a NaN or an infinity.
    NotFinite,
    /// The pivot with this zero-based index was not positive.
    Pivot(usize),
}

/// Inverts (I + scale·S) for symmetric positive semidefinite S; keeps its buffers from call to call.
pub(super) struct Inverter<T> {
    matrix: Vec<T>,
    inverse: Vec<T>,
    stack: MemBuffer,
}

impl<T> Default for Inverter<T> {
    fn default() -> Self {
        Self { matrix: Vec::new(), inverse: Vec::new(), stack: MemBuffer::new(faer::dyn_stack::StackReq::EMPTY) }
    }
}

impl<T: Scalar> Inverter<T> {
    /// The buffer into which the caller writes S, order×order, before [`Self::invert`].
    pub(super) fn matrix_mut(&mut self, order: usize) -> &mut [T] {
        resized(&mut self.matrix, order * order)
    }

    /// Replaces S by the factor of I + scale·S, and computes the inverse.
    ///
    /// Returns the condition number ‖I + scale·S‖∞·‖(I + scale·S)⁻¹‖∞.
    pub(super) fn invert(&mut self, order: usize, scale: f64) -> Result<f64, Breakdown> {
        let matrix = resized(&mut self.matrix, order * order);
        let scale = T::from_f64(scale);
        for element in matrix.iter_mut() {
            *element *= scale;
        }
        for diagonal in matrix.iter_mut().step_by(order + 1) {
            *diagonal += T::from_f64(1.0);
        }
        let norm = infinity_norm(matrix, order);
        if !norm.is_finite() {
            return Err(Breakdown::NotFinite);
        }
        let request = llt::factor::cholesky_in_place_scratch::<T>(order, Par::Seq, Default::default())
            .or(llt::inverse::inverse_scratch::<T>(order, Par::Seq));
        if self.stack.len() < request.unaligned_bytes_required() {
            self.stack = MemBuffer::new(request);
        }
        let stack = MemStack::new(&mut self.stack);
        llt::factor::cholesky_in_place(
            MatMut::from_column_major_slice_mut(matrix, order, order),
            Default::default(),
            Par::Seq,
            stack,
            Default::default(),
        )
        .map_err(|llt::factor::LltError::NonPositivePivot { index }| Breakdown::Pivot(index))?;
        let inverse = resized(&mut self.inverse, order * order);
        llt::inverse::inverse(
            MatMut::from_column_major_slice_mut(inverse, order, order),
            MatRef::from_column_major_slice(matrix, order, order),
            Par::Seq,
            stack,
        );
        mirror(inverse, order);
        Ok(norm * infinity_norm(inverse, order))
    }

    /// The inverse that [`Self::invert`] computed, order×order, symmetric.
    pub(super) fn inverse(&self, order: usize) -> &[T] {
        &self.inverse[..order * order]
    }

    /// Multiplies the inverse by `factor`.
    pub(super) fn scale_inverse(&mut self, order: usize, factor: f64) {
        let factor = T::from_f64(factor);
        for element in &mut self.inverse[..order * order] {
            *element *= factor;
        }
    }
}

/// The first `len` elements of a buffer that only ever grows.
pub(super) fn resized<T: Scalar>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

/// Completes a symmetric matrix of which column-major storage holds the lower triangle.
fn mirror<T: Copy>(matrix: &mut [T], order: usize) {
    for col in 0..order {
        for row in col + 1..order {
            matrix[row * order + col] = matrix[col * order + row];
        }
    }
}

/// Largest sum of magnitudes along a row; infinite or NaN as soon as one element is.
fn infinity_norm<T: Scalar>(matrix: &[T], order: usize) -> f64 {
    let mut norm = 0.0f64;
    for row in matrix.chunks_exact(order) {
        let sum: f64 = row.iter().map(|element| element.to_f64().abs()).sum();
        if !sum.is_finite() {
            return sum;
        }
        norm = norm.max(sum);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix with entries of mixed size and sign: S = x xᵀ with x[i][k] = sin(i·k + i).
    fn gram(order: usize) -> Vec<f64> {
        let x = |i: usize, k: usize| ((i * k + i) as f64).sin();
        (0..order * order).map(|e| (0..order + 3).map(|k| x(e / order, k) * x(e % order, k)).sum()).collect()
    }

    #[test]
    fn inverse_times_matrix_is_the_identity_at_every_size() {
        for order in (1..=70).chain([96, 127, 128, 129, 200]) {
            let (s, scale) = (gram(order), 0.3);
            let mut inverter = Inverter::<f64>::default();
            inverter.matrix_mut(order).copy_from_slice(&s);
            let condition = inverter.invert(order, scale).unwrap();
            let inverse = inverter.inverse(order);
            for row in 0..order {
                for col in 0..order {
                    let element = |k: usize| f64::from(row == k) + scale * s[row * order + k];
                    let sum: f64 = (0..order).map(|k| element(k) * inverse[k * order + col]).sum();
                    assert!((sum - f64::from(row == col)).abs() < 1e-13 * condition, "order {order} ({row}, {col})");
                }
            }
        }
    }

    #[test]
    fn buffers_of_a_larger_matrix_serve_a_smaller_one() {
        let mut inverter = Inverter::<f32>::default();
        for order in [50, 3, 20] {
            inverter.matrix_mut(order).fill(0.0);
            assert_eq!(inverter.invert(order, 1.0), Ok(1.0));
            let identity: Vec<f32> = (0..order * order).map(|e| f32::from(e / order == e % order)).collect();
            assert_eq!(inverter.inverse(order), identity);
        }
    }

    #[test]
    fn breakdowns_are_told_apart() {
        let mut inverter = Inverter::<f32>::default();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            inverter.matrix_mut(3).copy_from_slice(&[1.0, 0.0, 0.0, 0.0, 1.0, bad, 0.0, bad, 1.0]);
            assert_eq!(inverter.invert(3, 1.0), Err(Breakdown::NotFinite));
        }
        inverter.matrix_mut(3).copy_from_slice(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -3.0]);
        assert_eq!(inverter.invert(3, 1.0), Err(Breakdown::Pivot(2)));
    }
}
