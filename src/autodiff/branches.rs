//! If whose condition is known at run time only: its gradient is an If on the same condition, whose branches hold the gradients of the branches.
//!
//! A branch of the forward pass gives nothing out but its results, so that of the backward pass computes what it needs of it again.

use std::collections::BTreeSet;

use prost::Message;

use super::backward::Backward;
use super::error::AutodiffError;
use super::expand::{replaced, subgraph};
use super::step::Refusal;
use crate::model::{Builder, GraphId, Model, NodeExt, ONNX_DOMAIN, TensorType, Types, ValueId, free_names, needed_for};
use crate::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};

const BRANCHES: [&str; 2] = ["then_branch", "else_branch"];

/// Operators that draw another number each time.
const RANDOM: [&str; 6] =
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

impl<'a> Backward<'a> {
    /// The gradients of the values that an If's branches read and that are `wanted`, by the values.
    pub(super) fn through_branches(
        &self,
        builder: &mut Builder<'a>,
        node: &NodeProto,
        arriving: &[Option<String>],
        wanted: &[ValueId],
    ) -> Result<Vec<(ValueId, String)>, Refusal> {
        let names: Vec<String> = wanted.iter().map(|_| builder.fresh("If")).collect();
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut gradient = NodeProto::build("", "If", &[node.input_name(0).unwrap_or_default()], &outputs);
        for which in BRANCHES {
            let prefix = format!("{}/{which}/", names[0]);
            let branch = self
                .of_branch(builder.opset(), &prefix, node, which, arriving, wanted)
                .map_err(|why| format!("in its {which}: {why}"))?;
            gradient = gradient.with_graph(which, branch);
        }
        builder.push(gradient);
        Ok(wanted.iter().copied().zip(names).collect())
    }

    /// A graph that gives the gradients of `wanted` where this branch is taken. Its own values have names with this prefix.
    fn of_branch(
        &self,
        opset: i64,
        prefix: &str,
        node: &NodeProto,
        which: &str,
        arriving: &[Option<String>],
        wanted: &[ValueId],
    ) -> Result<GraphProto, Refusal> {
        let model = self.standing_alone(opset, prefix, node, which, wanted).map_err(|why| why.to_string())?;
        let (_, written_out) = replaced(&model, GraphId::Main).map_err(|error| error.to_string())?;
        let model = written_out.as_ref().unwrap_or(&model);
        let graph = model.graph();
        if let Some(node) = graph.nodes().iter().find(|node| draws(node)) {
            return Err(format!("{} draws random numbers", node.label()));
        }
        let index = model.index(GraphId::Main).map_err(|error| error.to_string())?;
        let types = Types::infer(graph, &index);
        let seeds: Vec<(ValueId, String)> = graph
            .outputs()
            .iter()
            .zip(arriving)
            .filter_map(|(output, gradient)| Some((index.find(output.name())?, gradient.clone()?)))
            .collect();
        let here: BTreeSet<ValueId> = wanted.iter().filter_map(|value| index.find(self.name(*value))).collect();
        let mut b = Builder::new(&index, opset, &format!("{prefix}gradient/"));
        let gradients = Backward::new(model, graph, &index, &types).gradients(&mut b, &seeds, &here).map_err(reason)?;
        let mut outputs = Vec::new();
        for &value in wanted {
            let name = self.name(value);
            let elem = self.types.elem(value).unwrap_or(1);
            let gradient = match index.find(name).and_then(|here| gradients.get(&here)) {
                Some(gradient) => gradient.clone(),
                None => b.filled_like(name, 0.0, elem),
            };
            let output = b.fresh("output");
            b.name(&gradient, &output);
            outputs.push(TensorType { elem, shape: self.types.shape(value).map(<[_]>::to_vec) }.declare(&output));
        }
        let given = outputs.iter().map(|output| output.name().to_owned()).collect();
        let nodes = graph.nodes().iter().cloned().chain(b.into_nodes()).collect();
        Ok(GraphProto {
            name: Some(prefix.trim_end_matches('/').to_owned()),
            node: needed_for(nodes, given),
            output: outputs,
            ..GraphProto::default()
        })
    }

    /// A branch as a model, whose inputs are what it reads of the graph around it; small constants are initializers.
    fn standing_alone(
        &self,
        opset: i64,
        prefix: &str,
        node: &NodeProto,
        which: &str,
        wanted: &[ValueId],
    ) -> Result<Model, Refusal> {
        let mut builder = Builder::new(self.index, opset, prefix);
        let outputs = subgraph(&mut builder, node, which, &[])?;
        let mut graph = GraphProto {
            node: builder.into_nodes(),
            output: outputs
                .into_iter()
                .map(|name| ValueInfoProto { name: Some(name), ..ValueInfoProto::default() })
                .collect(),
            ..GraphProto::default()
        };
        let read: Vec<ValueId> = free_names(&graph).into_iter().filter_map(|name| self.index.find(name)).collect();
        for value in read {
            let name = self.name(value).to_owned();
            match self.graph.constant(self.index, value) {
                Some(tensor) if !wanted.contains(&value) => {
                    graph.initializer.push(crate::proto::TensorProto { name: Some(name), ..tensor });
                }
                _ => {
                    let elem = self.types.elem(value).unwrap_or_default();
                    let shape = self.types.shape(value).map(<[_]>::to_vec);
                    graph.input.push(TensorType { elem, shape }.declare(&name));
                }
            }
        }
        let model = ModelProto {
            opset_import: vec![OperatorSetIdProto { domain: Some(ONNX_DOMAIN.into()), version: Some(opset) }],
            functions: self.model.functions().to_vec(),
            graph: Some(graph),
            ..ModelProto::default()
        };
        let name = self.model.path().to_string_lossy();
        Model::from_bytes(&name, model.encode_to_vec().into()).map_err(|error| error.to_string())
    }

    fn name(&self, value: ValueId) -> &'a str {
        &self.index.value(value).name
    }
}

fn draws(node: &NodeProto) -> bool {
    let of_bodies = |node: &NodeProto| node.subgraphs().flat_map(|graph| &graph.node).any(draws);
    let is_training = node.is_onnx("Dropout") && node.input_name(2).is_some();
    node.is_standard() && (RANDOM.contains(&node.op_type()) || is_training) || of_bodies(node)
}

/// Each operator in a branch that cannot be differentiated.
fn reason(error: AutodiffError) -> Refusal {
    match error {
        AutodiffError::Unsupported { blocked, .. } => {
            let all: Vec<String> = blocked.iter().map(|blocked| format!("{}: {}", blocked.node, blocked.why)).collect();
            all.join("; ")
        }
        error => error.to_string(),
    }
}
