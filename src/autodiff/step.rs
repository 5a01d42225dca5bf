use std::collections::BTreeSet;

use crate::model::{Builder, Dim, Graph, Index, NodeExt, ONNX_DOMAIN, Types, ValueId, from_front};
use crate::proto::{NodeProto, TensorProto};

/// Operators whose gradients are sums of parts of what arrives, or fractions of it.
const LINEAR: &[&str] =
    &["Add", "AveragePool", "Flatten", "GlobalAveragePool", "MaxPool", "Relu", "Reshape", "Sum", "Transpose"];

/// One node of the forward pass at its turn in the backward pass: what a rule sees of it.
pub(crate) struct Step<'a, 'b> {
    pub(super) graph: &'a Graph,
    pub(super) index: &'a Index,
    pub(super) types: &'a Types,
    /// The forward node.
    pub(crate) node: &'a NodeProto,
    /// Where the backward nodes go.
    pub(crate) b: &'b mut Builder<'a>,
    /// By output: the gradient that arrives.
    pub(super) arriving: Vec<Option<String>>,
    /// By input: whether its gradient is wanted.
    pub(super) wanted: Vec<bool>,
    /// By input: its gradient.
    pub(super) made: Vec<Option<String>>,
}

/// Why a rule does not apply to a node.
pub(crate) type Refusal = String;

impl<'a> Step<'a, '_> {
    /// The name of input `slot`.
    pub(crate) fn x(&self, slot: usize) -> &'a str {
        self.node.input_name(slot).unwrap_or_default()
    }

    /// The name of output `slot`.
    pub(crate) fn y(&self, slot: usize) -> &'a str {
        self.node.output.get(slot).map_or("", String::as_str)
    }

    /// The gradient of the first output.
    pub(crate) fn dy(&self) -> String {
        self.arriving[0].clone().unwrap_or_default()
    }

    /// The gradient of an output; `None` if nothing depends on it.
    pub(crate) fn dy_at(&self, slot: usize) -> Option<String> {
        self.arriving.get(slot).cloned().flatten()
    }

    /// Whether the gradient of an input is wanted.
    pub(crate) fn wants(&self, slot: usize) -> bool {
        self.wanted.get(slot).copied().unwrap_or(false)
    }

    /// Sets the gradient of an input.
    pub(crate) fn give(&mut self, slot: usize, gradient: String) {
        self.made[slot] = Some(gradient);
    }

    fn value(&self, slot: usize) -> Option<ValueId> {
        self.index.input(self.node, slot)
    }

    /// Whether input `slot` is there.
    pub(crate) fn has(&self, slot: usize) -> bool {
        self.node.input_name(slot).is_some()
    }

    /// The shape of an input.
    pub(crate) fn shape(&self, slot: usize) -> Option<&'a [Dim]> {
        self.types.shape(self.value(slot)?)
    }

    /// The shape of the first output.
    pub(crate) fn output_shape(&self) -> Option<&'a [Dim]> {
        self.types.shape(self.index.output(self.node, 0)?)
    }

    /// The rank of an input.
    pub(crate) fn rank(&self, slot: usize) -> Option<usize> {
        self.shape(slot).map(<[Dim]>::len)
    }

    /// The rank of an input, which the rule cannot do without.
    pub(crate) fn need_rank(&self, slot: usize) -> Result<usize, Refusal> {
        self.rank(slot).ok_or_else(|| format!("the rank of '{}' cannot be told", self.x(slot)))
    }

    /// An axis of a tensor of this rank, counted from the front.
    pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Refusal> {
        from_front(axis, rank).ok_or_else(|| format!("axis {axis} of a tensor with {rank} axes"))
    }

    /// The element type of an input (`TensorProto.DataType`); float where it cannot be told.
    pub(crate) fn elem(&self, slot: usize) -> i32 {
        self.value(slot).and_then(|value| self.types.elem(value)).unwrap_or(1)
    }

    /// Integers that old operator sets give as an attribute and new ones as a constant input.
    pub(crate) fn ints(&self, attribute: &str, slot: usize) -> Option<Vec<i64>> {
        self.node.ints(attribute).map(<[i64]>::to_vec).or_else(|| {
            let value = self.value(slot)?;
            self.graph.constant_ints(self.index, value).or_else(|| self.types.ints(value))
        })
    }

    /// The elements of a constant float input.
    pub(crate) fn floats(&self, slot: usize) -> Option<Vec<f32>> {
        self.graph.constant(self.index, self.value(slot)?)?.float_elements()
    }

    /// The value of a constant scalar input.
    pub(crate) fn float_input(&self, slot: usize) -> Option<f64> {
        self.graph.constant_scalar(self.index, self.value(slot)?)
    }

    /// The value of a constant boolean input.
    pub(crate) fn bool_input(&self, slot: usize) -> Option<bool> {
        self.graph.constant_bools(self.index, self.value(slot)?)?.first().copied()
    }

    /// Whether the first output goes into products of matrices only, perhaps added up, pooled or in another layout. Then a gradient that arrives is
    /// infinite only where a product has made it so.
    pub(crate) fn is_read_by_products(&self) -> bool {
        let mut pending: Vec<ValueId> = self.index.output(self.node, 0).into_iter().collect();
        let mut seen: BTreeSet<ValueId> = BTreeSet::new();
        while let Some(id) = pending.pop() {
            let value = self.index.value(id);
            if value.is_output || !value.captured_by.is_empty() {
                return false;
            }
            for &(node, slot) in &value.consumers {
                let node = &self.graph.nodes()[node.0];
                let is_any = |op_types: &[&str]| op_types.iter().any(|op_type| node.is(ONNX_DOMAIN, op_type));
                // The third operand is added.
                let is_factor = is_any(&["Gemm", "MatMul", "Conv"]) && slot < 2;
                if is_any(LINEAR) {
                    pending.extend(self.index.output(node, 0).filter(|output| seen.insert(*output)));
                } else if !is_factor {
                    return false;
                }
            }
        }
        true
    }

    /// A scalar of the first input's type.
    pub(crate) fn scalar(&mut self, value: f64) -> String {
        let elem = self.elem(0);
        self.b.scalar(value, elem)
    }

    /// Sets the gradient of an input that was broadcast to the shape of the output: sums over the repeated axes.
    pub(crate) fn give_broadcast(&mut self, slot: usize, gradient: String) -> Result<(), Refusal> {
        let (input, output) = (self.shape(slot), self.output_shape());
        let axes = input
            .zip(output)
            .and_then(|(input, output)| Some((repeated_axes(input, output)?, output.len() - input.len())));
        let reduced = match axes {
            Some((axes, added)) => self.sum_repeated(gradient, &axes, added),
            None => self.sum_at_run_time(slot, gradient)?,
        };
        self.give(slot, reduced);
        Ok(())
    }

    /// Sums over these axes of a gradient, of which the first `added` are not the input's and go, while the others stay as ones.
    pub(crate) fn sum_repeated(&mut self, gradient: String, axes: &[i64], added: usize) -> String {
        if axes.is_empty() {
            return gradient;
        }
        if axes.iter().all(|&axis| axis < added as i64) && axes.len() == added {
            return self.b.sum(&gradient, axes, false);
        }
        let summed = self.b.sum(&gradient, axes, true);
        if added == 0 {
            return summed;
        }
        let leading: Vec<i64> = (0..added as i64).collect();
        self.b.squeeze(&summed, &leading)
    }

    /// Sums over the axes where the input's shape, with ones put in front, has a one: where the output has one too, that
    /// changes nothing.
    pub(crate) fn sum_at_run_time(&mut self, slot: usize, gradient: String) -> Result<String, Refusal> {
        let b = &mut *self.b;
        if b.opset() < 13 {
            return Err("which of its axes are repeated depends on sizes, and before opset 13 ReduceSum cannot be told at run time".into());
        }
        let x = self.node.input_name(slot).unwrap_or_default();
        let [own, full] = [x, gradient.as_str()].map(|value| b.op("Shape", &[value]));
        let [own_rank, full_rank] = [&own, &full].map(|shape| b.op("Shape", &[shape]));
        let added = b.op("Sub", &[&full_rank, &own_rank]);
        let ones = b.with("ConstantOfShape", &[&added], |node| node.with_tensor("value", TensorProto::of_ints(&[1])));
        let padded = b.with("Concat", &[&ones, &own], |node| node.with_int("axis", 0));
        let one = b.ints(&[1]);
        let is_one = b.op("Equal", &[&padded, &one]);
        let axes = b.op("NonZero", &[&is_one]);
        let axes = b.squeeze(&axes, &[0]);
        let summed = b.with("ReduceSum", &[&gradient, &axes], |node| {
            node.with_int("keepdims", 1).with_int("noop_with_empty_axes", 1)
        });
        Ok(b.op("Reshape", &[&summed, &own]))
    }
}

/// The axes of `output` along which a tensor of shape `input` is repeated; `None` if that depends on sizes that are not known.
fn repeated_axes(input: &[Dim], output: &[Dim]) -> Option<Vec<i64>> {
    let added = output.len().checked_sub(input.len())?;
    let mut axes: Vec<i64> = (0..added as i64).collect();
    for (axis, (own, full)) in input.iter().zip(&output[added..]).enumerate() {
        match (own, full) {
            (Dim::Known(1), Dim::Known(1)) => {}
            (Dim::Known(1), _) => axes.push((added + axis) as i64),
            (Dim::Known(_), _) => {}
            (Dim::Symbol(own), Dim::Symbol(full)) if own == full => {}
            _ => return None,
        }
    }
    Some(axes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_axes_are_told_from_shapes() {
        let known = |sizes: &[u64]| sizes.iter().map(|&size| Dim::Known(size)).collect::<Vec<_>>();
        let n = || Dim::Symbol("N".into());
        assert_eq!(repeated_axes(&known(&[3]), &known(&[2, 3])), Some(vec![0]));
        assert_eq!(repeated_axes(&known(&[2, 1]), &known(&[4, 2, 3])), Some(vec![0, 2]));
        assert_eq!(repeated_axes(&known(&[]), &known(&[2, 3])), Some(vec![0, 1]));
        assert_eq!(repeated_axes(&[n(), Dim::Known(1)], &[n(), Dim::Known(1)]), Some(vec![]));
        assert_eq!(repeated_axes(&[Dim::Known(1)], &[n()]), Some(vec![0]));
        // N may be one.
        assert_eq!(repeated_axes(&[n()], &known(&[5])), None);
        assert_eq!(repeated_axes(&[Dim::Unknown], &[Dim::Unknown]), None);
    }
}
