use crate::model::{Builder, Graph, Index, NodeExt, Types, ValueId};
use crate::proto::NodeProto;
use crate::proto::tensor_proto::DataType;

/// Why a node cannot be brought along.
pub(super) type Refusal = String;

pub(super) type Done = Result<(), Refusal>;

/// An operator whose definition changed.
pub(super) struct Change {
    pub(super) op_type: &'static str,
    /// The first version of the default domain that has the new definition.
    pub(super) since: i64,
    pub(super) apply: fn(&mut Step<'_, '_>) -> Done,
}

/// One node at its turn: what a change sees of it.
pub(super) struct Step<'a, 'b> {
    pub(super) graph: &'a Graph,
    pub(super) index: &'a Index,
    pub(super) types: &'a Types,
    /// The version of the default domain that the model imports.
    pub(super) from: i64,
    /// The old node.
    pub(super) node: &'a NodeProto,
    /// Where the new nodes go.
    pub(super) b: &'b mut Builder<'a>,
}

impl<'a> Step<'a, '_> {
    /// The name of input `slot`; empty where it is left out.
    pub(super) fn x(&self, slot: usize) -> &'a str {
        self.node.input_name(slot).unwrap_or_default()
    }

    /// The name of the first output.
    pub(super) fn y(&self) -> &'a str {
        self.node.output.first().map_or("", String::as_str)
    }

    pub(super) fn value(&self, slot: usize) -> Option<ValueId> {
        self.index.input(self.node, slot)
    }

    /// The rank of an input.
    pub(super) fn rank(&self, slot: usize) -> Option<usize> {
        self.types.shape(self.value(slot)?).map(<[_]>::len)
    }

    /// The rank of an input, which the change cannot do without.
    pub(super) fn need_rank(&self, slot: usize) -> Result<usize, Refusal> {
        self.rank(slot).ok_or_else(|| format!("the rank of '{}' cannot be told", self.x(slot)))
    }

    /// The element type of the first input; float where it cannot be told.
    pub(super) fn elem(&self) -> i32 {
        self.value(0).and_then(|value| self.types.elem(value)).unwrap_or(DataType::Float as i32)
    }

    /// Whether anything reads output `slot`.
    pub(super) fn is_read(&self, slot: usize) -> bool {
        self.index.output(self.node, slot).is_some_and(|value| self.index.is_read(value))
    }

    /// An attribute that is a list of integers, as a constant.
    pub(super) fn ints(&mut self, attribute: &str) -> Option<String> {
        let ints = self.node.ints(attribute)?.to_vec();
        Some(self.b.ints(&ints))
    }

    /// A float attribute as a scalar of the first input's type.
    pub(super) fn scalar(&mut self, attribute: &str) -> Option<String> {
        let value = NodeExt::attribute(self.node, attribute)?.f?;
        let elem = self.elem();
        Some(self.b.scalar(value.into(), elem))
    }

    /// The elements of a constant list of floats.
    pub(super) fn constant_floats(&self, slot: usize) -> Option<Vec<f32>> {
        self.graph.constant(self.index, self.value(slot)?)?.float_elements()
    }

    /// Appends the old node with other inputs (those at the end that are empty are left out) and without some attributes.
    pub(super) fn put(&mut self, inputs: &[&str], gone: &[&str]) {
        let node = self.old(inputs, gone);
        self.b.push(node);
    }

    /// The node that [`Step::put`] appends.
    pub(super) fn old(&self, inputs: &[&str], gone: &[&str]) -> NodeProto {
        let mut node = self.node.clone();
        node.attribute.retain(|attribute| !gone.contains(&attribute.name()));
        let count = inputs.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        node.input = inputs[..count].iter().map(|&name| name.to_owned()).collect();
        node
    }
}
