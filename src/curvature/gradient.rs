//! The conditioned gradient of one layer.

use std::ops::Range;

use super::cost::{Form, LayerShape};
use super::damped::{Damper, Damping, Prepared};
use super::inverse::Inverse;
use super::matrix::row_major_mut;
use super::products::{TERMS_BESIDE_ADDEND, Threads, multiply_added};
use super::sampled::{self, Conditioned, Sampled};
use super::scalar::Limits;
use super::spd::resized;
use super::{Error, Matrix, ProductError, Products, Scalar};

/// One layer's operands and how to condition their product.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a, T> {
    /// g: loss gradients with respect to the layer's outputs, b×m.
    pub gradients: Matrix<'a, T>,
    /// a: the layer's inputs, b×n.
    pub inputs: Matrix<'a, T>,
    /// λa > 0; infinity leaves the factor out.
    pub lambda: f64,
    /// With it the result is ζ, without it ζ*.
    pub sampled: Option<Sampled<'a, T>>,
    /// Factor of the gradient.
    pub alpha: f64,
    /// What the gradient is added to: m·n elements in the order of the output.
    pub addend: Option<&'a [T]>,
    /// Which matrices are inverted.
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
    sampled: sampled::Workspace<T>,
    inputs: InputWorkspace<T>,
    pending: Vec<T>,
}

struct InputWorkspace<T> {
    damper: Damper<T>,
    buffers: Buffers<T>,
}

struct Buffers<T> {
    conditioned: Vec<T>,
    /// Of the inverse, for what it is multiplied by some columns at a time.
    columns: Vec<T>,
}

impl<T: Scalar> Default for Workspace<T> {
    fn default() -> Self {
        let buffers = Buffers { conditioned: Vec::new(), columns: Vec::new() };
        let inputs = InputWorkspace { damper: Damper::default(), buffers };
        Self { sampled: sampled::Workspace::default(), inputs, pending: Vec::new() }
    }
}

/// Writes the layer's conditioned gradient into `out` (m·n elements):
///
/// ```text
/// alpha · (I_m + ḡᵀḡ/(b·λg))⁻¹ gᵀ (I_b + a aᵀ/(b·λa))⁻¹ a + addend
/// ```
///
/// Without rows the gradient is zero. A NaN or an infinity in the inputs or in the sampled gradients makes all of `out`
/// NaN; one in the gradients comes out where it would from the plain product.
///
/// The buffers hold some multiple of r² + b·min(m, n) elements, where r is the order of the inverse; also b·n where double
/// precision is needed; and, for ζ, b·m or m·n.
///
/// # Errors
/// [`Error::NotPositiveDefinite`] when a damping is so small that not even double precision can tell the damped matrix
/// from a singular one; [`Error::Product`] when `products` fails.
pub fn conditioned_gradient<T, P>(
    layer: &Layer<'_, T>,
    workspace: &mut Workspace<T>,
    products: &mut P,
    out: &mut [T],
) -> Result<(), Error>
where
    T: Scalar,
    P: Products<T>,
{
    let shape = layer.shape();
    if shape.rows == 0 || out.is_empty() {
        match layer.addend {
            Some(addend) => out.copy_from_slice(addend),
            None => out.fill(T::from_f64(0.0)),
        }
        return Ok(());
    }
    let sampled = layer.sampled.filter(|sampled| sampled.lambda < f64::INFINITY && sampled.gradients.rows() > 0);
    let Some(sampled) = sampled else {
        return input_conditioned(layer, &mut workspace.inputs, products, out);
    };
    let form = match layer.form {
        Form::Auto => shape.cheapest_sampled(sampled.gradients.rows()),
        form => form,
    };
    // An m×m inverse is multiplied into whatever has fewer columns (or, in K-FAC's form, into the product).
    let defer = form == Form::Kronecker || shape.in_features < shape.rows;
    match workspace.sampled.condition(layer.gradients, &sampled, form, defer, &*products)? {
        Conditioned::NotFinite => {
            out.fill(T::from_f64(f64::NAN));
            Ok(())
        }
        Conditioned::Gradients(gradients) => {
            input_conditioned(&Layer { gradients, ..*layer }, &mut workspace.inputs, products, out)
        }
        Conditioned::Pending(inverse) => {
            let product = resized(&mut workspace.pending, out.len());
            let alone = Layer { addend: None, transpose_output: false, ..*layer };
            input_conditioned(&alone, &mut workspace.inputs, products, product)?;
            let product = Matrix::new(product, shape.out_features, shape.in_features);
            // The inverse is symmetric: V·M = (Mᵀ·V)ᵀ.
            inverse.write_after(product.t(), !layer.transpose_output, &*products, out)?;
            add(layer.addend, out);
            Ok(())
        }
    }
}

/// Writes ζ*, `alpha · gᵀ (I_b + a aᵀ/(b·λa))⁻¹ a + addend`, with b > 0.
fn input_conditioned<T, P>(
    layer: &Layer<'_, T>,
    workspace: &mut InputWorkspace<T>,
    products: &mut P,
    out: &mut [T],
) -> Result<(), Error>
where
    T: Scalar,
    P: Products<T>,
{
    let shape = layer.shape();
    let (g, a) = (layer.gradients, layer.inputs);
    if layer.lambda == f64::INFINITY {
        if layer.alpha == 1.0 {
            return Ok(write_gradient(g.t(), a, layer, products, out)?);
        }
        write_gradient(g.t(), a, &Layer { addend: None, ..*layer }, products, out)?;
        let alpha = T::from_f64(layer.alpha);
        match layer.addend {
            Some(addend) => out.iter_mut().zip(addend).for_each(|(out, addend)| *out = alpha * *out + *addend),
            None => out.iter_mut().for_each(|out| *out *= alpha),
        }
        return Ok(());
    }
    let form = if layer.form == Form::Auto { shape.cheapest() } else { layer.form };
    // (I_n + aᵀa/(bλ))⁻¹ is the same inverse, of the transposed problem.
    let x = if form == Form::Samples { a } else { a.t() };
    let order = x.rows();
    let damping = Damping { lambda: layer.lambda, rows: shape.rows };
    let InputWorkspace { damper, buffers } = workspace;
    let limits = if form == Form::Samples { T::LIMITS } else { T::LIMITS.map(Limits::of_last_products) };
    let prepared = damper.prepare(x, damping, layer.alpha, limits, &*products)?;

    // dW as a product of two matrices, of which the dearer one to condition is left as it is.
    let (rows, cols) = (shape.rows, shape.in_features);
    let (left, right) = match (prepared, form) {
        (Prepared::NotFinite, _) => {
            out.fill(T::from_f64(f64::NAN));
            return Ok(());
        }
        (Prepared::Wide, Form::Samples) => (g.t(), damper.wide_product(x, &*products)?),
        (Prepared::Wide, _) => (g.t(), damper.wide_product(x, &*products)?.t()),
        (Prepared::Narrow, Form::Samples) => {
            return Ok(write_by_samples(layer, &damper.narrow_inverse(order), buffers, &*products, out)?);
        }
        (Prepared::Narrow, _) if rows <= g.cols() && form != Form::Kronecker => {
            let buffer = resized(&mut buffers.conditioned, rows * cols);
            damper.explicit_inverse(order).after(a, &*products, buffer)?;
            (g.t(), Matrix::new(buffer, rows, cols))
        }
        (Prepared::Narrow, _) => {
            let buffer = resized(&mut buffers.conditioned, g.cols() * cols);
            products.multiply(g.t(), a, None, buffer)?;
            let product = Matrix::new(buffer, g.cols(), cols);
            damper.explicit_inverse(order).write_after(product, layer.transpose_output, &*products, out)?;
            add(layer.addend, out);
            return Ok(());
        }
    };
    Ok(write_gradient(left, right, layer, products, out)?)
}

/// Writes gᵀ V a, or its transpose, plus what the layer adds to that, where V is the inverse for its samples.
fn write_by_samples<T: Scalar>(
    layer: &Layer<'_, T>,
    inverse: &Inverse<'_, T>,
    buffers: &mut Buffers<T>,
    threads: &impl Threads,
    out: &mut [T],
) -> Result<(), ProductError> {
    let (g, a) = (layer.gradients, layer.inputs);
    // The rows of the output belong to columns of `above`.
    let (above, beside) = if layer.transpose_output { (a, g) } else { (g, a) };
    let (samples, rows, cols) = (above.rows(), above.cols(), beside.cols());
    let out = row_major_mut(out, [rows, cols], cols);
    let addend = layer.addend.map(|addend| Matrix::new(addend, rows, cols).view());
    if rows <= cols {
        let columns = inverse.columns([samples, rows], &mut buffers.columns);
        let left = |rows: Range<usize>| columns.times(above.view().subcols(rows.start, rows.len())).transpose();
        return multiply_added(out, left, beside.view(), addend, threads);
    }
    let conditioned = resized(&mut buffers.conditioned, samples * cols);
    inverse.times(beside, &mut buffers.columns, threads, conditioned)?;
    let left = |rows: Range<usize>| above.view().subcols(rows.start, rows.len()).transpose();
    multiply_added(out, left, Matrix::new(conditioned, samples, cols).view(), addend, threads)
}

/// `left * right`, or its transpose, in `out`, and what the layer adds to that.
fn write_gradient<T: Scalar, P: Products<T>>(
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    layer: &Layer<'_, T>,
    products: &mut P,
    out: &mut [T],
) -> Result<(), ProductError> {
    let is_added_at_once = left.cols() <= TERMS_BESIDE_ADDEND;
    let addend = layer.addend.filter(|_| is_added_at_once);
    if layer.transpose_output {
        products.multiply(right.t(), left.t(), addend, out)?;
    } else {
        products.multiply(left, right, addend, out)?;
    }
    add(layer.addend.filter(|_| !is_added_at_once), out);
    Ok(())
}

/// Adds what there is to be added.
fn add<T: Scalar>(addend: Option<&[T]>, out: &mut [T]) {
    out.iter_mut().zip(addend.into_iter().flatten()).for_each(|(out, addend)| *out += *addend);
}

#[cfg(test)]
mod tests {
    use super::super::products::plain::Plain;
    use super::super::reference::{Dampings, Problem, error, row_major};
    use super::*;

    const SHAPES: [[usize; 3]; 11] = [
        [1, 1, 1],
        [1, 5, 3],
        [2, 7, 3],
        [7, 3, 5],
        [8, 20, 30],
        [8, 30, 20],
        [30, 8, 40],
        [40, 9, 5],
        [24, 600, 3],
        [70, 300, 80],
        [300, 70, 310],
    ];
    const FORMS: [Form; 4] = [Form::Auto, Form::Samples, Form::Features, Form::Kronecker];

    #[test]
    fn all_forms_in_both_precisions_match_the_reference() {
        for (shape, a) in SHAPES.iter().flat_map(|shape| [1e-6, 1e-3, 1.0, 1e3].map(|a| (*shape, a))) {
            let problem = Problem::noise(shape, 1);
            for (g, form) in [0.01, 1.0, f64::INFINITY].iter().flat_map(|g| FORMS.map(|form| (*g, form))) {
                let damping = Dampings { a, g };
                let expected = problem.expected(damping);
                let wide = error(&problem.computed::<f64>(damping, form).unwrap(), &expected);
                assert!(wide < 1e-12f64.max(1e-14 / a), "double, {form}, {shape:?}, {damping:?}: {wide:e}");
                let narrow = error(&problem.computed::<f32>(damping, form).unwrap(), &expected);
                assert!(narrow < 1e-5, "float, {form}, {shape:?}, {damping:?}: {narrow:e}");
            }
        }
    }

    #[test]
    fn layouts_alpha_and_what_is_added() {
        let [b, n, m] = [6, 11, 9];
        let problem = Problem::noise([b, n, m], 2);
        let addend = Problem::noise([n, n, m], 3).g;
        let transposed = |matrix: &faer::Mat<f64>| row_major::<f64>(&matrix.transpose().to_owned());
        let (g, a, g_bar) = (row_major(&problem.g), row_major(&problem.a), row_major(&problem.g_bar));
        let (g_t, a_t, g_bar_t) = (transposed(&problem.g), transposed(&problem.a), transposed(&problem.g_bar));
        // n×m as it is, and m×n.
        let addends = [row_major(&addend), transposed(&addend)];
        let gradients = [
            (Matrix::new(&g, b, m), Matrix::new(&g_bar, b, m)),
            (Matrix::new(&g_t, m, b).t(), Matrix::new(&g_bar_t, m, b).t()),
        ];
        let inputs = [Matrix::new(&a, b, n), Matrix::new(&a_t, n, b).t()];
        let dampings = [0.05, f64::INFINITY].map(|a| [0.2, f64::INFINITY].map(|g| Dampings { a, g }));
        let flags = [false, true].map(|is_added| [false, true].map(|transpose_output| (is_added, transpose_output)));
        for ((damping, form), alpha) in dampings
            .as_flattened()
            .iter()
            .flat_map(|damping| FORMS.map(|form| (*damping, form)))
            .flat_map(|case| [1.0, -2.0].map(|alpha| (case, alpha)))
        {
            let expected = problem.expected(damping);
            for (((gradients, sampled), inputs), (is_added, transpose_output)) in gradients
                .iter()
                .flat_map(|gradients| inputs.map(|inputs| (*gradients, inputs)))
                .flat_map(|operands| flags.as_flattened().iter().map(move |flags| (operands, *flags)))
            {
                let sampled = Some(Sampled { gradients: sampled, lambda: damping.g });
                let added = is_added.then(|| addends[usize::from(!transpose_output)].as_slice());
                let lambda = damping.a;
                let layer = Layer { gradients, inputs, lambda, sampled, alpha, addend: added, form, transpose_output };
                let mut out = vec![f64::NAN; n * m];
                conditioned_gradient(&layer, &mut Workspace::default(), &mut Plain, &mut out).unwrap();
                let got = faer::Mat::from_fn(m, n, |row, col| {
                    let place = if transpose_output { col * m + row } else { row * n + col };
                    (out[place] - if is_added { addend[(col, row)] } else { 0.0 }) / alpha
                });
                assert!(error(&got, &expected) < 1e-12, "{form}, {damping:?}, {alpha}, {added:?}");
            }
        }
    }

    #[test]
    fn workspaces_of_larger_layers_serve_smaller_ones() {
        let mut workspace = Workspace::<f32>::default();
        for (seed, [b, n, m]) in [[30, 8, 40], [2, 7, 3], [8, 30, 20], [1, 1, 1]].into_iter().enumerate() {
            let problem = Problem::noise([b, n, m], seed as u64);
            let (g, a) = (row_major(&problem.g), row_major(&problem.a));
            let layer = Layer {
                gradients: Matrix::new(&g, b, m),
                inputs: Matrix::new(&a, b, n),
                lambda: 0.001,
                sampled: None,
                alpha: 1.0,
                addend: None,
                form: Form::Auto,
                transpose_output: false,
            };
            let (mut reused, mut fresh) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
            conditioned_gradient(&layer, &mut workspace, &mut Plain, &mut reused).unwrap();
            conditioned_gradient(&layer, &mut Workspace::default(), &mut Plain, &mut fresh).unwrap();
            assert_eq!(reused, fresh);
        }
    }

    #[test]
    fn without_rows_there_is_what_is_added() {
        let addend = [1.0, -2.0];
        for (addend, expected) in [(None, [0.0, 0.0]), (Some(addend.as_slice()), addend)] {
            let layer = Layer {
                gradients: Matrix::new(&[], 0, 2),
                inputs: Matrix::new(&[], 0, 1),
                lambda: 1.0,
                sampled: None,
                alpha: 1.0,
                addend,
                form: Form::Auto,
                transpose_output: false,
            };
            let mut out = [f64::NAN; 2];
            conditioned_gradient(&layer, &mut Workspace::default(), &mut Plain, &mut out).unwrap();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn what_is_not_finite_gives_nan() {
        for (bad, form) in [f64::NAN, f64::INFINITY].iter().flat_map(|bad| FORMS.map(|form| (*bad, form))) {
            let mut problem = Problem::noise([4, 3, 2], 3);
            problem.a[(1, 1)] = bad;
            let nan = |problem: &Problem| {
                let out = problem.computed::<f32>(Dampings { a: 1.0, g: 1.0 }, form).unwrap();
                (0..6).all(|index| out[(index / 3, index % 3)].is_nan())
            };
            assert!(nan(&problem));
            problem.a[(1, 1)] = 1.0;
            assert!(!nan(&problem));
            problem.g_bar[(1, 1)] = bad;
            assert!(nan(&problem));
        }
    }

    #[test]
    fn too_little_damping_is_an_error_with_the_pivot() {
        let mut problem = Problem::noise([2, 2, 1], 4);
        problem.a = faer::Mat::from_fn(2, 2, |_, col| [3.0, 1.0][col]);
        let damping = Dampings { a: 1e-18, g: f64::INFINITY };
        let error = problem.computed::<f32>(damping, Form::Samples).unwrap_err();
        assert!(matches!(error, Error::NotPositiveDefinite { lambda: 1e-18, order: 2, pivot: 1 }), "{error}");
    }
}
