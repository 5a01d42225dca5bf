use std::collections::{BTreeSet, HashMap};

use crate::model::{Index, NodeExt};
use crate::proto::{NodeProto, TensorProto};
use prost::Message;

/// Collects the nodes of a backward pass. Values are known by their names.
pub(crate) struct Builder<'a> {
    index: &'a Index,
    nodes: Vec<NodeProto>,
    names: BTreeSet<String>,
    /// By encoded tensor: the value that holds it.
    constants: HashMap<Vec<u8>, String>,
    prefix: String,
    opset: i64,
}

impl<'a> Builder<'a> {
    /// For a graph that imports version `opset` of the default domain. New values get names that `index` does not have and that
    /// begin with `prefix`.
    pub(crate) fn new(index: &'a Index, opset: i64, prefix: &str) -> Self {
        let constants = HashMap::new();
        Self { index, nodes: Vec::new(), names: BTreeSet::new(), constants, prefix: prefix.to_owned(), opset }
    }

    /// The version of the default domain that the graph imports.
    pub(crate) fn opset(&self) -> i64 {
        self.opset
    }

    /// The nodes, in an order of execution.
    pub(crate) fn into_nodes(self) -> Vec<NodeProto> {
        self.nodes
    }

    /// A name that no value has yet.
    pub(crate) fn fresh(&mut self, base: &str) -> String {
        let mut name = format!("{}{base}", self.prefix);
        let mut count = 1;
        while self.index.find(&name).is_some() || self.names.contains(&name) {
            count += 1;
            name = format!("{}{base}.{count}", self.prefix);
        }
        self.names.insert(name.clone());
        name
    }

    /// Appends a node whose outputs have names already.
    pub(crate) fn push(&mut self, node: NodeProto) {
        self.nodes.push(node);
    }

    /// Appends a node of the default domain with one result, which it returns.
    pub(crate) fn op(&mut self, op_type: &str, inputs: &[&str]) -> String {
        self.with(op_type, inputs, |node| node)
    }

    /// The same with attributes.
    pub(crate) fn with(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        attributes: impl FnOnce(NodeProto) -> NodeProto,
    ) -> String {
        let output = self.fresh(op_type);
        self.nodes.push(attributes(NodeProto::build("", op_type, inputs, &[&output])));
        output
    }

    /// A constant.
    pub(crate) fn constant(&mut self, tensor: TensorProto) -> String {
        let key = tensor.encode_to_vec();
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let name = self.fresh("constant");
        self.nodes.push(NodeProto::build("", "Constant", &[], &[&name]).with_tensor("value", tensor));
        self.constants.insert(key, name.clone());
        name
    }

    /// An int64 tensor with one axis.
    pub(crate) fn ints(&mut self, values: &[i64]) -> String {
        self.constant(TensorProto::of_ints(values))
    }

    /// A scalar of the element type `elem`.
    pub(crate) fn scalar(&mut self, value: f64, elem: i32) -> String {
        self.constant(TensorProto::of_float(value, elem))
    }

    /// The sum over some axes.
    pub(crate) fn sum(&mut self, value: &str, axes: &[i64], keep: bool) -> String {
        self.over_axes("ReduceSum", value, axes, |node| node.with_int("keepdims", keep.into()))
    }

    /// `value` with axes of size one put in.
    pub(crate) fn unsqueeze(&mut self, value: &str, axes: &[i64]) -> String {
        self.over_axes("Unsqueeze", value, axes, |node| node)
    }

    /// `value` without these axes of size one.
    pub(crate) fn squeeze(&mut self, value: &str, axes: &[i64]) -> String {
        self.over_axes("Squeeze", value, axes, |node| node)
    }

    /// The parts of `value` along `axis` that have these sizes.
    pub(crate) fn split(&mut self, value: &str, axis: i64, sizes: &[i64]) -> Vec<String> {
        let parts: Vec<String> = sizes.iter().map(|_| self.fresh("part")).collect();
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        let node = if self.opset < 13 {
            NodeProto::build("", "Split", &[value], &names).with_ints("split", sizes)
        } else {
            let sizes = self.ints(sizes);
            NodeProto::build("", "Split", &[value, &sizes], &names)
        };
        self.nodes.push(node.with_int("axis", axis));
        parts
    }

    /// `values` side by side along `axis`.
    pub(crate) fn concat(&mut self, values: &[String], axis: i64) -> String {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        self.with("Concat", &values, |node| node.with_int("axis", axis))
    }

    /// `value` with its axes in another order.
    pub(crate) fn transpose(&mut self, value: &str, order: &[i64]) -> String {
        self.with("Transpose", &[value], |node| node.with_ints("perm", order))
    }

    /// 0, 1, 2, … up to a number that a tensor with one element holds.
    pub(crate) fn count_up(&mut self, count: &str) -> String {
        let none = self.ints(&[]);
        let count = self.op("Reshape", &[count, &none]);
        let [zero, one] =
            [0, 1].map(|value| self.constant(TensorProto { dims: Vec::new(), ..TensorProto::of_ints(&[value]) }));
        self.op("Range", &[&zero, &count, &one])
    }

    /// `value` under a name that it already has elsewhere.
    pub(crate) fn name(&mut self, value: &str, name: &str) {
        self.nodes.push(NodeProto::build("", "Identity", &[value], &[name]));
    }

    /// An operator that takes its axes as an attribute before opset 13, and as an input from then on.
    fn over_axes(
        &mut self,
        op_type: &str,
        value: &str,
        axes: &[i64],
        attributes: impl FnOnce(NodeProto) -> NodeProto,
    ) -> String {
        if self.opset < 13 {
            return self.with(op_type, &[value], |node| attributes(node).with_ints("axes", axes));
        }
        let axes = self.ints(axes);
        self.with(op_type, &[value, &axes], attributes)
    }

    /// `value` in the shape of `like`.
    pub(crate) fn reshape_like(&mut self, value: &str, like: &str) -> String {
        let shape = self.op("Shape", &[like]);
        self.op("Reshape", &[value, &shape])
    }

    /// `value` repeated to the shape of `like`.
    pub(crate) fn expand_like(&mut self, value: &str, like: &str) -> String {
        let shape = self.op("Shape", &[like]);
        self.op("Expand", &[value, &shape])
    }
}
