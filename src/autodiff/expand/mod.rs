//! Operators that are made of others, written out: what a backward pass needs of them are their intermediate values.
//!
//! Calls of the model's functions and Ifs whose condition is known give way to the nodes in them, Loops and Scans of a known number of
//! iterations to as many copies of their body; sequences of tensors whose elements are known, to the elements; recurrent networks of a known
//! number of steps, Attention and other operators of many, to the operators that their specifications are written in; an Einsum that is a product
//! of matrices, to that product. What cannot be written out stays, and is refused only if a gradient has to go through it.

mod attention;
mod gated;
mod inline;
mod linear_attention;
mod loops;
mod product;
mod recurrent;
mod scene;
mod sequence;

use std::collections::BTreeMap;

pub(super) use self::inline::subgraph;
use self::scene::Scene;
use super::error::AutodiffError;
use super::step::Refusal;
use crate::model::{Edit, Graph, GraphEdit, GraphId, Index, Model, NodeExt, ONNX_DOMAIN, Types};
use crate::proto::NodeProto;

/// Functions call functions, branches hold branches: so deep they may be nested, which ends recursion as well.
const MAX_ROUNDS: usize = 50;

/// No graph is written out to more nodes.
const MAX_NODES: usize = 1 << 20;

/// By position in a graph: the nodes that take a node's place.
pub(super) type Replaced = BTreeMap<usize, Vec<NodeProto>>;

/// The changes that write out, in the main graph, every operator that is made of others; `None` if it has none.
///
/// # Errors
/// A graph that cannot be executed, or that would get too large.
pub fn expanded(model: &Model) -> Result<Option<Edit>, AutodiffError> {
    let (replaced, _) = replaced(model, GraphId::Main)?;
    Ok((!replaced.is_empty()).then(|| edit(GraphId::Main, replaced)))
}

/// What takes the place of each node of one of a model's graphs, and the model that it gives; `None` if that is the same.
pub(super) fn replaced(model: &Model, id: GraphId) -> Result<(Replaced, Option<Model>), AutodiffError> {
    let count = model.graph_of(id).nodes().len();
    let mut replaced = Replaced::new();
    let mut current = None;
    for _ in 0..MAX_ROUNDS {
        let now: &Model = current.as_ref().unwrap_or(model);
        let next = round(now, id)?;
        if next.is_empty() {
            return Ok((replaced, current));
        }
        if next.values().map(Vec::len).sum::<usize>() + now.graph_of(id).nodes().len() > MAX_NODES {
            return Err(too_large(model, &format!("gives more than {MAX_NODES} nodes")));
        }
        let edited = now.edited(&edit(id, next.clone()))?;
        replaced = followed_by(replaced, next, count);
        current = Some(edited);
    }
    Err(too_large(model, &format!("goes deeper than {MAX_ROUNDS} levels")))
}

fn too_large(model: &Model, how: &str) -> AutodiffError {
    AutodiffError::Request {
        path: model.path().to_owned(),
        what: format!("writing out its functions, branches and recurrent operators {how}"),
    }
}

/// An edit of one graph.
pub(super) fn edit(id: GraphId, replaced: Replaced) -> Edit {
    Edit { graphs: [(id, GraphEdit { nodes: replaced, ..GraphEdit::default() })].into(), ..Edit::default() }
}

/// Two replacements one after the other, as one: `next` counts positions in what `first` makes of a graph with `count` nodes.
pub(super) fn followed_by(mut first: Replaced, mut next: Replaced, count: usize) -> Replaced {
    let mut position = 0;
    let mut both = Replaced::new();
    for at in 0..count {
        match first.remove(&at) {
            None => {
                both.extend(next.remove(&position).map(|nodes| (at, nodes)));
                position += 1;
            }
            Some(nodes) => {
                let mut merged = Vec::new();
                for node in nodes {
                    match next.remove(&position) {
                        None => merged.push(node),
                        Some(nodes) => merged.extend(nodes),
                    }
                    position += 1;
                }
                both.insert(at, merged);
            }
        }
    }
    both
}

/// What can be written out at once; more than [`MAX_NODES`] nodes are not all of it.
fn round(model: &Model, id: GraphId) -> Result<Replaced, AutodiffError> {
    let graph = model.graph_of(id);
    let index = model.index(id)?;
    let types = Types::infer(graph, &index);
    let opset = model.opset(ONNX_DOMAIN).unwrap_or(1);
    let scene = Scene { graph, index: &index, types: &types, functions: model.functions(), opset };
    let mut replaced = sequence::resolved(&scene);
    let mut count = 0;
    for (at, node) in graph.nodes().iter().enumerate() {
        if let Some(Ok(nodes)) = expansion(&scene, node) {
            count += nodes.len();
            replaced.insert(at, nodes);
        }
        if count > MAX_NODES {
            break;
        }
    }
    Ok(replaced)
}

/// The nodes that take a node's place, or why there are none; `None` if the node is not made of others.
fn expansion(scene: &Scene<'_>, node: &NodeProto) -> Option<Result<Vec<NodeProto>, Refusal>> {
    if let Some(function) = scene.function(node) {
        return Some(Ok(inline::call(scene, node, function)));
    }
    let expand: fn(&Scene<'_>, &NodeProto) -> Result<Vec<NodeProto>, Refusal> = match node.op_type() {
        _ if !node.is_standard() => return None,
        "If" => inline::branch,
        "Loop" => loops::repeated,
        "Scan" => loops::scanned,
        "RNN" | "GRU" | "LSTM" => recurrent::unrolled,
        "Attention" => attention::written_out,
        "Swish" | "SwiGLU" => gated::written_out,
        "CausalConvWithState" => linear_attention::causal_convolution,
        "LinearAttention" => linear_attention::linear_attention,
        "Einsum" => product::of_matrices,
        _ => return None,
    };
    Some(expand(scene, node))
}

/// Why a node without a gradient rule has none.
pub(super) fn why_not(graph: &Graph, index: &Index, types: &Types, opset: i64, node: &NodeProto) -> Refusal {
    let scene = Scene { graph, index, types, functions: &[], opset };
    match (expansion(&scene, node), node.op_type()) {
        (Some(Err(why)), _) => why,
        (_, op_type) if sequence::is_of_sequences(op_type) => {
            "the elements of its sequence, or where it takes them, cannot be told".into()
        }
        _ => "there is no gradient rule for this operator".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_one_after_the_other_are_one() {
        let nodes = |names: &str| -> Vec<NodeProto> {
            names.split_whitespace().map(|name| NodeExt::build("", name, &[], &[])).collect()
        };
        // A B C D, then A x y D, then A x z w v.
        let first = Replaced::from([(1, nodes("x y")), (2, nodes(""))]);
        let next = Replaced::from([(2, nodes("z w")), (3, nodes("v"))]);
        let expected = Replaced::from([(1, nodes("x z w")), (2, nodes("")), (3, nodes("v"))]);
        assert_eq!(followed_by(first, next, 4), expected);
    }
}
