//! Properties of the conditioned gradients, for any shape, scale and damping. Theorems are those of the paper.

use faer::Mat;
use faer::linalg::solvers::Solve;
use proptest::prelude::*;

use super::Form;
use super::reference::{Dampings, Problem, error};

const NONE: f64 = f64::INFINITY;

/// Up to 24 rows and features each; inputs and sampled gradients of any scale, some with rows of zeros or repeated ones.
fn problems() -> impl Strategy<Value = Problem> {
    let degenerate = prop_oneof![3 => Just(0), 1 => Just(1), 1 => Just(2)];
    ([1usize..24, 1usize..24, 1usize..24], any::<u64>(), -3.0..3.0, -3.0..3.0, degenerate).prop_map(
        |(shape, seed, inputs, sampled, degenerate)| {
            let mut problem = Problem::noise(shape, seed);
            let bend = |matrix: &Mat<f64>, exponent: f64| {
                Mat::from_fn(matrix.nrows(), matrix.ncols(), |row, col| {
                    let row = if degenerate == 1 { row / 3 } else { row };
                    let value = if degenerate == 2 && row % 2 == 1 { 0.0 } else { matrix[(row, col)] };
                    f64::from((value * 10f64.powf(exponent)) as f32)
                })
            };
            problem.a = bend(&problem.a, inputs);
            problem.g_bar = bend(&problem.g_bar, sampled);
            problem
        },
    )
}

fn dampings(range: std::ops::Range<f64>) -> impl Strategy<Value = Dampings> {
    (range.clone(), range).prop_map(|(a, g)| Dampings { a: 10f64.powf(a), g: 10f64.powf(g) })
}

/// Largest eigenvalue of x xᵀ/(b·λ) is at most this.
fn strength(x: &Mat<f64>, rows: usize, lambda: f64) -> f64 {
    x.squared_norm_l2() / (rows as f64 * lambda)
}

fn forms() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Auto), Just(Form::Samples), Just(Form::Features), Just(Form::Kronecker)]
}

/// The same problem without its sampled gradients.
fn plain(problem: &Problem) -> Mat<f64> {
    problem.g.transpose() * &problem.a
}

/// What cancels in the plain product cancels in the last product of a conditioned one too: gᵀ times the rest.
fn cancelled(problem: &Problem) -> f64 {
    problem.g.norm_l2() * problem.a.norm_l2() / plain(problem).norm_l2()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Woodbury: it doesn't matter which matrix is inverted.
    #[test]
    fn all_forms_are_the_same_matrix(problem in problems(), damping in dampings(-4.0..4.0)) {
        let rows = problem.a.nrows();
        let condition = 1.0 + strength(&problem.a, rows, damping.a).max(strength(&problem.g_bar, rows, damping.g));
        prop_assume!(condition < 1e8);
        let expected = problem.expected(damping);
        prop_assume!(expected.norm_l2() > 1e-6 * problem.g.norm_l2() * problem.a.norm_l2() / condition);
        for form in [Form::Samples, Form::Features, Form::Kronecker] {
            let relative = error(&problem.computed::<f64>(damping, form).unwrap(), &expected);
            // With the order of the samples, the sampled factor is a difference, in which the condition counts twice.
            let tolerance = if form == Form::Samples { 1e-15 * condition.powi(2) } else { 0.0 } + 1e-12 * condition;
            let tolerance = tolerance * cancelled(&problem);
            prop_assert!(relative < tolerance, "{form}: {relative:e} at {condition:e}");
        }
    }

    /// ζ* in single precision, at any damping at which double precision could be trusted with it.
    #[test]
    fn single_precision_is_accurate(problem in problems(), a in -8.0..8.0f64, form in forms()) {
        let damping = Dampings { a: 10f64.powf(a), g: NONE };
        // A form with the larger order also inverts directions in which the inputs are zero, next to all others.
        let trusted = if form == Form::Auto { 1e9 } else { 1e8 };
        prop_assume!(strength(&problem.a, problem.a.nrows(), damping.a) < trusted);
        let expected = problem.expected(damping);
        prop_assume!(cancelled(&problem) < 1e3);
        let relative = error(&problem.computed::<f32>(damping, form).unwrap(), &expected);
        let tolerance = 1e-5 + f64::from(f32::EPSILON) * cancelled(&problem);
        prop_assert!(relative < tolerance, "{form}, {damping:?}: {relative:e} instead of {tolerance:e}");
    }

    /// Theorem 1 (ii) and Theorem 3: factors disappear when their damping goes to infinity.
    #[test]
    fn infinite_damping_gives_the_plain_gradient(problem in problems(), form in forms()) {
        let rows = problem.a.nrows();
        let large = |x: &Mat<f64>| 1e9 * (1.0 + x.squared_norm_l2() / rows as f64);
        let (a, g) = (large(&problem.a), large(&problem.g_bar));
        let computed = |a, g| problem.computed::<f64>(Dampings { a, g }, form).unwrap();
        let (nabla, zeta_star) = (plain(&problem), problem.expected(Dampings { a: a / 1e9, g: NONE }));
        for (got, expected) in [
            (computed(a, NONE), &nabla),
            (computed(NONE, NONE), &nabla),
            (computed(a, g), &nabla),
            (computed(a / 1e9, g), &zeta_star),
        ] {
            // The factors differ from one by 1e-9 of the norms, not of a gradient in which these have cancelled.
            let close = 1e-8 * problem.g.norm_l2() * problem.a.norm_l2();
            prop_assert!((got - expected).norm_l2() <= close);
        }
    }

    /// Theorem 1 (i): for vanishing damping ζ/(λg·λa) goes to (ḡᵀḡ/b)⁻¹ gᵀa (aᵀa/b)⁻¹, if that exists.
    #[test]
    fn vanishing_damping_gives_the_inverses(n in 1usize..8, m in 1usize..8, seed in any::<u64>()) {
        let problem = Problem::noise([24, n, m], seed);
        let damping = Dampings { a: 1e-9, g: 1e-9 };
        let gram = |x: &Mat<f64>| x.transpose() * x / faer::Scale(24.0);
        let right = gram(&problem.a).llt(faer::Side::Lower).unwrap().solve(plain(&problem).transpose());
        let limit = gram(&problem.g_bar).llt(faer::Side::Lower).unwrap().solve(right.transpose());
        for form in [Form::Auto, Form::Features, Form::Kronecker] {
            let got = problem.computed::<f64>(damping, form).unwrap() / faer::Scale(damping.a * damping.g);
            prop_assert!(error(&got, &limit) < 1e-5, "{form}");
        }
    }

    /// Theorem 2: ζ is a direction of ascent at every damping, also where almost nothing of g is left.
    #[test]
    fn it_is_an_ascent_direction(problem in problems(), damping in dampings(-6.0..6.0), adversarial in any::<bool>()) {
        let mut problem = problem;
        if adversarial {
            // The sampled gradients damp exactly the directions of the gradients.
            problem.g_bar = problem.g.clone();
        }
        let rows = problem.a.nrows();
        let condition = 1.0 + strength(&problem.a, rows, damping.a).max(strength(&problem.g_bar, rows, damping.g));
        let nabla = plain(&problem);
        prop_assume!(condition < 1e6 && nabla.norm_l2() > 1e-3 * problem.g.norm_l2() * problem.a.norm_l2());
        let zeta = problem.computed::<f32>(damping, Form::Auto).unwrap();
        let cosine = (zeta.transpose() * &nabla).diagonal().column_vector().sum();
        prop_assert!(cosine > 0.0, "⟨ζ, ∇⟩ = {cosine:e}");
    }

    /// Theorem 4: for a last layer with the squared loss, ζ*/λa is the damped Gauss-Newton step.
    #[test]
    fn it_is_gauss_newton_for_a_linear_model(
        b in 1usize..12, n in 1usize..6, m in 1usize..4, seed in any::<u64>(), a in -2.0..2.0f64,
    ) {
        // The loss |W a_i − t_i|²/2, averaged over rows, has the gradients g/b with g = W a − t, here any matrix. Its
        // Jacobian with respect to vec(W), one row per output of each example:
        let problem = Problem::noise([b, n, m], seed);
        let lambda = 10f64.powf(a);
        let jacobian = Mat::from_fn(b * m, m * n, |row, col| {
            let (example, output) = (row / m, row % m);
            if col / n == output { problem.a[(example, col % n)] } else { 0.0 }
        });
        let rows = b as f64;
        let curvature = jacobian.transpose() * &jacobian / faer::Scale(rows);
        let damped = curvature + Mat::<f64>::identity(m * n, m * n) * faer::Scale(lambda);
        let residuals = Mat::from_fn(b * m, 1, |row, _| problem.g[(row / m, row % m)]);
        let step = damped.llt(faer::Side::Lower).unwrap().solve(jacobian.transpose() * residuals);
        let expected = Mat::from_fn(m, n, |row, col| lambda * step[(row * n + col, 0)]);
        let got = problem.computed::<f64>(Dampings { a: lambda, g: NONE }, Form::Auto).unwrap();
        prop_assert!((got - &expected).norm_l2() < 1e-11 * problem.g.norm_l2() * problem.a.norm_l2());
    }
}
