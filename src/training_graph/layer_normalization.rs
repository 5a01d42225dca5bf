//! Layer normalization as one operator, which gives its statistics as well.
//!
//! Before opset 17, exporters write it in nine operators, each of which goes over all of the memory. Runtimes make one of them where they
//! can, but not where a gradient needs what lies between. LayerNormalization has the mean and the deviation as results, which are all
//! that its gradient needs beside its input.

use crate::model::{Builder, Graph, Index, NodeExt, NodeId, Types, ValueId, from_front};
use crate::proto::NodeProto;
use crate::proto::tensor_proto::DataType;

/// The first version of the default domain that has the operator.
const SINCE: i64 = 17;

/// The operator with results for its mean and deviation.
fn with_statistics(mut operator: NodeProto, b: &mut Builder<'_>) -> NodeProto {
    operator.output.resize(3, String::new());
    for (output, base) in operator.output[1..].iter_mut().zip(["mean", "inverse_deviation"]) {
        if output.is_empty() {
            *output = b.fresh(base);
        }
    }
    operator
}

/// A layer normalization with all of its results.
pub(super) struct Normalization {
    pub(super) operator: NodeProto,
    /// The nodes before the last that it takes the place of.
    pub(super) inner: Vec<NodeId>,
}

/// Finds layer normalizations in float.
pub(super) struct Search<'a> {
    pub(super) graph: &'a Graph,
    pub(super) index: &'a Index,
    pub(super) types: &'a Types,
}

impl<'a> Search<'a> {
    /// The layer normalization that a node is or ends, from the opset on that has the operator.
    pub(super) fn ending_with(&self, id: NodeId, node: &'a NodeProto, b: &mut Builder<'_>) -> Option<Normalization> {
        if b.opset() < SINCE || !self.is_of_floats(node) {
            return None;
        }
        let mut found = if node.is_onnx("LayerNormalization") {
            Normalization { operator: node.clone(), inner: Vec::new() }
        } else {
            self.written_out(id, node)?
        };
        found.operator = with_statistics(found.operator, b);
        Some(found)
    }

    fn is_of_floats(&self, node: &NodeProto) -> bool {
        self.index.output(node, 0).and_then(|output| self.types.elem(output)) == Some(DataType::Float as i32)
    }

    /// The layer normalization that ends with this node:
    ///
    /// ```text
    /// d = x - mean x,  y = d / √(mean d² + ε) · scale + bias
    /// ```
    fn written_out(&self, last: NodeId, node: &'a NodeProto) -> Option<Normalization> {
        let (scaled, bias) = self.operands(node, "Add").find(|(value, _)| self.made_by(*value, "Mul").is_some())?;
        let (product, node) = self.made_by(scaled, "Mul")?;
        let (unit, scale) = self.operands(node, "Mul").find(|(value, _)| self.made_by(*value, "Div").is_some())?;
        let (quotient, node) = self.made_by(unit, "Div")?;
        let [centred, deviation] = self.index.operands(node)?;
        let (root, node) = self.made_by(deviation, "Sqrt")?;
        let (shift, node) = self.made_by(self.index.input(node, 0)?, "Add")?;
        let (variance, epsilon) = self
            .operands(node, "Add")
            .find_map(|(value, epsilon)| Some((value, self.graph.constant_scalar(self.index, epsilon)?)))?;
        let (mean_square, node) = self.made_by(variance, "ReduceMean")?;
        let axis = self.first_of_last_axes(node)?;
        let square = self.square_of(self.index.input(node, 0)?, centred)?;
        let (difference, node) = self.made_by(centred, "Sub")?;
        let [x, mean] = self.index.operands(node)?;
        let (average, node) = self.made_by(mean, "ReduceMean")?;
        let is_the_same = self.index.input(node, 0) == Some(x) && self.first_of_last_axes(node) == Some(axis);
        let normalized = self.types.shape(x)?.get(axis..)?;
        let is_affine = [scale, bias].iter().all(|&value| self.types.shape(value) == Some(normalized));
        let inner = vec![average, difference, square, mean_square, shift, root, quotient, product];
        let is_alone = inner.iter().all(|&id| self.is_read_within(id, last, &inner));
        if !(is_the_same && is_affine && is_alone) {
            return None;
        }
        let name = |value| self.index.value(value).name.as_str();
        let result = &self.graph.nodes()[last.0].output[0];
        let operator = NodeProto::build("", "LayerNormalization", &[x, scale, bias].map(name), &[result])
            .named(self.graph.nodes()[last.0].name())
            .with_int("axis", axis as i64)
            .with_float("epsilon", epsilon as f32);
        Some(Normalization { operator, inner })
    }

    /// The node of this operator that makes a value.
    fn made_by(&self, value: ValueId, op_type: &str) -> Option<(NodeId, &'a NodeProto)> {
        self.index.made_by(self.graph.nodes(), value, op_type)
    }

    /// The node that makes `square`, if that is the square of `value`.
    fn square_of(&self, square: ValueId, value: ValueId) -> Option<NodeId> {
        let power = self.made_by(square, "Pow").filter(|(_, node)| {
            let exponent = self.index.input(node, 1).and_then(|slot| self.graph.constant_scalar(self.index, slot));
            exponent == Some(2.0) && self.index.input(node, 0) == Some(value)
        });
        let product =
            || self.made_by(square, "Mul").filter(|(_, node)| self.index.operands(node) == Some([value, value]));
        Some(power.or_else(product)?.0)
    }

    /// The operands of a node, if it is of this operator, in either order.
    fn operands(&self, node: &NodeProto, op_type: &str) -> impl Iterator<Item = (ValueId, ValueId)> {
        let both = self.index.operands(node).filter(|_| node.is_onnx(op_type));
        both.into_iter().flat_map(|[left, right]| [(left, right), (right, left)])
    }

    /// The first axis that a mean goes over, if it goes over all from there on and keeps them as ones.
    fn first_of_last_axes(&self, mean: &NodeProto) -> Option<usize> {
        let rank = self.types.shape(self.index.input(mean, 0)?)?.len();
        let axes = match mean.ints("axes") {
            Some(axes) => axes.to_vec(),
            None => self.types.ints(self.index.input(mean, 1)?)?,
        };
        let mut axes: Vec<usize> = axes.iter().map(|&axis| from_front(axis, rank)).collect::<Option<_>>()?;
        axes.sort_unstable();
        let first = *axes.first()?;
        (axes.into_iter().eq(first..rank) && mean.int("keepdims", 1) == 1).then_some(first)
    }

    /// Whether the result of a node is read by these nodes only.
    fn is_read_within(&self, id: NodeId, last: NodeId, inner: &[NodeId]) -> bool {
        let Some(output) = self.index.output(&self.graph.nodes()[id.0], 0) else { return false };
        let value = self.index.value(output);
        let is_within = |reader: &NodeId| *reader == last || inner.contains(reader);
        !value.is_output && value.captured_by.is_empty() && value.consumers.iter().all(|(reader, _)| is_within(reader))
    }
}
