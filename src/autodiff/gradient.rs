//! The operator `ai.onnx.preview.training::Gradient`, written out.

use std::collections::BTreeSet;

use super::backward::Backward;
use super::error::AutodiffError;
use super::expand::{self, Replaced};
use crate::model::{
    Builder, Edit, Graph, GraphId, Model, NodeExt, ONNX_DOMAIN, PREVIEW_TRAINING_DOMAIN, Types, ValueId,
};

/// The oldest version of the default domain whose operators the rules are written for: that which came with Gradient itself.
const OLDEST_OPSET: i64 = 12;

/// Whether a graph of a model, the main one or the algorithm of a training info, has a Gradient operator.
pub fn has_gradient_operator(model: &Model) -> bool {
    model.graphs().any(|(_, graph)| has_one(graph))
}

fn has_one(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| node.is(PREVIEW_TRAINING_DOMAIN, "Gradient"))
}

/// The changes that put standard operators in the place of the Gradient operators of the main graph and of the algorithms of training infos.
///
/// `Gradient(x₁ … xₙ, z…)` with attributes `xs`, `zs`, `y` has the results dy/dx₁ … dy/dxₙ at the values given for xs and zs (ONNX
/// operator specification). This reads the nodes between xs and y in the graph around the operator, at the values that the
/// graph computes: each x has to be the value that the operator is fed for it. What is made of other operators is written out before
/// ([`expanded`](super::expanded)).
///
/// # Errors
/// A Gradient operator that is fed other values, a y that is not there, or operators that cannot be differentiated.
pub fn lower_gradients(model: &Model) -> Result<Edit, AutodiffError> {
    let mut edit = Edit::default();
    for (id, graph) in model.graphs().filter(|(_, graph)| has_one(graph)) {
        let (expanded, between) = expand::replaced(model, id)?;
        let lowered = lowered(between.as_ref().unwrap_or(model), id)?;
        edit = edit.and(expand::edit(id, expand::followed_by(expanded, lowered, graph.nodes().len())));
    }
    Ok(edit)
}

/// By position in a graph: what takes the place of each Gradient operator.
fn lowered(model: &Model, id: GraphId) -> Result<Replaced, AutodiffError> {
    let path = model.path();
    let graph = model.graph_of(id);
    let index = model.index(id)?;
    let opset = model.opset(ONNX_DOMAIN).unwrap_or(1);
    if opset < OLDEST_OPSET {
        return Err(AutodiffError::Opset { path: path.to_owned(), opset });
    }
    let types = Types::infer(graph, &index);
    let backward = Backward::new(model, graph, &index, &types);
    let mut replaced = Replaced::new();
    for (at, node) in graph.nodes().iter().enumerate().filter(|(_, node)| node.is(PREVIEW_TRAINING_DOMAIN, "Gradient"))
    {
        let fail = |what: String| AutodiffError::GradientOperator { path: path.to_owned(), node: node.label(), what };
        let names = |attribute: &str| -> Vec<String> {
            let strings = NodeExt::attribute(node, attribute).map(|attribute| attribute.strings.as_slice());
            strings.unwrap_or_default().iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        };
        let xs = names("xs");
        for (slot, name) in xs.iter().chain(&names("zs")).enumerate() {
            if node.input_name(slot) != Some(name) {
                return Err(fail(format!("'{name}' is fed another value, {:?}", node.input_name(slot))));
            }
        }
        let y = NodeExt::attribute(node, "y").map(|attribute| String::from_utf8_lossy(attribute.s()).into_owned());
        let y = y.and_then(|name| index.find(&name)).ok_or_else(|| fail("its y is no value of the graph".into()))?;
        let wanted: BTreeSet<ValueId> = xs.iter().filter_map(|name| index.find(name)).collect();
        let prefix = format!("{}/", node.output.first().map_or("gradient", String::as_str));
        let mut builder = Builder::new(&index, opset, &prefix);
        let seed = builder.filled_like(&index.value(y).name, 1.0, types.elem(y).unwrap_or(1));
        let gradients = backward.gradients(&mut builder, &[(y, seed)], &wanted)?;
        for (name, output) in xs.iter().zip(&node.output).filter(|(_, output)| !output.is_empty()) {
            let gradient = index.find(name).and_then(|x| gradients.get(&x));
            match gradient {
                Some(gradient) => builder.name(gradient, output),
                None => {
                    let zero = builder.op("Sub", &[name, name]);
                    builder.name(&zero, output);
                }
            }
        }
        replaced.insert(at, builder.into_nodes());
    }
    Ok(replaced)
}
