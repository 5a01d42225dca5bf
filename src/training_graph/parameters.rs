//! Which initializers of a forward model are trained.

use std::collections::BTreeSet;

use crate::autodiff;
use crate::model::{Graph, Index, Initializer, NodeExt, Producer, TensorType, ValueId, fits};
use crate::proto::NodeProto;

/// What the user says of it: globs on names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// Only these are trained, scalars too; if there is none, all tensors with at least one axis but running statistics.
    pub trained: Vec<String>,
    /// These are not.
    pub frozen: Vec<String>,
}

impl Selection {
    /// Whether the user froze the initializer of that name.
    pub(super) fn is_frozen(&self, name: &str) -> bool {
        self.frozen.iter().any(|glob| fits(glob, name))
    }

    /// The initializers that may be trained: floating-point numbers that some operator reads where it has a derivative.
    ///
    /// # Errors
    /// A glob that fits nothing.
    pub(super) fn candidates(&self, graph: &Graph, index: &Index) -> Result<BTreeSet<ValueId>, String> {
        let trainable: Vec<(ValueId, &Initializer)> =
            initializers(graph, index).filter(|&(id, _)| has_derivative(graph, index, id)).collect();
        for glob in self.trained.iter().chain(&self.frozen) {
            if !initializers(graph, index).any(|(_, initializer)| fits(glob, initializer.name())) {
                let known: Vec<&str> = trainable.iter().map(|(_, initializer)| initializer.name()).collect();
                return Err(format!(
                    "no floating-point initializer is called '{glob}'; there are: {}",
                    known.join(", ")
                ));
            }
        }
        let is_chosen = |id: ValueId, initializer: &Initializer| {
            if self.trained.is_empty() {
                initializer.tensor_type().rank().is_some_and(|rank| rank > 0) && !is_statistic(graph, index, id)
            } else {
                self.trained.iter().any(|glob| fits(glob, initializer.name()))
            }
        };
        let chosen = trainable.into_iter().filter(|&(id, i)| is_chosen(id, i) && !self.is_frozen(i.name()));
        Ok(chosen.map(|(id, _)| id).collect())
    }
}

/// Dense floating-point initializers, whether or not they are inputs too.
fn initializers<'a>(graph: &'a Graph, index: &Index) -> impl Iterator<Item = (ValueId, &'a Initializer)> {
    let dense = graph.initializers().iter().filter(|initializer| {
        let TensorType { shape, .. } = initializer.tensor_type();
        initializer.tensor_type().is_float() && shape.is_some()
    });
    dense.filter_map(|initializer| Some((index.find(initializer.name())?, initializer)))
}

/// Whether it is a mean or a variance that batch normalization reads.
fn is_statistic(graph: &Graph, index: &Index, id: ValueId) -> bool {
    let mut readers = index.value(id).consumers.iter();
    readers.any(|&(node, slot)| matches!(slot, 3 | 4) && graph.nodes()[node.0].is_onnx("BatchNormalization"))
}

fn has_derivative(graph: &Graph, index: &Index, id: ValueId) -> bool {
    let value = index.value(id);
    let is_own = matches!(value.producer, Producer::Initializer(_) | Producer::Input(_));
    let mut readers = value.consumers.iter().map(|(node, _)| node).chain(&value.captured_by);
    is_own && readers.any(|&node| reads_with_derivative(&graph.nodes()[node.0], &value.name))
}

/// Whether a node, or one in its subgraphs, reads the value of that name where it has a derivative.
fn reads_with_derivative(node: &NodeProto, name: &str) -> bool {
    let mut inputs = node.input.iter().enumerate();
    inputs.any(|(slot, input)| input == name && autodiff::is_differentiable(node, slot))
        || node.subgraphs().flat_map(|graph| &graph.node).any(|inner| reads_with_derivative(inner, name))
}
