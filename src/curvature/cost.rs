//! Counted floating-point operations of each form, and the choice between them.
//!
//! A product of m×k by k×n is 2mkn, a symmetric product half of that, a Cholesky
//! factorisation of order r is r³/3, and an inverse r³.

use std::fmt;
use std::str::FromStr;

/// How the inverse is formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The cheaper of [`Form::Samples`] and [`Form::Features`] for the shapes at hand.
    #[default]
    Auto,
    /// A b×b matrix of inner products of samples.
    Samples,
    /// An n×n matrix of inner products of features.
    Features,
    /// K-FAC's Kronecker factors, n×n and m×m, inverted and multiplied into the product gᵀa.
    Kronecker,
}

impl Form {
    const NAMES: [(Form, &'static str); 4] = [
        (Form::Auto, "auto"),
        (Form::Samples, "samples"),
        (Form::Features, "features"),
        (Form::Kronecker, "kronecker"),
    ];
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Form::NAMES.iter().find(|(form, _)| form == self).map_or("", |(_, name)| name);
        f.pad(name)
    }
}

impl FromStr for Form {
    type Err = UnknownForm;

    fn from_str(text: &str) -> Result<Self, UnknownForm> {
        let found = Form::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(form, _)| *form).ok_or_else(|| UnknownForm(text.to_owned()))
    }
}

/// A text that names no form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of auto, samples, features, kronecker")]
pub struct UnknownForm(pub String);

/// The shape of one layer's weight-gradient product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// b: examples times positions, the rows of both operands.
    pub rows: usize,
    /// n: the layer's inputs.
    pub in_features: usize,
    /// m: the layer's outputs.
    pub out_features: usize,
}

impl LayerShape {
    /// Flops of the plain product gᵀa: 2bmn.
    pub fn plain_flops(&self) -> f64 {
        let [b, n, m] = self.sizes();
        2.0 * b * m * n
    }

    /// Flops of ζ* in addition to [`Self::plain_flops`]; with [`Form::Auto`] those of the cheapest form.
    ///
    /// [`Form::Kronecker`] counts the classical way to form its factor: an n×n inverse, multiplied into the product.
    pub fn extra_flops(&self, form: Form) -> f64 {
        let [b, n, m] = self.sizes();
        // Inner products of `order` vectors of this length, factorised, and multiplied into `side` vectors.
        let extra = |order: f64, length: f64, side: f64| {
            order * order * length + order.powi(3) / 3.0 + 2.0 * order * order * side
        };
        match form {
            Form::Auto => self.extra_flops(self.cheapest()),
            Form::Samples => extra(b, n, n.min(m)),
            Form::Features => extra(n, b, b.min(m)),
            // An explicit inverse takes another 2r³/3.
            Form::Kronecker => extra(n, b, m) + extra(m, b, n) + 2.0 / 3.0 * (n.powi(3) + m.powi(3)),
        }
    }

    /// The form of ζ* with the fewest flops.
    pub fn cheapest(&self) -> Form {
        if self.extra_flops(Form::Features) < self.extra_flops(Form::Samples) { Form::Features } else { Form::Samples }
    }

    /// limit(b, m, n): the cost of ζ* relative to the plain product, by flops, in the cheapest form. At least 1; it is
    /// 1 for an empty product.
    pub fn relative_cost(&self) -> f64 {
        let plain = self.plain_flops();
        if plain == 0.0 { 1.0 } else { 1.0 + self.extra_flops(Form::Auto) / plain }
    }

    /// Flops of the second factor of ζ, with this many rows of sampled gradients, in addition to those of ζ*.
    ///
    /// [`Form::Samples`] factorises a matrix of the order of the sampled rows, any other form an m×m one.
    pub fn sampled_flops(&self, sampled_rows: usize, form: Form) -> f64 {
        let ([b, n, m], r) = (self.sizes(), sampled_rows as f64);
        match form {
            Form::Auto => self.sampled_flops(sampled_rows, self.cheapest_sampled(sampled_rows)),
            Form::Samples => r * r * m + r.powi(3) / 3.0 + 4.0 * b * r * m + 2.0 * b * r * r,
            Form::Features => m * m * r + m.powi(3) / 3.0 + 2.0 * m * m * b.min(n),
            Form::Kronecker => m * m * r + m.powi(3) + 2.0 * m * m * n,
        }
    }

    /// The form of the second factor of ζ with the fewest flops.
    pub fn cheapest_sampled(&self, sampled_rows: usize) -> Form {
        let flops = |form| self.sampled_flops(sampled_rows, form);
        if flops(Form::Features) < flops(Form::Samples) { Form::Features } else { Form::Samples }
    }

    fn sizes(&self) -> [f64; 3] {
        [self.rows, self.in_features, self.out_features].map(|size| size as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(rows: usize, in_features: usize, out_features: usize) -> LayerShape {
        LayerShape { rows, in_features, out_features }
    }

    #[test]
    fn counts_by_hand() {
        // b = 60, n = m = 400: b²n + b³/3 + 2b²·400 = 1 440 000 + 72 000 + 2 880 000, over 2·60·400·400.
        let layer = shape(60, 400, 400);
        assert_eq!(layer.extra_flops(Form::Samples), 4_392_000.0);
        assert_eq!(layer.relative_cost(), 1.0 + 4_392_000.0 / 19_200_000.0);
        // b = 4096, n = 384, m = 1536: n²b + n³/3 + 2n²·1536.
        let wide = shape(4096, 384, 1536);
        assert_eq!(wide.cheapest(), Form::Features);
        assert_eq!(wide.extra_flops(Form::Features), 603_979_776.0 + 18_874_368.0 + 452_984_832.0);
    }

    #[test]
    fn counts_of_the_second_factor() {
        // b = 60, 30 sampled rows, m = 400: r²m + r³/3 + 4brm + 2br².
        let layer = shape(60, 784, 400);
        assert_eq!(layer.sampled_flops(30, Form::Samples), 360_000.0 + 9_000.0 + 2_880_000.0 + 108_000.0);
        assert_eq!(layer.cheapest_sampled(30), Form::Samples);
        // m = 10: m²r + m³/3 + 2m²b.
        let last = shape(60, 400, 10);
        assert_eq!(last.sampled_flops(30, Form::Features), 3_000.0 + 1_000.0 / 3.0 + 12_000.0);
        assert_eq!(last.sampled_flops(30, Form::Auto), last.sampled_flops(30, Form::Features));
    }

    #[test]
    fn the_smaller_matrix_is_factorised() {
        assert_eq!(shape(60, 784, 400).cheapest(), Form::Samples);
        assert_eq!(shape(1024, 100, 400).cheapest(), Form::Features);
        assert_eq!(shape(100, 100, 100).cheapest(), Form::Samples);
    }

    #[test]
    fn the_overhead_vanishes_with_the_batch() {
        let costs = [1, 10, 100].map(|rows| shape(rows, 1000, 1000).relative_cost());
        assert!(costs.is_sorted() && costs[0] < 1.002, "{costs:?}");
        assert_eq!(shape(0, 10, 10).relative_cost(), 1.0);
        assert_eq!(shape(10, 0, 10).relative_cost(), 1.0);
    }

    #[test]
    fn names_round_trip() {
        for form in [Form::Auto, Form::Samples, Form::Features, Form::Kronecker] {
            assert_eq!(form.to_string().parse(), Ok(form));
        }
        assert_eq!("gram".parse::<Form>(), Err(UnknownForm("gram".into())));
    }
}
