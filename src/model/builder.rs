use std::collections::{BTreeSet, HashMap};

use prost::Message;

use super::index::captured;
use super::{Index, NodeExt};
use crate::proto::{NodeProto, TensorProto};

/// Collects nodes that are added to a graph, in an order of execution. Values are known by their names.
#[derive(Debug)]
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

    /// Whether the scatter operators can add, which they do from opset 16 on.
    pub(crate) fn scatters_add(&self) -> bool {
        self.opset >= 16
    }

    /// The nodes, in an order of execution.
    pub(crate) fn into_nodes(self) -> Vec<NodeProto> {
        self.nodes
    }

    /// The nodes so far, in an order of execution; those that follow may use their values.
    pub(crate) fn take_nodes(&mut self) -> Vec<NodeProto> {
        // What comes next may stand before the constants so far.
        self.constants.clear();
        std::mem::take(&mut self.nodes)
    }

    /// Gives values that nodes here make other names.
    pub(crate) fn rename(&mut self, names: &HashMap<String, String>) {
        rename(&mut self.nodes, names);
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

    /// A name without the prefix that no value has yet, for what the graph's users see.
    pub(crate) fn named(&mut self, base: &str) -> String {
        let prefix = std::mem::take(&mut self.prefix);
        let name = self.fresh(base);
        self.prefix = prefix;
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

    /// `value` in the element type `elem`.
    pub(crate) fn cast(&mut self, value: &str, elem: i32) -> String {
        self.with("Cast", &[value], |node| node.with_int("to", elem.into()))
    }

    /// `value`, of the element type `from`, in the element type `to`.
    pub(crate) fn converted(&mut self, value: &str, from: i32, to: i32) -> String {
        if from == to { value.to_owned() } else { self.cast(value, to) }
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

    /// An int64 scalar.
    pub(crate) fn int(&mut self, value: i64) -> String {
        self.constant(TensorProto::of_int(value))
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
        self.over_axes("ReduceSum", 13, value, axes, |node| node.with_int("keepdims", keep.into()))
    }

    /// The mean over some axes, which are kept as ones.
    pub(crate) fn mean(&mut self, value: &str, axes: &[i64]) -> String {
        self.over_axes("ReduceMean", 18, value, axes, |node| node.with_int("keepdims", 1))
    }

    /// `value` with axes of size one put in.
    pub(crate) fn unsqueeze(&mut self, value: &str, axes: &[i64]) -> String {
        self.over_axes("Unsqueeze", 13, value, axes, |node| node)
    }

    /// `value` without these axes of size one.
    pub(crate) fn squeeze(&mut self, value: &str, axes: &[i64]) -> String {
        self.over_axes("Squeeze", 13, value, axes, |node| node)
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

    /// The size of an axis of `value`, a scalar.
    pub(crate) fn size(&mut self, value: &str, axis: usize) -> String {
        let shape = self.op("Shape", &[value]);
        let axis = self.int(axis as i64);
        self.op("Gather", &[&shape, &axis])
    }

    /// 0, 1, 2, … so many numbers as a scalar says.
    pub(crate) fn count_up(&mut self, count: &str) -> String {
        let [zero, one] = [0, 1].map(|value| self.int(value));
        self.op("Range", &[&zero, count, &one])
    }

    /// A tensor of the sizes that `shape` holds, all of whose elements are this number.
    pub(crate) fn filled(&mut self, shape: &str, number: f64, elem: i32) -> String {
        let number = TensorProto::of_floats(&[number], &[1], elem);
        self.with("ConstantOfShape", &[shape], |node| node.with_tensor("value", number))
    }

    /// The same in the shape of `like`.
    pub(crate) fn filled_like(&mut self, like: &str, number: f64, elem: i32) -> String {
        let shape = self.op("Shape", &[like]);
        self.filled(&shape, number, elem)
    }

    /// The sum of all elements, a scalar.
    pub(crate) fn total(&mut self, value: &str) -> String {
        self.with("ReduceSum", &[value], |node| node.with_int("keepdims", 0))
    }

    /// `value` under a name that it already has elsewhere.
    pub(crate) fn name(&mut self, value: &str, name: &str) {
        self.nodes.push(NodeProto::build("", "Identity", &[value], &[name]));
    }

    /// An operator that takes its axes as an attribute before the opset `since`, and as an input from then on.
    pub(crate) fn over_axes(
        &mut self,
        op_type: &str,
        since: i64,
        value: &str,
        axes: &[i64],
        attributes: impl FnOnce(NodeProto) -> NodeProto,
    ) -> String {
        if self.opset < since {
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

/// Gives the values of `nodes` that are listed other names, in their subgraphs too, which have values of other names.
pub(crate) fn rename(nodes: &mut [NodeProto], names: &HashMap<String, String>) {
    for node in nodes {
        for value in node.input.iter_mut().chain(&mut node.output) {
            if let Some(name) = names.get(value) {
                name.clone_into(value);
            }
        }
        for graph in node.attribute.iter_mut().filter_map(|attribute| attribute.g.as_mut()) {
            rename(&mut graph.node, names);
        }
    }
}

/// Those of `nodes`, which are in an order of execution, that these values depend on.
pub(crate) fn needed_for(nodes: Vec<NodeProto>, mut values: BTreeSet<String>) -> Vec<NodeProto> {
    let mut needed = Vec::new();
    for node in nodes.into_iter().rev() {
        if node.output.iter().any(|output| values.contains(output)) {
            values.extend(node.input.iter().cloned());
            values.extend(captured(&node).into_iter().map(str::to_owned));
            needed.push(node);
        }
    }
    needed.reverse();
    needed
}
