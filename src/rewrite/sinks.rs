//! Where a training graph delivers gradients: accumulators, optimizers, graph outputs.

use super::emit::{DOMAIN, OPERATOR};
use super::flow::Flow;
use crate::model::{Dim, NodeExt, NodeId, PREVIEW_TRAINING_DOMAIN, TensorType, ValueId};
use crate::proto::NodeProto;

const MICROSOFT: &str = "com.microsoft";

/// A value that is the gradient of a parameter, or made from it.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    pub(super) value: ValueId,
    /// The parameter, where the graph says so.
    pub(super) parameter: Option<ValueId>,
    shape: Option<Vec<Dim>>,
}

impl Sink {
    fn new(flow: &Flow<'_>, value: ValueId, typed_as: ValueId, parameter: Option<ValueId>) -> Self {
        Self { value, parameter, shape: flow.shape(value).or_else(|| flow.shape(typed_as)).map(<[Dim]>::to_vec) }
    }

    /// Whether the gradient of a tensor of that shape can arrive here.
    pub(super) fn fits(&self, shape: Option<&[Dim]>) -> bool {
        match (&self.shape, shape) {
            (Some(gradient), Some(parameter)) => {
                gradient.len() == parameter.len() && gradient.iter().zip(parameter).all(|(a, b)| fits(a, b))
            }
            _ => true,
        }
    }
}

/// A dimension with a name varies from batch to batch: it is no parameter's if the gradient has a number there.
fn fits(gradient: &Dim, parameter: &Dim) -> bool {
    gradient.compatible(parameter) && !matches!((gradient, parameter), (Dim::Known(_), Dim::Symbol(_)))
}

/// All sinks of a graph. `updates` are pairs (parameter, output that replaces it after the step).
pub(super) fn sinks(flow: &Flow<'_>, updates: &[(&str, &str)]) -> Vec<Sink> {
    let mut found = Vec::new();
    for at in 0..flow.graph.nodes().len() {
        let node = flow.node(NodeId(at));
        let mut add = |gradient: usize, typed_as: usize, is_parameter: bool| {
            if let (Some(gradient), Some(other)) = (flow.index.input(node, gradient), flow.index.input(node, typed_as))
            {
                found.push(Sink::new(flow, gradient, other, is_parameter.then_some(other)));
            }
        };
        if is_accumulator(node) {
            add(1, 0, false);
        }
        for (parameter, gradient) in optimizer_slots(node) {
            add(gradient, parameter, true);
        }
    }
    for output in flow.graph.outputs() {
        if let Some(value) = flow.index.find(output.name())
            && TensorType::of(output).is_none_or(|tensor| tensor.is_float())
        {
            let parameter = updates.iter().find(|(_, update)| *update == output.name());
            let parameter = parameter.and_then(|(parameter, _)| flow.index.find(parameter));
            found.push(Sink::new(flow, value, value, parameter));
        }
    }
    found
}

/// ONNX Runtime's gradient accumulators: (buffer, gradient, reset).
pub(super) fn is_accumulator(node: &NodeProto) -> bool {
    ["InPlaceAccumulatorV2", "InPlaceAccumulator", "GradientAccumulator"].iter().any(|op| node.is(MICROSOFT, op))
}

/// The input slots (parameter, gradient) of an optimizer.
fn optimizer_slots(node: &NodeProto) -> Vec<(usize, usize)> {
    // Behind rate and step: all parameters, then all gradients, then each kind of state.
    let grouped = |kinds: usize| {
        let count = node.input.len().saturating_sub(2) / kinds;
        (0..count).map(|i| (2 + i, 2 + count + i)).collect()
    };
    match (node.domain(), node.op_type()) {
        (MICROSOFT, "SGDOptimizer") => vec![(1, 2)],
        (MICROSOFT, "AdamOptimizer") => vec![(2, 3)],
        (PREVIEW_TRAINING_DOMAIN, "Adam") => grouped(4),
        (PREVIEW_TRAINING_DOMAIN, "Momentum" | "Adagrad") => grouped(3),
        _ => Vec::new(),
    }
}

/// Whether a node exists only in a backward pass or an update.
pub(super) fn is_training_only(node: &NodeProto) -> bool {
    is_accumulator(node)
        || !optimizer_slots(node).is_empty()
        || node.is(MICROSOFT, "YieldOp")
        || node.is(DOMAIN, OPERATOR)
        || (node.domain() == MICROSOFT || node.domain().is_empty()) && node.op_type().ends_with("Grad")
}
