use crate::model::{Builder, Dim, Graph, Index, NodeExt, Types};
use crate::proto::{FunctionProto, NodeProto};

/// The graph around a node that is written out.
pub(super) struct Scene<'a> {
    pub(super) graph: &'a Graph,
    pub(super) index: &'a Index,
    pub(super) types: &'a Types,
    /// Those that nodes may call.
    pub(super) functions: &'a [FunctionProto],
    /// The version of the default domain that the graph imports.
    pub(super) opset: i64,
}

impl<'a> Scene<'a> {
    /// The function that a node calls.
    pub(super) fn function(&self, node: &NodeProto) -> Option<&'a FunctionProto> {
        self.functions.iter().find(|function| {
            function.domain() == node.domain()
                && function.name() == node.op_type()
                && function.overload() == node.overload()
        })
    }

    /// A builder of the nodes that take the place of `node`: their names begin with that of its first result.
    pub(super) fn builder(&self, node: &NodeProto) -> Builder<'a> {
        let first = node.output.iter().find(|name| !name.is_empty());
        Builder::new(self.index, self.opset, &format!("{}/", first.map_or("", String::as_str)))
    }

    /// The shape of an input.
    pub(super) fn shape(&self, node: &NodeProto, slot: usize) -> Option<&'a [Dim]> {
        self.types.shape(self.index.input(node, slot)?)
    }

    /// The size of an axis of an input.
    pub(super) fn size(&self, node: &NodeProto, slot: usize, axis: i64) -> Option<i64> {
        let shape = self.shape(node, slot)?;
        let axis = if axis < 0 { axis.checked_add(shape.len() as i64)? } else { axis };
        i64::try_from(shape.get(usize::try_from(axis).ok()?)?.known()?).ok()
    }

    /// The values that are stacked to an input, if it is the result of a Concat along `axis` of values that have one element there.
    pub(super) fn stacked(&self, node: &NodeProto, slot: usize, axis: i64) -> Option<&'a [String]> {
        let (id, _) = self.index.maker(self.index.input(node, slot)?)?;
        let maker = &self.graph.nodes()[id.0];
        let is_flat = |part| self.size(maker, part, axis) == Some(1);
        let is_stack = maker.is_onnx("Concat") && maker.int("axis", 0) == axis;
        (is_stack && (0..maker.input.len()).all(is_flat)).then_some(&maker.input)
    }

    /// The elements of a constant integer input.
    pub(super) fn ints(&self, node: &NodeProto, slot: usize) -> Option<Vec<i64>> {
        let value = self.index.input(node, slot)?;
        self.graph.constant_ints(self.index, value).or_else(|| self.types.ints(value))
    }

    /// The value of a boolean scalar input, where it can be told.
    pub(super) fn truth(&self, node: &NodeProto, slot: usize) -> Option<bool> {
        match self.types.content(self.index.input(node, slot)?)? {
            [truth] => truth.known().map(|truth| truth != 0),
            _ => None,
        }
    }

    /// The element type of an input (`TensorProto.DataType`); float where it cannot be told.
    pub(super) fn elem(&self, node: &NodeProto, slot: usize) -> i32 {
        self.index.input(node, slot).and_then(|value| self.types.elem(value)).unwrap_or(1)
    }
}
