//! Weights that no training graph can feed, because a Constant node holds them.

use std::collections::BTreeSet;

use crate::model::{Graph, GraphId, Index, Model, ModelError, NodeExt, NodeId, TensorType, ValueId};
use crate::proto::NodeProto;

/// How many a message names.
const NAMED: usize = 3;

/// The results of Constant nodes that a forward model uses as weights, as it might use initializers, which would be trained. A scalar,
/// or what arithmetic is done with, is a constant that stays one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstantWeights(Vec<String>);

impl ConstantWeights {
    /// Those of `model`, in the order of the file.
    ///
    /// # Errors
    /// A graph that cannot be executed.
    pub fn of(model: &Model) -> Result<Self, ModelError> {
        let graph = model.graph();
        let index = model.index(GraphId::Main)?;
        let of_node = |(at, node): (usize, &NodeProto)| {
            let value = index.output(node, 0).filter(|_| node.is_onnx("Constant"))?;
            let tensor = TensorType::of_tensor(&graph.constant(&index, value)?);
            let rank = tensor.rank().filter(|&rank| rank > 0 && tensor.is_float())?;
            let reader = Search { graph, index: &index, rank }.reader(NodeId(at))?;
            Some(format!("'{}' of {}", index.value(value).name, reader.label()))
        };
        Ok(Self(graph.nodes().iter().enumerate().filter_map(of_node).collect()))
    }

    /// Each weight, and what reads it.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// That they are not trained, and what helps; `None` if there are none.
    pub fn doubt(&self) -> Option<String> {
        let named = self.0.get(..NAMED).unwrap_or(&self.0);
        let more = match self.0.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!named.is_empty()).then(|| {
            format!(
                "weights in Constant nodes are not trained, those in initializers are: {}{more}; onnxoptimizer's pass \
                 extract_constant_to_initializer makes initializers of them",
                named.join(", ")
            )
        })
    }
}

/// Who reads a constant with so many axes.
struct Search<'a> {
    graph: &'a Graph,
    index: &'a Index,
    rank: usize,
}

impl<'a> Search<'a> {
    /// The first node that reads the result of `constant` as a weight, behind others that change its layout or type.
    fn reader(&self, constant: NodeId) -> Option<&'a NodeProto> {
        let mut pending = BTreeSet::from([constant]);
        while let Some(id) = pending.pop_first() {
            let value = self.index.output(&self.graph.nodes()[id.0], 0)?;
            for &(reader, slot) in &self.index.value(value).consumers {
                let node = &self.graph.nodes()[reader.0];
                if self.is_weight(node, slot) {
                    return Some(node);
                }
                if slot == 0 && passes(node) {
                    pending.insert(reader);
                }
            }
        }
        None
    }

    fn is_weight(&self, node: &NodeProto, slot: usize) -> bool {
        let slots = match node.op_type() {
            _ if !node.is_standard() => return false,
            "MatMul" => 0..=1,
            "Gemm" => 0..=2,
            "Conv" | "ConvTranspose" => 1..=2,
            "LayerNormalization" | "RMSNormalization" | "GroupNormalization" | "InstanceNormalization" => 1..=2,
            "BatchNormalization" => 1..=2,
            "LSTM" | "GRU" | "RNN" => 1..=3,
            "PRelu" => 1..=1,
            // A table of embeddings; in one of numbers, something is looked up.
            "Gather" if self.rank > 1 => 0..=0,
            // The bias of a layer.
            "Add" if self.rank == 1 && self.is_product(self.index.input(node, 1 - slot.min(1))) => 0..=1,
            _ => return false,
        };
        slots.contains(&slot)
    }

    fn is_product(&self, value: Option<ValueId>) -> bool {
        value.is_some_and(|value| self.index.made_by(self.graph.nodes(), value, "MatMul").is_some())
    }
}

/// Whether the first input goes through with the same elements.
fn passes(node: &NodeProto) -> bool {
    let operators = ["Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"];
    operators.iter().any(|op_type| node.is_onnx(op_type))
}
