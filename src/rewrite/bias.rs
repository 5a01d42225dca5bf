//! Biases that are conditioned with their weight: the layer's input gets a column of ones, as in most implementations of K-FAC.

use super::contraction::Axes;
use super::emit::Emitter;
use super::flow::Flow;
use super::unit::{Delivery, Unit, constant_axes};
use crate::model::{Dim, NodeExt, NodeId, ValueId, from_front};
use crate::proto::{NodeProto, TensorProto};

/// The sum of a layer's output gradients over its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bias {
    pub(super) sum: NodeId,
    /// The node in whose place one operator makes both gradients.
    pub(super) place: NodeId,
    /// The name of what it makes: the bias's gradient.
    pub(super) gradient: String,
    /// The shape of that, all of it in the last axis.
    shape: Vec<i64>,
}

impl Bias {
    /// That of the layer whose gradient `unit` makes, if there is one and both can come out of one operator.
    pub(super) fn find(flow: &Flow<'_>, unit: &Unit) -> Option<Self> {
        if !unit.batched.is_empty() || unit.alpha != 1.0 || unit.addend.is_some() {
            return None;
        }
        let (sum, shape) = rows_apart(flow, unit).into_iter().find_map(|(value, rows)| sum_over(flow, value, &rows))?;
        let gradient = flow.index.output(flow.node(sum), 0)?;
        let place = common_place(flow, unit, sum, gradient)?;
        Some(Self { sum, place, gradient: flow.name(gradient).to_owned(), shape })
    }
}

/// The node in whose place one operator can make the results of `unit` and of `sum`: everything that it reads is there by then, and
/// nobody has read what it makes.
fn common_place(flow: &Flow<'_>, unit: &Unit, sum: NodeId, gradient: ValueId) -> Option<NodeId> {
    let product = unit.nodes.iter().copied().max()?;
    let shape = if let Delivery::Reshaped(shape) = unit.delivery { Some(shape) } else { None };
    let is_there = |value| flow.maker(value).is_none_or(|(maker, _)| maker < sum);
    if [unit.gradient.value, unit.input.value].into_iter().chain(shape).all(is_there) {
        return Some(product.min(sum));
    }
    let later = product.max(sum);
    let is_read_by_then = |value: ValueId| {
        let value = flow.index.value(value);
        value.captured_by.iter().chain(value.consumers.iter().map(|(node, _)| node)).any(|&reader| reader < later)
    };
    (!is_read_by_then(unit.result) && !is_read_by_then(gradient)).then_some(later)
}

/// The gradient of the layer's output, as the product reads it and before that was brought to two axes, each time with the axes
/// of its rows.
fn rows_apart(flow: &Flow<'_>, unit: &Unit) -> Vec<(ValueId, Vec<usize>)> {
    let mut value = unit.gradient.value;
    let features = unit.gradient.kept(flow).and_then(Dim::known);
    let mut found = Vec::new();
    while let Some(shape) = flow.shape(value) {
        match (&unit.gradient.axes, shape.len()) {
            (Axes::KeptFirst, 2) => return vec![(value, vec![1])],
            (Axes::SummedFirst, rank) if rank >= 2 => found.push((value, (0..rank - 1).collect())),
            _ => break,
        }
        let is_in_order =
            |node| ["Identity", "Reshape", "Flatten"].iter().any(|op_type| flow.node(node).is_onnx(op_type));
        let before = flow.maker(value).filter(|(node, _)| is_in_order(*node)).and_then(|_| flow.layout_input(value));
        let size = before.and_then(|before| flow.shape(before)?.last()?.known());
        match before.filter(|_| size.is_some() && size == features) {
            Some(before) => value = before,
            None => break,
        }
    }
    found
}

/// The sum of `value` over exactly these axes, and the shape of that, all of it in the last axis.
fn sum_over(flow: &Flow<'_>, value: ValueId, axes: &[usize]) -> Option<(NodeId, Vec<i64>)> {
    let rank = flow.shape(value)?.len();
    flow.index.value(value).consumers.iter().find_map(|&(sum, slot)| {
        let node = flow.node(sum);
        if slot != 0 || !node.is_onnx("ReduceSum") {
            return None;
        }
        let summed = constant_axes(flow, node)?.into_iter().map(|axis| from_front(axis, rank));
        let mut summed: Vec<usize> = summed.collect::<Option<_>>()?;
        summed.sort_unstable();
        let shape = match node.int("keepdims", 1) {
            0 => vec![-1],
            _ => (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { -1 }).collect(),
        };
        (summed == axes).then_some((sum, shape))
    })
}

impl Emitter<'_> {
    /// The layer's input with one feature more, which is one in each row.
    pub(super) fn with_ones(
        &mut self,
        unit: &Unit,
        (input, features_first): &(String, bool),
        name: &str,
        nodes: &mut Vec<NodeProto>,
    ) -> (String, bool) {
        let [shape, rows, sizes, ones, extended] =
            ["shape", "rows", "ones_shape", "ones", "extended"].map(|part| self.fresh(name, &format!("input_{part}")));
        let [begin, end] = if *features_first { [1, 2] } else { [0, -1] };
        let [begin, end, one] = [begin, end, 1].map(|index| self.constant(&[index], "input_ones", name, nodes));
        let (around, axis) = if *features_first { ([&one, &rows], 0) } else { ([&rows, &one], -1) };
        let elem = self.flow.elem(unit.input.value).unwrap_or_default();
        nodes.extend([
            NodeProto::build("", "Shape", &[input], &[&shape]),
            NodeProto::build("", "Slice", &[&shape, &begin, &end], &[&rows]),
            NodeProto::build("", "Concat", &around.map(String::as_str), &[&sizes]).with_int("axis", 0),
            NodeProto::build("", "ConstantOfShape", &[&sizes], &[&ones])
                .with_tensor("value", TensorProto { dims: vec![1], ..TensorProto::of_float(1.0, elem) }),
            NodeProto::build("", "Concat", &[input, &ones], &[&extended]).with_int("axis", axis),
        ]);
        (extended, *features_first)
    }

    /// Delivers the bias's part of `both`, and the weight's part as `weight`.
    pub(super) fn split(
        &mut self,
        unit: &Unit,
        bias: &Bias,
        name: &str,
        both: &str,
        weight: &str,
        nodes: &mut Vec<NodeProto>,
    ) {
        let ones = self.fresh(name, "bias");
        let axis = if unit.input_first { 0 } else { 1 };
        let [axis, start, last, end] =
            [axis, 0, -1, i64::MAX].map(|index| self.constant(&[index], "split", name, nodes));
        let shape = self.constant(&bias.shape, "bias_shape", name, nodes);
        nodes.extend([
            NodeProto::build("", "Slice", &[both, &start, &last, &axis], &[weight]),
            NodeProto::build("", "Slice", &[both, &last, &end, &axis], &[&ones]),
            NodeProto::build("", "Reshape", &[&ones, &shape], &[&bias.gradient]),
        ]);
    }
}
