//! Models that no tool would write: every attribute, constant and declared shape of real graphs bent, one at a time. The answer may be a
//! result or an error, and is never a panic.

mod common;
#[path = "malformed/models.rs"]
mod models;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use isaac::autodiff::lower_gradients;
use isaac::model::{Edit, Model, NodeExt};
use isaac::optimizer::{Optimizer, Update, lower_optimizers};
use isaac::proto::attribute_proto::AttributeType;
use isaac::proto::type_proto::Value;
use isaac::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, ValueInfoProto,
};
use isaac::rewrite::{Analysis, Choice, Direction, Reason};
use isaac::training_graph::{Damping, Distance, Labelled, Loss, Method, Recipe, Selection, TrainingGraph};
use isaac::upgrade::upgraded;
use prost::Message;

use common::{export, fixture, onnx_data, onnx_files};
use models::{composed, shapely, spatial};

const EXTREMES: [i64; 6] = [-1, -9, 1, 9, i64::MIN, i64::MAX];

/// Calls `check` with each bent version of `proto`.
fn for_each_bend(proto: &ModelProto, check: &mut impl FnMut(&str, &ModelProto)) {
    let graph = proto.graph.as_ref().expect("a graph");
    let mut bend = |what: String, change: &dyn Fn(&mut GraphProto)| {
        let mut bent = proto.clone();
        change(bent.graph.as_mut().expect("a graph"));
        check(&what, &bent);
    };
    for (at, node) in graph.node.iter().enumerate() {
        for (slot, attribute) in node.attribute.iter().enumerate() {
            let what = format!("{} {}", node.label(), attribute.name());
            if attribute.i.is_some() {
                for value in EXTREMES {
                    bend(format!("{what} = {value}"), &|graph| graph.node[at].attribute[slot].i = Some(value));
                }
            }
            for (what, ints) in bent_ints(&what, &attribute.ints) {
                bend(what, &|graph| graph.node[at].attribute[slot].ints.clone_from(&ints));
            }
            if let Some(value) = attribute.t.as_ref().and_then(|tensor| tensor.int64_elements()) {
                for (what, ints) in bent_ints(&what, &value) {
                    bend(what, &|graph| {
                        let tensor = graph.node[at].attribute[slot].t.as_mut().expect("a tensor");
                        (tensor.raw_data, tensor.int64_data) = (None, ints.clone());
                    });
                }
            }
            bend(format!("{what} removed"), &|graph| drop(graph.node[at].attribute.remove(slot)));
        }
        bend(format!("{} without its last input", node.label()), &|graph| drop(graph.node[at].input.pop()));
        bend(format!("{} without inputs", node.label()), &|graph| graph.node[at].input.clear());
    }
    for (at, initializer) in graph.initializer.iter().enumerate() {
        let what = initializer.name().to_owned();
        for (what, ints) in bent_ints(&what, &initializer.int64_elements().unwrap_or_default()) {
            bend(what, &|graph| {
                (graph.initializer[at].raw_data, graph.initializer[at].int64_data) = (None, ints.clone())
            });
        }
        for (what, dims) in bent_ints(&format!("dims of {what}"), &initializer.dims) {
            bend(what, &|graph| graph.initializer[at].dims.clone_from(&dims));
        }
    }
    let typed: [fn(&mut GraphProto) -> &mut Vec<ValueInfoProto>; 3] =
        [|graph| &mut graph.input, |graph| &mut graph.output, |graph| &mut graph.value_info];
    for list in typed {
        let count = list(&mut graph.clone()).len();
        for at in 0..count {
            for (what, change) in SHAPES {
                bend(format!("{what} of value {at}"), &|graph| {
                    if let Some(Value::TensorType(tensor)) =
                        list(graph)[at].r#type.as_mut().and_then(|t| t.value.as_mut())
                    {
                        change(&mut tensor.shape);
                    }
                });
            }
        }
    }
}

type Change = fn(&mut Option<TensorShapeProto>);

const SHAPES: [(&str, Change); 4] = [
    ("no shape", |shape| *shape = None),
    ("no axes", |shape| *shape = Some(TensorShapeProto::default())),
    ("one axis less", |shape| drop(shape.iter_mut().map(|shape| shape.dim.pop()).next())),
    ("every axis twice", |shape| shape.iter_mut().for_each(|shape| shape.dim.extend(shape.dim.clone()))),
];

fn bent_ints(what: &str, ints: &[i64]) -> Vec<(String, Vec<i64>)> {
    if ints.is_empty() || ints.len() > 16 {
        return Vec::new();
    }
    let mut bent = vec![
        (format!("{what} empty"), Vec::new()),
        (format!("{what} twice"), ints.repeat(2)),
        (format!("{what} shorter"), ints[1..].to_vec()),
    ];
    for value in EXTREMES {
        let mut ints = ints.to_vec();
        ints[0] = value;
        bent.push((format!("{what} = {ints:?}"), ints));
    }
    bent
}

/// Runs `work` on a bent model; collects what made it panic.
fn survive(panics: &mut Vec<String>, name: &str, what: &str, bent: &ModelProto, work: fn(Model)) {
    let bytes = bent.encode_to_vec();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if let Ok(model) = Model::from_bytes(name, bytes.into()) {
            work(model);
        }
    }));
    if outcome.is_err() {
        panics.push(format!("{name}: {what}"));
    }
}

fn assert_none(panics: &[String]) {
    let first = panics[..panics.len().min(30)].join("\n");
    assert!(panics.is_empty(), "{} panics, the first of them:\n{first}", panics.len());
}

fn rewrite(model: Model) {
    if let Ok(analysis) = Analysis::new(&model, &[]) {
        let choice = Choice { allow: Reason::ALL.into(), with_bias: true, ..Choice::default() };
        if let Ok(chosen) = analysis.choose(&choice) {
            model.to_bytes(&chosen.edit(&Direction::Fixed { lambda_a: 1.0 }).unwrap());
        }
    }
}

fn differentiate(model: Model) {
    if let Ok(edit) = lower_gradients(&model) {
        model.to_bytes(&edit);
    }
}

fn lower(model: Model) {
    if let Ok(edit) = lower_optimizers(&model) {
        model.to_bytes(&edit);
    }
}

fn upgrade(model: Model) {
    if let Ok(Some(model)) = upgraded(&model) {
        model.to_bytes(&Edit::default());
    }
}

fn recipe() -> Recipe {
    let distance = Distance::CrossEntropy { class_axis: Some(1), ignore_index: Some(-1) };
    let optimizer = Optimizer::Momentum { momentum: 0.9, nesterov: false };
    Recipe {
        loss: Loss::Labelled(Labelled { distance, prediction: None, example_weights: true }),
        update: Some(Update { optimizer, weight_decay: 0.1, clip_norm: Some(1.0) }),
        selection: Selection::default(),
    }
}

/// Makes a training graph with a second backward pass.
fn train(model: Model) {
    let Ok(newer) = upgraded(&model) else { return };
    let model = newer.unwrap_or(model);
    let Ok(graph) = TrainingGraph::new(&model, &recipe()) else { return };
    let analysis = Analysis::new(graph.model(), &[]).expect("our own graph");
    let chosen = analysis.choose(&Choice::default()).expect("all layers");
    if let Ok(edit) = graph.conditioned(&chosen, Method::Zeta, Damping { lambda_a: 1.0, lambda_g: 1.0 }) {
        graph.model().to_bytes(&edit);
    }
}

fn load(path: &Path) -> ModelProto {
    ModelProto::decode(std::fs::read(path).expect("a fixture").as_slice()).expect("a model")
}

/// The model with the gradient of its first output with respect to its floating-point initializers.
fn with_gradient(mut proto: ModelProto) -> ModelProto {
    let graph = proto.graph.as_mut().expect("a graph");
    let is_float = |data_type: i32| matches!(data_type, 1 | 10 | 11);
    let xs: Vec<String> =
        graph.initializer.iter().filter(|t| is_float(t.data_type())).map(|t| t.name().to_owned()).collect();
    let y = graph.output[0].name().to_owned();
    let bytes = |text: &String| text.clone().into_bytes().into();
    let domain = "ai.onnx.preview.training";
    let inputs: Vec<&str> = xs.iter().map(String::as_str).collect();
    let outputs: Vec<String> = xs.iter().map(|name| format!("gradient of {name}")).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let attribute = |name: &str, kind: AttributeType| AttributeProto {
        name: Some(name.into()),
        r#type: Some(kind as i32),
        ..AttributeProto::default()
    };
    let mut gradient = NodeProto::build(domain, "Gradient", &inputs, &outputs);
    gradient.attribute = vec![
        AttributeProto { strings: xs.iter().map(bytes).collect(), ..attribute("xs", AttributeType::Strings) },
        AttributeProto { s: Some(bytes(&y)), ..attribute("y", AttributeType::String) },
    ];
    graph.node.push(gradient);
    proto.opset_import.push(OperatorSetIdProto { domain: Some(domain.into()), version: Some(1) });
    proto
}

#[test]
fn bent_training_graphs_never_panic() {
    let mut panics = Vec::new();
    for path in onnx_files(&fixture("")) {
        let name = path.strip_prefix(fixture("")).expect("a fixture").display().to_string();
        // The other graphs of a fixture hold no products; of the largest, the smaller ones hold every pattern.
        if name.contains("train") && !name.starts_with("gpt2") {
            let proto = load(&path);
            for_each_bend(&proto, &mut |what, bent| survive(&mut panics, &name, what, bent, rewrite));
        }
    }
    assert_none(&panics);
}

#[test]
fn bent_forward_graphs_never_panic() {
    let mut panics = Vec::new();
    let fixtures =
        ["mlp_gemm_ts17", "lora_merged_ts17", "clip_contrastive_ts17", "handmade_rnn_ts17", "mlp3d_ts15_dynshape"];
    let forward = fixtures.map(|name| (name, load(&fixture(name).join("forward.onnx"))));
    let exports = ["gpt_ts16", "windows_ts13"].map(|name| (name, load(&export(name))));
    for (name, proto) in &forward {
        let straight = Model::from_bytes(name, proto.encode_to_vec().into()).expect("a model");
        TrainingGraph::new(&straight, &recipe()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let by_hand = [("shapely", shapely()), ("spatial", spatial()), ("composed", composed())];
    for (name, proto) in forward.into_iter().chain(exports).chain(by_hand) {
        for_each_bend(&proto, &mut |what, bent| survive(&mut panics, name, what, bent, train));
        let proto = with_gradient(proto);
        let straight = Model::from_bytes(name, proto.encode_to_vec().into()).expect("a model");
        lower_gradients(&straight).unwrap_or_else(|error| panic!("{name}: {error}"));
        for_each_bend(&proto, &mut |what, bent| survive(&mut panics, name, what, bent, differentiate));
    }
    assert_none(&panics);
}

#[test]
fn bent_optimizers_never_panic() {
    let mut panics = Vec::new();
    for name in ["adagrad", "adam_multiple", "momentum_multiple", "nesterov_momentum"] {
        let proto = load(&onnx_data().join(format!("node/test_{name}/model.onnx")));
        let straight = Model::from_bytes(name, proto.encode_to_vec().into()).expect("a model");
        let edit = lower_optimizers(&straight).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!edit.graphs.is_empty(), "{name} is written out");
        for_each_bend(&proto, &mut |what, bent| survive(&mut panics, name, what, bent, lower));
    }
    assert_none(&panics);
}

#[test]
fn bent_old_models_never_panic() {
    let data = onnx_data();
    let mut panics = Vec::new();
    for path in ["pytorch-operator", "pytorch-converted"].iter().flat_map(|kind| onnx_files(&data.join(kind))) {
        let (name, proto) = (path.display().to_string(), load(&path));
        for_each_bend(&proto, &mut |what, bent| survive(&mut panics, &name, what, bent, upgrade));
    }
    assert_none(&panics);
}
