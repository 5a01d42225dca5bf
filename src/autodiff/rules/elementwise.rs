//! Element by element on one input.

use super::gate::Gate;
use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Relu", all(relu)),
    ("Tanh", all(tanh)),
    ("Sigmoid", all(sigmoid)),
    ("Exp", all(exp)),
    ("Log", all(log)),
    ("Sqrt", all(sqrt)),
    ("Reciprocal", all(reciprocal)),
    ("Neg", all(neg)),
    ("Abs", all(abs)),
    ("Erf", all(erf)),
    ("Gelu", all(gelu)),
    ("Softplus", all(softplus)),
    ("Softsign", all(softsign)),
    ("LeakyRelu", all(leaky_relu)),
    ("ThresholdedRelu", all(thresholded_relu)),
    ("Shrink", all(shrink)),
    ("Elu", all(elu)),
    ("Celu", all(celu)),
    ("Selu", all(selu)),
    ("HardSigmoid", all(hard_sigmoid)),
    ("HardSwish", all(hard_swish)),
    ("Mish", all(mish)),
    ("Clip", first(1, clip)),
    ("Sin", all(sin)),
    ("Cos", all(cos)),
    ("Tan", all(tan)),
    ("Asin", all(asin)),
    ("Acos", all(acos)),
    ("Atan", all(atan)),
    ("Sinh", all(sinh)),
    ("Cosh", all(cosh)),
    ("Asinh", all(asinh)),
    ("Acosh", all(acosh)),
    ("Atanh", all(atanh)),
];

type Done = Result<(), Refusal>;

/// dx = dy · slope.
fn by_slope(s: &mut Step<'_, '_>, slope: &str) -> Done {
    let gradient = s.b.op("Mul", &[&s.dy(), slope]);
    s.give(0, gradient);
    Ok(())
}

/// dx = dy where `condition`, elsewhere `otherwise`.
fn masked(s: &mut Step<'_, '_>, condition: &str, otherwise: &str) -> Done {
    let gradient = s.b.op("Where", &[condition, &s.dy(), otherwise]);
    s.give(0, gradient);
    Ok(())
}

fn attribute(s: &Step<'_, '_>, name: &str, default: f32) -> f64 {
    s.node.float(name, default).into()
}

/// c + f · value.
fn affine(s: &mut Step<'_, '_>, value: &str, factor: f64, constant: f64) -> String {
    let (factor, constant) = (s.scalar(factor), s.scalar(constant));
    let scaled = s.b.op("Mul", &[value, &factor]);
    s.b.op("Add", &[&scaled, &constant])
}

fn square(s: &mut Step<'_, '_>, value: &str) -> String {
    s.b.op("Mul", &[value, value])
}

/// The gradient of Relu at 0 is 0.
fn relu(s: &mut Step<'_, '_>) -> Done {
    let zero = s.scalar(0.0);
    let positive = s.b.op("Greater", &[s.y(0), &zero]);
    if !s.is_read_by_products() {
        return masked(s, &positive, &zero);
    }
    // Where takes four times as long as this product, which is not zero if what arrives is infinite; but then a product of
    // matrices has made all of its row infinite.
    let elem = s.elem(0);
    let slope = s.b.cast(&positive, elem);
    by_slope(s, &slope)
}

fn tanh(s: &mut Step<'_, '_>) -> Done {
    let squared = square(s, s.y(0));
    let slope = affine(s, &squared, -1.0, 1.0);
    by_slope(s, &slope)
}

/// y (1 - y).
fn sigmoid(s: &mut Step<'_, '_>) -> Done {
    let rest = affine(s, s.y(0), -1.0, 1.0);
    let slope = s.b.op("Mul", &[s.y(0), &rest]);
    by_slope(s, &slope)
}

fn exp(s: &mut Step<'_, '_>) -> Done {
    by_slope(s, s.y(0))
}

fn log(s: &mut Step<'_, '_>) -> Done {
    let gradient = s.b.op("Div", &[&s.dy(), s.x(0)]);
    s.give(0, gradient);
    Ok(())
}

/// 1 / (2 y).
fn sqrt(s: &mut Step<'_, '_>) -> Done {
    let two = s.scalar(2.0);
    let twice = s.b.op("Mul", &[s.y(0), &two]);
    let gradient = s.b.op("Div", &[&s.dy(), &twice]);
    s.give(0, gradient);
    Ok(())
}

/// -y².
fn reciprocal(s: &mut Step<'_, '_>) -> Done {
    let squared = square(s, s.y(0));
    let slope = s.b.op("Neg", &[&squared]);
    by_slope(s, &slope)
}

fn neg(s: &mut Step<'_, '_>) -> Done {
    let gradient = s.b.op("Neg", &[&s.dy()]);
    s.give(0, gradient);
    Ok(())
}

fn abs(s: &mut Step<'_, '_>) -> Done {
    let slope = s.b.op("Sign", &[s.x(0)]);
    by_slope(s, &slope)
}

/// factor · exp(-x²), with the factor in the exponent: a pass less.
pub(super) fn bell(s: &mut Step<'_, '_>, x: &str, factor: f64) -> String {
    let squared = square(s, x);
    let logarithm = s.scalar(factor.ln());
    let exponent = s.b.op("Sub", &[&logarithm, &squared]);
    s.b.op("Exp", &[&exponent])
}

/// 2/√π · exp(-x²).
fn erf(s: &mut Step<'_, '_>) -> Done {
    let slope = bell(s, s.x(0), std::f64::consts::FRAC_2_SQRT_PI);
    by_slope(s, &slope)
}

/// Φ(x) + x φ(x); of the tanh approximation, its own derivative.
fn gelu(s: &mut Step<'_, '_>) -> Done {
    if s.node.string("approximate", "none") != b"tanh" {
        let gradient = Gate::of_gelu(s).gradient(s);
        s.give(0, gradient);
        return Ok(());
    }
    // y = x/2 (1 + t), t = tanh u, u = √(2/π) (x + 0.044715 x³)
    let x = s.x(0);
    let (outer, inner) = ((2.0 / std::f64::consts::PI).sqrt(), 0.044715);
    let squared = square(s, x);
    let cubic = affine(s, &squared, outer * inner, outer);
    let u = s.b.op("Mul", &[x, &cubic]);
    let t = s.b.op("Tanh", &[&u]);
    let t_squared = square(s, &t);
    let sech = affine(s, &t_squared, -0.5, 0.5);
    let du = affine(s, &squared, 3.0 * outer * inner, outer);
    let product = s.b.op("Mul", &[x, &du]);
    let second = s.b.op("Mul", &[&sech, &product]);
    let half = affine(s, &t, 0.5, 0.5);
    let slope = s.b.op("Add", &[&half, &second]);
    by_slope(s, &slope)
}

/// The logistic function.
fn softplus(s: &mut Step<'_, '_>) -> Done {
    let slope = s.b.op("Sigmoid", &[s.x(0)]);
    by_slope(s, &slope)
}

/// 1 / (1 + |x|)².
fn softsign(s: &mut Step<'_, '_>) -> Done {
    let size = s.b.op("Abs", &[s.x(0)]);
    let denominator = affine(s, &size, 1.0, 1.0);
    let squared = square(s, &denominator);
    let gradient = s.b.op("Div", &[&s.dy(), &squared]);
    s.give(0, gradient);
    Ok(())
}

fn leaky_relu(s: &mut Step<'_, '_>) -> Done {
    let (zero, alpha) = (s.scalar(0.0), s.scalar(attribute(s, "alpha", 0.01)));
    let negative = s.b.op("Less", &[s.x(0), &zero]);
    let scaled = s.b.op("Mul", &[&s.dy(), &alpha]);
    let gradient = s.b.op("Where", &[&negative, &scaled, &s.dy()]);
    s.give(0, gradient);
    Ok(())
}

fn thresholded_relu(s: &mut Step<'_, '_>) -> Done {
    let (zero, alpha) = (s.scalar(0.0), s.scalar(attribute(s, "alpha", 1.0)));
    let above = s.b.op("Greater", &[s.x(0), &alpha]);
    masked(s, &above, &zero)
}

/// 0 from -lambd to lambd, and x moved by a bias beyond.
fn shrink(s: &mut Step<'_, '_>) -> Done {
    let (zero, lambda) = (s.scalar(0.0), s.scalar(attribute(s, "lambd", 0.5)));
    let size = s.b.op("Abs", &[s.x(0)]);
    let beyond = s.b.op("Greater", &[&size, &lambda]);
    masked(s, &beyond, &zero)
}

/// Below 0, y = scale · α (eˣᐟᶜ - 1), of which the slope is (y + scale · α) / c; above, the slope is `scale`.
fn exponential_unit(s: &mut Step<'_, '_>, scale: f64, alpha: f64, c: f64) -> Done {
    let (zero, one) = (s.scalar(0.0), s.scalar(scale));
    let negative = s.b.op("Less", &[s.x(0), &zero]);
    let below = affine(s, s.y(0), 1.0 / c, scale * alpha / c);
    let slope = s.b.op("Where", &[&negative, &below, &one]);
    by_slope(s, &slope)
}

fn elu(s: &mut Step<'_, '_>) -> Done {
    exponential_unit(s, 1.0, attribute(s, "alpha", 1.0), 1.0)
}

fn celu(s: &mut Step<'_, '_>) -> Done {
    let alpha = attribute(s, "alpha", 1.0);
    exponential_unit(s, 1.0, alpha, alpha)
}

fn selu(s: &mut Step<'_, '_>) -> Done {
    let alpha = attribute(s, "alpha", 1.673_263_2);
    exponential_unit(s, attribute(s, "gamma", 1.050_701), alpha, 1.0)
}

/// `slope` where low < value < high, 0 elsewhere.
fn between(s: &mut Step<'_, '_>, value: &str, [low, high]: [f64; 2]) -> String {
    let (low, high) = (s.scalar(low), s.scalar(high));
    let above = s.b.op("Greater", &[value, &low]);
    let below = s.b.op("Less", &[value, &high]);
    s.b.op("And", &[&above, &below])
}

/// y = max(0, min(1, α x + β)).
fn hard_sigmoid(s: &mut Step<'_, '_>) -> Done {
    let inside = between(s, s.y(0), [0.0, 1.0]);
    let (zero, alpha) = (s.scalar(0.0), s.scalar(attribute(s, "alpha", 0.2)));
    let slope = s.b.op("Where", &[&inside, &alpha, &zero]);
    by_slope(s, &slope)
}

/// y = x · max(0, min(1, x/6 + 1/2)).
fn hard_swish(s: &mut Step<'_, '_>) -> Done {
    let inside = between(s, s.x(0), [-3.0, 3.0]);
    let (zero, one) = (s.scalar(0.0), s.scalar(1.0));
    let middle = affine(s, s.x(0), 1.0 / 3.0, 0.5);
    let positive = s.b.op("Greater", &[s.x(0), &zero]);
    let outside = s.b.op("Where", &[&positive, &one, &zero]);
    let slope = s.b.op("Where", &[&inside, &middle, &outside]);
    by_slope(s, &slope)
}

/// y = x t, t = tanh(softplus x): the slope is t + x (1 - t²) sigmoid x.
fn mish(s: &mut Step<'_, '_>) -> Done {
    let softplus = s.b.op("Softplus", &[s.x(0)]);
    let t = s.b.op("Tanh", &[&softplus]);
    let squared = square(s, &t);
    let rest = affine(s, &squared, -1.0, 1.0);
    let logistic = s.b.op("Sigmoid", &[s.x(0)]);
    let product = s.b.op("Mul", &[s.x(0), &rest]);
    let second = s.b.op("Mul", &[&product, &logistic]);
    let slope = s.b.op("Add", &[&t, &second]);
    by_slope(s, &slope)
}

/// 1 where the value is not clipped.
fn clip(s: &mut Step<'_, '_>) -> Done {
    let zero = s.scalar(0.0);
    let mut gradient = s.dy();
    for (slot, outside) in [(1, "Less"), (2, "Greater")] {
        if s.has(slot) {
            let clipped = s.b.op(outside, &[s.x(0), s.x(slot)]);
            gradient = s.b.op("Where", &[&clipped, &zero, &gradient]);
        }
    }
    s.give(0, gradient);
    Ok(())
}

fn sin(s: &mut Step<'_, '_>) -> Done {
    let slope = s.b.op("Cos", &[s.x(0)]);
    by_slope(s, &slope)
}

fn cos(s: &mut Step<'_, '_>) -> Done {
    let sine = s.b.op("Sin", &[s.x(0)]);
    let slope = s.b.op("Neg", &[&sine]);
    by_slope(s, &slope)
}

/// 1 + y².
fn tan(s: &mut Step<'_, '_>) -> Done {
    let squared = square(s, s.y(0));
    let slope = affine(s, &squared, 1.0, 1.0);
    by_slope(s, &slope)
}

/// dx = sign · dy / √(a + f x²).
fn over_root(s: &mut Step<'_, '_>, sign: f64, a: f64, f: f64) -> Done {
    let squared = square(s, s.x(0));
    let inside = affine(s, &squared, f, a);
    let root = s.b.op("Sqrt", &[&inside]);
    let quotient = s.b.op("Div", &[&s.dy(), &root]);
    let gradient = if sign < 0.0 { s.b.op("Neg", &[&quotient]) } else { quotient };
    s.give(0, gradient);
    Ok(())
}

fn asin(s: &mut Step<'_, '_>) -> Done {
    over_root(s, 1.0, 1.0, -1.0)
}

fn acos(s: &mut Step<'_, '_>) -> Done {
    over_root(s, -1.0, 1.0, -1.0)
}

fn asinh(s: &mut Step<'_, '_>) -> Done {
    over_root(s, 1.0, 1.0, 1.0)
}

fn acosh(s: &mut Step<'_, '_>) -> Done {
    over_root(s, 1.0, -1.0, 1.0)
}

/// dx = dy / (1 + f x²).
fn over_square(s: &mut Step<'_, '_>, f: f64) -> Done {
    let squared = square(s, s.x(0));
    let denominator = affine(s, &squared, f, 1.0);
    let gradient = s.b.op("Div", &[&s.dy(), &denominator]);
    s.give(0, gradient);
    Ok(())
}

fn atan(s: &mut Step<'_, '_>) -> Done {
    over_square(s, 1.0)
}

fn atanh(s: &mut Step<'_, '_>) -> Done {
    over_square(s, -1.0)
}

fn sinh(s: &mut Step<'_, '_>) -> Done {
    let slope = s.b.op("Cosh", &[s.x(0)]);
    by_slope(s, &slope)
}

fn cosh(s: &mut Step<'_, '_>) -> Done {
    let slope = s.b.op("Sinh", &[s.x(0)]);
    by_slope(s, &slope)
}
