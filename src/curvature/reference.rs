//! What the tests compare with: the formulas in double precision, by singular values instead of by factorisation.

use faer::Mat;

use super::products::plain::Plain;
use super::{Error, Form, Layer, Matrix, Products, Sampled, Scalar, Workspace, conditioned_gradient};

/// A layer's operands, exactly representable in single precision.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) g: Mat<f64>,
    pub(super) a: Mat<f64>,
    pub(super) g_bar: Mat<f64>,
}

/// Both dampings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dampings {
    pub(super) a: f64,
    pub(super) g: f64,
}

impl Problem {
    /// b rows, n inputs, m outputs, and b sampled gradients, uniform in [-1, 1) from a fixed sequence.
    pub(super) fn noise([b, n, m]: [usize; 3], seed: u64) -> Self {
        let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(((state >> 11) as f64 / (1u64 << 52) as f64 - 1.0) as f32)
        };
        let mut matrix = |rows, cols| Mat::from_fn(rows, cols, |_, _| next());
        Self { g: matrix(b, m), a: matrix(b, n), g_bar: matrix(b, m) }
    }

    /// (I_m + ḡᵀḡ/(b·λg))⁻¹ gᵀ (I_b + a aᵀ/(b·λa))⁻¹ a, where an infinite damping leaves its factor out.
    pub(super) fn expected(&self, damping: Dampings) -> Mat<f64> {
        let b = self.a.nrows() as f64;
        // With x = U S Vᵀ: (I + x xᵀ/(bλ))⁻¹ x = U (S/(1 + S²/(bλ))) Vᵀ, in which nothing cancels.
        let svd = self.a.thin_svd().unwrap();
        let damped = |s: f64| s / (1.0 + s * s / (b * damping.a));
        let diagonal = svd.S().column_vector();
        let middle =
            Mat::from_fn(diagonal.nrows(), diagonal.nrows(), |i, j| if i == j { damped(diagonal[i]) } else { 0.0 });
        let zeta_star = self.g.transpose() * svd.U() * middle * svd.V().transpose();
        if damping.g == f64::INFINITY {
            return zeta_star;
        }
        // (I + xᵀx/(bλ))⁻¹ y = y − V (K/(1 + K)) Vᵀ y with K = S²/(bλ).
        let svd = self.g_bar.thin_svd().unwrap();
        let diagonal = svd.S().column_vector();
        let damped = |s: f64| s * s / (b * damping.g + s * s);
        let middle =
            Mat::from_fn(diagonal.nrows(), diagonal.nrows(), |i, j| if i == j { damped(diagonal[i]) } else { 0.0 });
        &zeta_star - svd.V() * middle * (svd.V().transpose() * &zeta_star)
    }

    /// What this room computes in the precision of `T`, as an m×n matrix.
    pub(super) fn computed<T: Scalar>(&self, damping: Dampings, form: Form) -> Result<Mat<f64>, Error>
    where
        Plain: Products<T>,
    {
        let (g, a, g_bar) = (row_major::<T>(&self.g), row_major::<T>(&self.a), row_major::<T>(&self.g_bar));
        let (b, n, m) = (self.a.nrows(), self.a.ncols(), self.g.ncols());
        let layer = Layer {
            gradients: Matrix::new(&g, b, m),
            inputs: Matrix::new(&a, b, n),
            lambda: damping.a,
            sampled: Some(Sampled { gradients: Matrix::new(&g_bar, self.g_bar.nrows(), m), lambda: damping.g }),
            alpha: 1.0,
            addend: None,
            form,
            transpose_output: false,
        };
        let mut out = vec![T::from_f64(f64::NAN); m * n];
        conditioned_gradient(&layer, &mut Workspace::default(), &mut Plain, &mut out)?;
        Ok(Mat::from_fn(m, n, |row, col| out[row * n + col].to_f64()))
    }
}

/// The elements in row-major order, rounded to `T`.
pub(super) fn row_major<T: Scalar>(matrix: &Mat<f64>) -> Vec<T> {
    let cols = matrix.ncols();
    (0..matrix.nrows() * cols).map(|index| T::from_f64(matrix[(index / cols, index % cols)])).collect()
}

/// Relative error in the Frobenius norm.
pub(super) fn error(got: &Mat<f64>, expected: &Mat<f64>) -> f64 {
    (got - expected).norm_l2() / expected.norm_l2()
}
