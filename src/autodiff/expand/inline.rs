//! Functions and branches: the nodes in them, under names that the graph around has not.

use std::collections::{BTreeSet, HashMap};

use super::scene::Scene;
use crate::autodiff::step::Refusal;
use crate::model::{Builder, NodeExt};
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};

/// The nodes of the branch that an If takes, where its condition is known.
pub(super) fn branch(scene: &Scene<'_>, node: &NodeProto) -> Result<Vec<NodeProto>, Refusal> {
    // Exporters compare sizes that are known.
    let condition = scene.truth(node, 0).ok_or("its condition is not constant")?;
    let taken = if condition { "then_branch" } else { "else_branch" };
    let mut builder = scene.builder(node);
    let outputs = subgraph(&mut builder, node, taken, &[])?;
    if outputs.len() != node.output.len() {
        return Err(format!("it has {} outputs, its {taken} {}", node.output.len(), outputs.len()));
    }
    give(&mut builder, &outputs, node);
    Ok(builder.into_nodes())
}

/// Appends the nodes of a graph that is an attribute of `node`, fed with `inputs`, and returns its outputs.
pub(in crate::autodiff) fn subgraph(
    builder: &mut Builder<'_>,
    node: &NodeProto,
    attribute: &str,
    inputs: &[String],
) -> Result<Vec<String>, Refusal> {
    let graph = NodeExt::attribute(node, attribute).and_then(|attribute| attribute.g.as_ref());
    let graph = graph.ok_or_else(|| format!("it has no {attribute}"))?;
    if graph.input.len() != inputs.len() {
        return Err(format!("its {attribute} has {} inputs and is fed {}", graph.input.len(), inputs.len()));
    }
    let is_external = |data_location: i32| data_location == DataLocation::External as i32;
    if !graph.sparse_initializer.is_empty() || graph.initializer.iter().any(|t| is_external(t.data_location() as i32)) {
        return Err(format!("sparse or external initializers in its {attribute}"));
    }
    let mut body = Body::default();
    for (info, given) in graph.input.iter().zip(inputs) {
        body.names.insert(info.name(), given.clone());
    }
    for tensor in &graph.initializer {
        let name = builder.constant(tensor.clone());
        body.names.insert(tensor.name(), name);
    }
    Ok(body.append(builder, &graph.node, graph.output.iter().map(|output| output.name()), node))
}

/// Gives the results of `node` these values.
pub(super) fn give(builder: &mut Builder<'_>, values: &[String], node: &NodeProto) {
    for (value, result) in values.iter().zip(&node.output).filter(|(_, result)| !result.is_empty()) {
        builder.name(value, result);
    }
}

/// The nodes of a function that a node calls.
pub(super) fn call(scene: &Scene<'_>, node: &NodeProto, function: &FunctionProto) -> Vec<NodeProto> {
    let mut builder = scene.builder(node);
    let mut body = Body::default();
    for (slot, name) in function.input.iter().enumerate() {
        body.names.insert(name, node.input_name(slot).unwrap_or_default().to_owned());
    }
    for default in &function.attribute_proto {
        body.attributes.insert(default.name(), default);
    }
    for given in &node.attribute {
        body.attributes.insert(given.name(), given);
    }
    let outputs = body.append(&mut builder, &function.node, function.output.iter().map(String::as_str), node);
    give(&mut builder, &outputs, node);
    builder.into_nodes()
}

/// What the names in a body stand for.
#[derive(Default)]
struct Body<'a> {
    /// By name of a value in the body: its name in the graph around; values of the graph around keep theirs.
    names: HashMap<&'a str, String>,
    /// By name of a function's attribute: what the call gives for it.
    attributes: HashMap<&'a str, &'a AttributeProto>,
}

impl<'a> Body<'a> {
    /// Appends the nodes of the body of `caller`, and returns what its `outputs` are called.
    fn append(
        mut self,
        builder: &mut Builder<'_>,
        nodes: &'a [NodeProto],
        outputs: impl Iterator<Item = &'a str>,
        caller: &NodeProto,
    ) -> Vec<String> {
        for name in nodes.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty()) {
            let fresh = builder.fresh(name);
            self.names.insert(name, fresh);
        }
        let caller =
            [caller.name()].into_iter().chain(caller.output.iter().map(String::as_str)).find(|name| !name.is_empty());
        for inner in nodes {
            let mut inner = inner.clone();
            self.rename(&mut inner, &BTreeSet::new());
            // A function may be called twice, and names of nodes have to be different.
            if let (Some(name), Some(caller)) = (&mut inner.name, caller) {
                *name = format!("{caller}/{name}");
            }
            builder.push(inner);
        }
        outputs.map(|output| self.name(output)).collect()
    }

    fn name(&self, name: &str) -> String {
        self.names.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// Gives the values that a node reads and makes their names in the graph around, except those that are `hidden` by
    /// values of a subgraph, and puts in the attributes of the call.
    fn rename(&self, node: &mut NodeProto, hidden: &BTreeSet<String>) {
        for name in node.input.iter_mut().chain(&mut node.output).filter(|name| !hidden.contains(*name)) {
            *name = self.name(name);
        }
        node.attribute = std::mem::take(&mut node.attribute).into_iter().filter_map(|a| self.attribute(a)).collect();
        for attribute in &mut node.attribute {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.rename_captured(graph, hidden);
            }
        }
    }

    /// An attribute of a node in the body: that of the call, if it refers to one, under its own name.
    fn attribute(&self, attribute: AttributeProto) -> Option<AttributeProto> {
        match attribute.ref_attr_name() {
            "" => Some(attribute),
            of_call => {
                let given = (*self.attributes.get(of_call)?).clone();
                Some(AttributeProto { name: attribute.name, ..given })
            }
        }
    }

    fn rename_captured(&self, graph: &mut GraphProto, hidden: &BTreeSet<String>) {
        let mut hidden = hidden.clone();
        hidden.extend(graph.input.iter().map(|input| input.name().to_owned()));
        hidden.extend(graph.initializer.iter().map(|tensor| tensor.name().to_owned()));
        hidden.extend(graph.node.iter().flat_map(|node| node.output.iter().cloned()));
        for node in &mut graph.node {
            self.rename(node, &hidden);
        }
        for output in graph.output.iter_mut().filter(|output| !hidden.contains(output.name())) {
            output.name = Some(self.name(output.name()));
        }
    }
}
