//! Forward models, and programs of them.

use isaac::model::Model;
use isaac::optimizer::{Optimizer, Update};
use isaac::proto::tensor_shape_proto::dimension::Value::DimParam;
use isaac::proto::type_proto::Value::TensorType;
use isaac::proto::{AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, attribute_proto, type_proto};
use isaac::rewrite::Choice;
use isaac::runtime::Program;
use isaac::tensors::Tensor;
use isaac::training_graph::{Distance, Labelled, Loss, Method, Recipe, Selection};
use isaac::upgrade::upgraded;
use prost::Message;

use super::arrays::Arrays;
use super::common::{model, tensor};

pub(crate) const CROSS_ENTROPY: Distance = Distance::CrossEntropy { class_axis: None, ignore_index: None };

pub(crate) fn load(model: &ModelProto) -> Model {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), model.encode_to_vec()).unwrap();
    Model::load(file.path()).unwrap()
}

pub(crate) fn message(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: tensor.shape().iter().map(|&size| size as i64).collect(),
        data_type: Some(tensor.elem() as i32),
        raw_data: Some(tensor.data().clone()),
        ..TensorProto::default()
    }
}

pub(crate) fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.into()),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        name: Some(output.into()),
        ..NodeProto::default()
    }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    let r#type = Some(attribute_proto::AttributeType::Int as i32);
    AttributeProto { name: Some(name.into()), r#type, i: Some(value), ..AttributeProto::default() }
}

/// What a tensor is declared as.
pub(crate) fn tensor_type(value: &mut ValueInfoProto) -> &mut type_proto::Tensor {
    match value.r#type.as_mut().and_then(|kind| kind.value.as_mut()) {
        Some(TensorType(tensor)) => tensor,
        other => panic!("{other:?} is no tensor"),
    }
}

/// The nodes as a model from `x` to `z` with those arrays as initializers that belong to a layer; how many rows a batch has is not known.
fn forward(nodes: Vec<NodeProto>, arrays: &Arrays) -> Model {
    let mut model = model(nodes, vec![tensor("x", &[-1, 6])], vec![tensor("z", &[-1, 4])]);
    let graph = model.graph.as_mut().unwrap();
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        tensor_type(value).shape.as_mut().unwrap().dim[0].value = Some(DimParam("N".into()));
    }
    let of_layers = arrays.iter().filter(|(name, _)| name.contains('.'));
    graph.initializer = of_layers.map(|(name, array)| message(name, array)).collect();
    load(&model)
}

/// x Wᵀ + b.
fn linear(layer: &str, x: &str, z: &str) -> NodeProto {
    let mut gemm = node("Gemm", &[x, &format!("{layer}.weight"), &format!("{layer}.bias")], z);
    gemm.attribute.push(int("transB", 1));
    gemm
}

/// Two linear layers with ReLU between, with these weights.
pub(crate) fn network(weights: &Arrays) -> Model {
    forward(vec![linear("fc0", "x", "y"), node("Relu", &["y"], "h"), linear("fc1", "h", "z")], weights)
}

/// Two linear layers with a batch normalization and tanh between, with these weights and statistics.
pub(crate) fn normalized(start: &Arrays) -> Model {
    let names = ["weight", "bias", "running_mean", "running_var"].map(|name| format!("1.{name}"));
    let mut normalization = node("BatchNormalization", &["y", &names[0], &names[1], &names[2], &names[3]], "n");
    let r#type = Some(attribute_proto::AttributeType::Float as i32);
    let momentum = AttributeProto { name: Some("momentum".into()), r#type, f: Some(0.7), ..AttributeProto::default() };
    normalization.attribute.push(momentum);
    forward(vec![linear("0", "x", "y"), normalization, node("Tanh", &["n"], "h"), linear("3", "h", "z")], start)
}

pub(crate) fn sgd() -> Update {
    Update { optimizer: Optimizer::Sgd, weight_decay: 0.0, clip_norm: None }
}

pub(crate) fn momentum() -> Update {
    Update { optimizer: Optimizer::Momentum { momentum: 0.9, nesterov: false }, ..sgd() }
}

/// A training graph of `forward` for the parameters `trained`, or for all, and the graph that evaluates: its loss and its predictions.
pub(crate) fn program(
    forward: &Model,
    distance: Distance,
    update: Update,
    method: Method,
    trained: &[&str],
) -> Program {
    let labelled = Labelled { distance, prediction: None, example_weights: false };
    let selection = Selection { trained: trained.iter().map(|&name| name.into()).collect(), frozen: Vec::new() };
    let recipe = Recipe { loss: Loss::Labelled(labelled), update: Some(update), selection };
    let newer = upgraded(forward).unwrap();
    let model = newer.as_ref().unwrap_or(forward);
    isaac::train::program(model, &recipe, method, |analysis| Ok(analysis.choose(&Choice::default())?)).unwrap().0
}

/// By name: what is carried.
pub(crate) fn by_name(program: &Program, values: Vec<Tensor>) -> Arrays {
    program.map.carried().into_iter().map(|carried| carried.name).zip(values).collect()
}
