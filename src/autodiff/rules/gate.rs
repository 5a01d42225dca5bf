//! k · x · (1 + erf (c x)), as exporters write Gelu, where k is 1/2 and c is 1/√2.
//!
//! Operator by operator, gradients go back to x on two ways, each in passes of its own over the memory. As one function, whose slope is
//!
//! ```text
//! k · (1 + erf u + x · 2c/√π · exp(-u²))   with u = c x
//! ```
//!
//! two thirds of them suffice.

use std::collections::BTreeSet;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::elementwise::bell;
use crate::autodiff::step::Step;
use crate::model::{Graph, Index, NodeExt, Types, ValueId};
use crate::proto::NodeProto;

/// What the gradient takes: values, by name, and numbers.
pub(in crate::autodiff) struct Gate {
    x: String,
    /// u
    argument: String,
    /// 1 + erf u
    gate: String,
    /// c > 0
    slope: f64,
    /// k
    factor: f64,
}

impl Gate {
    /// The exact Gelu of the step's first input, whose gate has to be computed again.
    pub(super) fn of_gelu(s: &mut Step<'_, '_>) -> Self {
        let (slope, one) = (s.scalar(FRAC_1_SQRT_2), s.scalar(1.0));
        let argument = s.b.op("Mul", &[s.x(0), &slope]);
        let erf = s.b.op("Erf", &[&argument]);
        let gate = s.b.op("Add", &[&erf, &one]);
        Self { x: s.x(0).to_owned(), argument, gate, slope: FRAC_1_SQRT_2, factor: 0.5 }
    }

    /// The gradient of x, given that of the step's result.
    pub(in crate::autodiff) fn gradient(&self, s: &mut Step<'_, '_>) -> String {
        let density = bell(s, &self.argument, self.slope * FRAC_2_SQRT_PI);
        let second = s.b.op("Mul", &[&self.x, &density]);
        let slope = s.b.op("Add", &[&self.gate, &second]);
        let factor = s.scalar(self.factor);
        let scaled = s.b.op("Mul", &[&s.dy(), &factor]);
        s.b.op("Mul", &[&scaled, &slope])
    }
}

/// Looks for such functions in a graph.
pub(in crate::autodiff) struct Gates<'a> {
    pub(in crate::autodiff) graph: &'a Graph,
    pub(in crate::autodiff) index: &'a Index,
    pub(in crate::autodiff) types: &'a Types,
    /// Values whose gradient is wanted: none of them may lie between x and the result, because no gradient is made there.
    pub(in crate::autodiff) wanted: &'a BTreeSet<ValueId>,
}

impl<'a> Gates<'a> {
    /// The function whose result is that of `node`, and its x.
    pub(in crate::autodiff) fn ending_with(&self, node: &NodeProto) -> Option<(ValueId, Gate)> {
        let output = self.index.output(node, 0)?;
        let (product, outer) = self.unscaled(output);
        let [first, second] = self.index.operands(self.maker(product, "Mul")?)?;
        let one_way = |x, gate| self.product(x, gate, outer);
        let (x, gate) = one_way(first, second).or_else(|| one_way(second, first))?;
        let shape = self.types.shape(x)?;
        let is_between = |value| value != output && self.wanted.contains(&value);
        (self.types.shape(output) == Some(shape) && !is_between(product)).then_some((x, gate))
    }

    /// The product of (scaled) x and its (scaled) gate.
    fn product(&self, scaled_x: ValueId, scaled_gate: ValueId, outer: f64) -> Option<(ValueId, Gate)> {
        let (gate, of_gate) = self.unscaled(scaled_gate);
        let [left, right] = self.index.operands(self.maker(gate, "Add")?)?;
        let is_one = |value| self.number(value) == Some(1.0);
        let erf = if is_one(left) { right } else { Some(left).filter(|_| is_one(right))? };
        let argument = self.index.input(self.maker(erf, "Erf")?, 0)?;
        let (x, slope) = self.unscaled(argument);
        let of_x = match self.unscaled(scaled_x) {
            _ if scaled_x == x => 1.0,
            (base, factor) if base == x => factor,
            _ => return None,
        };
        let between = [gate, scaled_gate, erf, argument, scaled_x];
        let is_wanted = between.iter().any(|&value| value != x && self.wanted.contains(&value));
        let name = |value| self.index.value(value).name.clone();
        (slope > 0.0 && !is_wanted).then(|| {
            let factor = outer * of_gate * of_x;
            (x, Gate { x: name(x), argument: name(argument), gate: name(gate), slope, factor })
        })
    }

    /// What a value is a multiple of, and which; at least the value itself.
    fn unscaled(&self, value: ValueId) -> (ValueId, f64) {
        let multiple = || {
            let (id, _) = self.index.maker(value)?;
            let node = &self.graph.nodes()[id.0];
            let [left, right] = self.index.operands(node)?;
            if node.is_onnx("Div") {
                return Some((left, 1.0 / self.number(right)?));
            }
            let (base, factor) = match (self.number(left), self.number(right)) {
                (Some(factor), None) => (right, factor),
                (None, Some(factor)) => (left, factor),
                _ => return None,
            };
            node.is_onnx("Mul").then_some((base, factor))
        };
        multiple().unwrap_or((value, 1.0))
    }

    /// A constant that nobody wants the gradient of.
    fn number(&self, value: ValueId) -> Option<f64> {
        self.graph.constant_scalar(self.index, value).filter(|_| !self.wanted.contains(&value))
    }

    fn maker(&self, value: ValueId, op_type: &str) -> Option<&'a NodeProto> {
        Some(self.index.made_by(self.graph.nodes(), value, op_type)?.1)
    }
}
