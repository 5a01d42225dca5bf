//! What flows where in a graph: equal values, layout chains, and the inputs that a value depends on.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;

use crate::model::{Dim, Graph, Index, NodeExt, NodeId, Producer, Types, ValueId};
use crate::proto::NodeProto;

/// Operators that draw random numbers or run foreign code: two of them with the same inputs are two different values.
const IMPURE: [&str; 10] = [
    "Dropout",
    "BiasDropout",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "PythonOp",
    "ATen",
];

/// Initializers up to this many bytes are compared by content.
const COMPARED_BYTES: usize = 1 << 16;

/// A set of leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LeafSet(Vec<u64>);

impl LeafSet {
    pub(super) fn insert(&mut self, leaf: ValueId) {
        let (word, bit) = (leaf.index() / 64, leaf.index() % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    pub(super) fn contains(&self, leaf: ValueId) -> bool {
        self.0.get(leaf.index() / 64).is_some_and(|word| word >> (leaf.index() % 64) & 1 == 1)
    }

    pub(super) fn intersects(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }
}

/// The flow through one graph.
pub(super) struct Flow<'a> {
    pub(super) graph: &'a Graph,
    pub(super) index: &'a Index,
    types: Types,
    /// By node: its place in the order of execution.
    places: Vec<usize>,
    /// By value: its class of equal values.
    classes: Vec<usize>,
    /// By value: the inputs and initializers it depends on. Leaves come first in the index, so the sets stay short.
    leaves: Vec<LeafSet>,
}

impl<'a> Flow<'a> {
    pub(super) fn new(graph: &'a Graph, index: &'a Index) -> Self {
        let count = index.values().count();
        let mut places = vec![0; graph.nodes().len()];
        index.order().iter().enumerate().for_each(|(place, node)| places[node.0] = place);
        let types = Types::infer(graph, index);
        let (classes, leaves) = (vec![0; count], vec![LeafSet::default(); count]);
        let mut flow = Self { graph, index, types, places, classes, leaves };
        let mut classes = Classes::default();
        for (id, value) in index.values() {
            if !matches!(value.producer, Producer::Node(..)) {
                flow.leaves[id.index()].insert(id);
                flow.classes[id.index()] = match value.producer {
                    Producer::Initializer(at) => classes.constant(graph.initializers()[at].message(), &value.name),
                    _ => classes.fresh(),
                };
            }
        }
        for &node_id in index.order() {
            let node = flow.node(node_id);
            let mut leaves = LeafSet::default();
            for input in index.reads(graph, node_id) {
                leaves.extend(&flow.leaves[input.index()]);
            }
            let class = classes.node(node, |slot| flow.index.input(node, slot).map(|id| flow.classes[id.index()]));
            for slot in 0..node.output.len() {
                if let Some(output) = index.output(node, slot) {
                    flow.leaves[output.index()] = leaves.clone();
                    flow.classes[output.index()] = classes.output(class, slot);
                }
            }
        }
        flow
    }

    /// A node's place in the order of execution.
    pub(super) fn place(&self, id: NodeId) -> usize {
        self.places[id.0]
    }

    pub(super) fn node(&self, id: NodeId) -> &'a NodeProto {
        &self.graph.nodes()[id.0]
    }

    pub(super) fn name(&self, id: ValueId) -> &'a str {
        &self.index.value(id).name
    }

    /// The node that makes a value, and which of its outputs the value is.
    pub(super) fn maker(&self, id: ValueId) -> Option<(NodeId, usize)> {
        self.index.maker(id)
    }

    pub(super) fn is_leaf(&self, id: ValueId) -> bool {
        self.maker(id).is_none()
    }

    pub(super) fn leaves(&self, id: ValueId) -> &LeafSet {
        &self.leaves[id.index()]
    }

    /// Whether two values are equal in every run: the same value, or the same operators on equal inputs.
    pub(super) fn equal(&self, a: ValueId, b: ValueId) -> bool {
        self.classes[a.index()] == self.classes[b.index()]
    }

    /// Whether two values hold the same elements: equal ones, or a constant and its transpose, which constant folding makes of a
    /// Transpose.
    pub(super) fn equal_up_to_layout(&self, a: ValueId, b: ValueId) -> bool {
        self.equal(a, b) || self.is_transpose(a, b).unwrap_or(false)
    }

    fn is_transpose(&self, a: ValueId, b: ValueId) -> Option<bool> {
        let matrix = |id| {
            let tensor = self.graph.constant(self.index, id)?;
            let sizes = <[i64; 2]>::try_from(tensor.dims.as_slice()).ok()?;
            let [rows, columns] = sizes.map(|size| usize::try_from(size).unwrap_or(0));
            Some((tensor.data_type(), tensor.element_bytes()?, rows, columns))
        };
        let ((elem, left, rows, columns), (other, right, other_rows, other_columns)) = (matrix(a)?, matrix(b)?);
        if (elem, rows, columns, left.len()) != (other, other_columns, other_rows, right.len()) || left.is_empty() {
            return None;
        }
        let width = left.len() / (rows * columns);
        let at = |bytes: &[u8], index: usize| bytes[index * width..(index + 1) * width].to_vec();
        let mut places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        Some(places.all(|(row, column)| at(&left, row * columns + column) == at(&right, column * rows + row)))
    }

    /// The value at the start of the chain of layout operators that ends in `id`.
    pub(super) fn root(&self, mut id: ValueId) -> ValueId {
        while let Some(before) = self.layout_input(id) {
            id = before;
        }
        id
    }

    /// What a layout operator made `id` from: the same elements in another shape, order or type, possibly repeated.
    pub(super) fn layout_input(&self, id: ValueId) -> Option<ValueId> {
        let (node, _) = self.maker(id)?;
        let node = self.node(node);
        is_layout(node).then(|| self.index.input(node, 0)).flatten()
    }

    /// By node: whether it depends on `start`.
    pub(super) fn descendants(&self, start: ValueId) -> Vec<bool> {
        let mut reached = vec![false; self.graph.nodes().len()];
        let mut pending = vec![start];
        while let Some(id) = pending.pop() {
            let value = self.index.value(id);
            for reader in value.consumers.iter().map(|(reader, _)| *reader).chain(value.captured_by.iter().copied()) {
                if !std::mem::replace(&mut reached[reader.0], true) {
                    let node = self.node(reader);
                    pending.extend((0..node.output.len()).filter_map(|slot| self.index.output(node, slot)));
                }
            }
        }
        reached
    }

    /// By node: whether `end` depends on it.
    pub(super) fn ancestors(&self, end: ValueId) -> Vec<bool> {
        let mut reached = vec![false; self.graph.nodes().len()];
        let mut pending = vec![end];
        while let Some(id) = pending.pop() {
            if let Some((maker, _)) = self.maker(id)
                && !std::mem::replace(&mut reached[maker.0], true)
            {
                pending.extend(self.index.reads(self.graph, maker));
            }
        }
        reached
    }

    /// The element type of a value (`TensorProto.DataType`), as far as it can be told.
    pub(super) fn elem(&self, id: ValueId) -> Option<i32> {
        self.types.elem(id)
    }

    /// The shape of a value, as far as it can be told.
    pub(super) fn shape(&self, id: ValueId) -> Option<&[Dim]> {
        self.types.shape(id)
    }

    /// Whether the number of elements of a value is known to be one.
    pub(super) fn is_scalar(&self, id: ValueId) -> bool {
        self.shape(id).is_some_and(|shape| shape.iter().all(|dim| dim.known() == Some(1)))
            || self.graph.constant(self.index, id).is_some_and(|tensor| tensor.dims.iter().all(|&size| size == 1))
    }

    /// The value of a constant with one element.
    pub(super) fn constant_scalar(&self, id: ValueId) -> Option<f64> {
        self.graph.constant_scalar(self.index, id)
    }

    /// The elements of a constant int64 tensor.
    pub(super) fn constant_ints(&self, id: ValueId) -> Option<Vec<i64>> {
        self.graph.constant_ints(self.index, id)
    }

    /// The elements of an int64 tensor that is constant, or follows from shapes.
    pub(super) fn ints(&self, id: ValueId) -> Option<Vec<i64>> {
        self.constant_ints(id).or_else(|| self.types.ints(id))
    }
}

/// Whether the first output holds the elements of the first input, in another shape, order or type, possibly repeated.
pub(super) fn is_layout(node: &NodeProto) -> bool {
    ["Identity", "Reshape", "Transpose", "Cast", "Squeeze", "Unsqueeze", "Flatten", "Expand"]
        .iter()
        .any(|op_type| node.is_onnx(op_type))
}

/// Value numbering.
#[derive(Default)]
struct Classes {
    count: usize,
    constants: HashMap<Vec<u8>, usize>,
    nodes: HashMap<(Vec<u8>, Vec<Option<usize>>), usize>,
    outputs: HashMap<(usize, usize), usize>,
}

impl Classes {
    fn fresh(&mut self) -> usize {
        self.count += 1;
        self.count
    }

    /// The class of an initializer: its bytes without its name, where they are few.
    fn constant(&mut self, message: &Bytes, name: &str) -> usize {
        if message.len() > COMPARED_BYTES + name.len() {
            return self.fresh();
        }
        let Ok(mut tensor) = crate::proto::TensorProto::decode(message.clone()) else {
            return self.fresh();
        };
        tensor.name = None;
        let fresh = self.fresh();
        *self.constants.entry(tensor.encode_to_vec()).or_insert(fresh)
    }

    /// The class of a node: its operator and attributes on the classes of its inputs.
    fn node(&mut self, node: &NodeProto, input: impl Fn(usize) -> Option<usize>) -> usize {
        let fresh = self.fresh();
        if IMPURE.contains(&node.op_type()) || node.subgraphs().next().is_some() {
            return fresh;
        }
        let mut attributes = node.attribute.clone();
        attributes.sort_by(|a, b| a.name().cmp(b.name()));
        let operator = NodeProto {
            op_type: node.op_type.clone(),
            domain: node.domain.clone(),
            attribute: attributes,
            ..NodeProto::default()
        };
        let inputs = (0..node.input.len()).map(input).collect();
        *self.nodes.entry((operator.encode_to_vec(), inputs)).or_insert(fresh)
    }

    fn output(&mut self, node: usize, slot: usize) -> usize {
        let fresh = self.fresh();
        *self.outputs.entry((node, slot)).or_insert(fresh)
    }
}
