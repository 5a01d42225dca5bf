//! The conditioned gradient of one layer.

use super::cost::{Form, LayerShape};
use super::damped::{Damper, Prepared, Weights};
use super::spd::resized;
use super::{Error, Matrix, ProductError, Products, Scalar};

/// One layer's operands and how to condition their product.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a, T> {
    /// g: loss gradients with respect to the layer's outputs, b×m.
    pub gradients: Matrix<'a, T>,
    /// a: the layer's inputs, b×n.
    pub inputs: Matrix<'a, T>,
    /// λa > 0; infinity stands for the plain product.
    pub lambda: f64,
    /// Factor of the whole result.
    pub alpha: f64,
    /// Which matrix is inverted.
    pub form: Form,
    /// Whether the result is written as dWᵀ (n×m, row-major) instead of dW (m×n).
    pub transpose_output: bool,
}

impl<T: Scalar> Layer<'_, T> {
    fn shape(&self) -> LayerShape {
        LayerShape { rows: self.inputs.rows(), in_features: self.inputs.cols(), out_features: self.gradients.cols() }
    }
}

/// Buffers for [`conditioned_gradient`]; they only ever grow, so that nothing is allocated at steady state.
pub struct Workspace<T> {
    damper: Damper<T>,
    conditioned: Vec<T>,
}

impl<T: Scalar> Default for Workspace<T> {
    fn default() -> Self {
        Self { damper: Damper::default(), conditioned: Vec::new() }
    }
}

/// Writes ζ* of the layer, `alpha · gᵀ (I_b + a aᵀ/(b·λ))⁻¹ a`, into `out` (m·n elements).
///
/// Without rows the result is zero. A NaN or an infinity in `inputs` makes all of `out` NaN; one in `gradients` comes
/// out where it would from the plain product. Memory beyond the buffers of b² (or n²) and b·min(m, n) elements is only
/// used where double precision is needed: then it is b·n.
///
/// # Errors
/// [`Error::NotPositiveDefinite`] when λ is so small that not even double precision can tell the damped matrix from a
/// singular one; [`Error::Product`] when `products` fails.
pub fn conditioned_gradient<T, P>(
    layer: &Layer<'_, T>,
    workspace: &mut Workspace<T>,
    products: &mut P,
    out: &mut [T],
) -> Result<(), Error>
where
    T: Scalar,
    P: Products<T> + Products<f64>,
{
    let shape = layer.shape();
    let (g, a) = (layer.gradients, layer.inputs);
    if shape.rows == 0 {
        out.fill(T::from_f64(0.0));
        return Ok(());
    }
    if layer.lambda == f64::INFINITY {
        write_product(g.t(), a, layer.transpose_output, products, out)?;
        if layer.alpha != 1.0 {
            out.iter_mut().for_each(|value| *value *= T::from_f64(layer.alpha));
        }
        return Ok(());
    }
    let form = if layer.form == Form::Auto { shape.cheapest() } else { layer.form };
    // (I_n + aᵀa/(bλ))⁻¹ is the same inverse, of the transposed problem.
    let x = if form == Form::Samples { a } else { a.t() };
    let order = x.rows();
    let scale = 1.0 / (shape.rows as f64 * layer.lambda);
    let weights = Weights { alpha: layer.alpha, lambda: layer.lambda, scale };
    let Workspace { damper, conditioned } = workspace;
    let prepared = damper.prepare(x, weights, products)?;

    // dW as a product of two matrices, of which the dearer one to condition is left as it is.
    let (left, right) = match (prepared, form) {
        (Prepared::NotFinite, _) => {
            out.fill(T::from_f64(f64::NAN));
            return Ok(());
        }
        (Prepared::Product, Form::Samples) => (g.t(), damper.product(order, x.cols())),
        (Prepared::Product, _) => (g.t(), damper.product(order, x.cols()).t()),
        (Prepared::Inverse, Form::Samples) if a.cols() <= g.cols() => {
            (g.t(), multiply(damper.inverse(order), a, conditioned, products)?)
        }
        (Prepared::Inverse, Form::Samples) => (multiply(damper.inverse(order), g, conditioned, products)?.t(), a),
        (Prepared::Inverse, _) if a.rows() <= g.cols() => {
            (g.t(), multiply(a, damper.inverse(order), conditioned, products)?)
        }
        (Prepared::Inverse, _) => (multiply(g.t(), a, conditioned, products)?, damper.inverse(order)),
    };
    Ok(write_product(left, right, layer.transpose_output, products, out)?)
}

/// `left * right`, or its transpose, in `out`.
fn write_product<T: Scalar, P: Products<T>>(
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    transpose: bool,
    products: &mut P,
    out: &mut [T],
) -> Result<(), ProductError> {
    if transpose { products.multiply(right.t(), left.t(), out) } else { products.multiply(left, right, out) }
}

/// `left * right` in `buffer`.
fn multiply<'b, T: Scalar, P: Products<T>>(
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    buffer: &'b mut Vec<T>,
    products: &mut P,
) -> Result<Matrix<'b, T>, Error> {
    let buffer = resized(buffer, left.rows() * right.cols());
    products.multiply(left, right, buffer)?;
    Ok(Matrix::new(buffer, left.rows(), right.cols()))
}

#[cfg(test)]
mod tests {
    use super::super::products::plain::{Plain, at};
    use super::*;

    /// Numbers in [-1, 1) from a fixed sequence.
    fn noise(len: usize, seed: u64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// ζ* the slow way, in double: Gauss-Jordan elimination on [I + a aᵀ/(bλ) | a], then gᵀ times the result.
    fn reference(g: &Matrix<'_, f64>, a: &Matrix<'_, f64>, lambda: f64) -> Vec<f64> {
        let (b, n, m) = (a.rows(), a.cols(), g.cols());
        let mut rows: Vec<Vec<f64>> = (0..b)
            .map(|i| {
                let gram = |j: usize| (0..n).map(|k| at(a, i, k) * at(a, j, k)).sum::<f64>();
                let left = (0..b).map(|j| f64::from(i == j) + gram(j) / (b as f64 * lambda));
                left.chain((0..n).map(|k| at(a, i, k))).collect()
            })
            .collect();
        for pivot in 0..b {
            let divisor = rows[pivot][pivot];
            rows[pivot].iter_mut().for_each(|value| *value /= divisor);
            let pivot_row = rows[pivot].clone();
            for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != pivot) {
                let factor = row[pivot];
                row.iter_mut().zip(&pivot_row).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
        let entry = |i: usize, j: usize| (0..b).map(|k| at(g, k, i) * rows[k][b + j]).sum();
        (0..m * n).map(|e| entry(e / n, e % n)).collect()
    }

    /// Norm-wise relative error.
    fn error<T: Scalar>(got: &[T], expected: &[f64]) -> f64 {
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let difference = square(&mut got.iter().zip(expected).map(|(got, expected)| got.to_f64() - expected));
        (difference / square(&mut expected.iter().copied())).sqrt()
    }

    fn run<T: Scalar>(layer: Layer<'_, T>) -> Result<Vec<T>, Error>
    where
        Plain: Products<T>,
    {
        let mut out = vec![T::from_f64(f64::NAN); layer.gradients.cols() * layer.inputs.cols()];
        conditioned_gradient(&layer, &mut Workspace::default(), &mut Plain, &mut out)?;
        Ok(out)
    }

    const SHAPES: [[usize; 3]; 8] =
        [[1, 1, 1], [1, 5, 3], [2, 7, 3], [7, 3, 5], [8, 20, 30], [8, 30, 20], [30, 8, 40], [40, 9, 5]];

    #[test]
    fn both_forms_and_both_precisions_match_the_reference() {
        for ([b, n, m], lambda) in SHAPES.iter().flat_map(|shape| [1e-6, 1e-3, 1.0, 1e3].map(|l| (*shape, l))) {
            let (g, a) = (noise(b * m, 1), noise(b * n, 2));
            let (g32, a32): (Vec<f32>, Vec<f32>) =
                (g.iter().map(|v| *v as f32).collect(), a.iter().map(|v| *v as f32).collect());
            let (g, a): (Vec<f64>, Vec<f64>) =
                (g32.iter().map(|v| (*v).into()).collect(), a32.iter().map(|v| (*v).into()).collect());
            let (gradients, inputs) = (Matrix::new(&g, b, m), Matrix::new(&a, b, n));
            let expected = reference(&gradients, &inputs, lambda);
            for form in [Form::Auto, Form::Samples, Form::Features] {
                let layer = Layer { gradients, inputs, lambda, alpha: 1.0, form, transpose_output: false };
                let wide = error(&run(layer).unwrap(), &expected);
                assert!(wide < 1e-9, "double, {form}, {b}x{n}x{m}, lambda {lambda}: {wide:e}");
                let (gradients, inputs) = (Matrix::new(&g32, b, m), Matrix::new(&a32, b, n));
                let layer = Layer { gradients, inputs, lambda, alpha: 1.0, form, transpose_output: false };
                let narrow = error(&run(layer).unwrap(), &expected);
                assert!(narrow < 1e-5, "float, {form}, {b}x{n}x{m}, lambda {lambda}: {narrow:e}");
            }
        }
    }

    #[test]
    fn layouts_and_alpha_do_not_change_the_matrix() {
        let (b, n, m, lambda) = (6, 11, 9, 0.05);
        let (g, a) = (noise(b * m, 3), noise(b * n, 4));
        let mirrored =
            |data: &[f64], cols: usize| -> Vec<f64> { (0..data.len()).map(|e| data[(e % b) * cols + e / b]).collect() };
        let (g_t, a_t) = (mirrored(&g, m), mirrored(&a, n));
        let expected = reference(&Matrix::new(&g, b, m), &Matrix::new(&a, b, n), lambda);
        for gradients in [Matrix::new(&g, b, m), Matrix::new(&g_t, m, b).t()] {
            for inputs in [Matrix::new(&a, b, n), Matrix::new(&a_t, n, b).t()] {
                for form in [Form::Samples, Form::Features] {
                    let layer = Layer { gradients, inputs, lambda, alpha: 1.0, form, transpose_output: false };
                    assert!(error(&run(layer).unwrap(), &expected) < 1e-12);
                    let flipped = run(Layer { alpha: -2.0, transpose_output: true, ..layer }).unwrap();
                    let expected: Vec<f64> = (0..n * m).map(|e| -2.0 * expected[(e % m) * n + e / m]).collect();
                    assert!(error(&flipped, &expected) < 1e-12);
                }
            }
        }
    }

    #[test]
    fn large_damping_gives_the_plain_product() {
        let (b, n, m) = (5, 12, 8);
        let (g, a) = (noise(b * m, 5), noise(b * n, 6));
        let (gradients, inputs) = (Matrix::new(&g, b, m), Matrix::new(&a, b, n));
        let mut plain = vec![0.0; m * n];
        Plain.multiply(gradients.t(), inputs, &mut plain).unwrap();
        let layer = Layer { gradients, inputs, lambda: 1e14, alpha: 1.0, form: Form::Auto, transpose_output: false };
        assert!(error(&run(layer).unwrap(), &plain) < 1e-12);
    }

    #[test]
    fn repeated_rows_do_not_spoil_single_precision() {
        let (b, n, m) = (24, 40, 30);
        let row: Vec<f32> = noise(n, 7).iter().map(|v| *v as f32).collect();
        let (a, g) = (row.repeat(b), noise(b * m, 8).iter().map(|v| *v as f32).collect::<Vec<_>>());
        let (wide_a, wide_g): (Vec<f64>, Vec<f64>) =
            (a.iter().map(|v| (*v).into()).collect(), g.iter().map(|v| (*v).into()).collect());
        for lambda in [1e-5, 1e-3, 1e-1, 1.0, 10.0] {
            let expected = reference(&Matrix::new(&wide_g, b, m), &Matrix::new(&wide_a, b, n), lambda);
            for form in [Form::Samples, Form::Features] {
                let (gradients, inputs) = (Matrix::new(&g, b, m), Matrix::new(&a, b, n));
                let layer = Layer { gradients, inputs, lambda, alpha: 1.0, form, transpose_output: false };
                let got = error(&run(layer).unwrap(), &expected);
                assert!(got < 1e-5, "{form}, lambda {lambda}: {got:e}");
            }
        }
    }

    #[test]
    fn not_finite_inputs_give_nan_and_too_little_damping_an_error() {
        let g = [1.0f32, 2.0];
        for bad in [f32::NAN, f32::INFINITY] {
            let a = [1.0, bad, 3.0, 4.0];
            let (gradients, inputs) = (Matrix::new(&g, 2, 1), Matrix::new(&a, 2, 2));
            let layer = Layer { gradients, inputs, lambda: 1.0, alpha: 1.0, form: Form::Auto, transpose_output: false };
            assert!(run(layer).unwrap().iter().all(|value| value.is_nan()));
        }
        let a = [3.0f32, 1.0, 3.0, 1.0];
        let (gradients, inputs) = (Matrix::new(&g, 2, 1), Matrix::new(&a, 2, 2));
        let layer =
            Layer { gradients, inputs, lambda: 1e-18, alpha: 1.0, form: Form::Samples, transpose_output: false };
        let error = run(layer).unwrap_err();
        assert!(matches!(error, Error::NotPositiveDefinite { lambda: 1e-18, order: 2, pivot: 1 }), "{error}");
    }
}
