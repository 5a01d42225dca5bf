//! Models that no tool would write: every attribute, constant and declared shape of real graphs bent, one at a time. The answer may be a
//! result or an error, and is never a panic.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use isaac::autodiff::lower_gradients;
use isaac::model::{Model, NodeExt};
use isaac::proto::attribute_proto::AttributeType;
use isaac::proto::type_proto::Value;
use isaac::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, ValueInfoProto,
};
use isaac::rewrite::{Analysis, Choice, Reason};
use prost::Message;

use common::{fixture, model, onnx_files, tensor};

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
fn survive(panics: &mut Vec<String>, name: &str, what: &str, bent: &ModelProto, work: fn(&Model)) {
    let bytes = bent.encode_to_vec();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if let Ok(model) = Model::from_bytes(name, bytes.into()) {
            work(&model);
        }
    }));
    if outcome.is_err() {
        panics.push(format!("{name}: {what}"));
    }
}

fn rewrite(model: &Model) {
    if let Ok(analysis) = Analysis::new(model, &[]) {
        let choice = Choice { allow: Reason::ALL.into(), ..Choice::default() };
        if let Ok(chosen) = analysis.choose(&choice) {
            model.to_bytes(&chosen.edit(1.0));
        }
    }
}

fn differentiate(model: &Model) {
    if let Ok(edit) = lower_gradients(model) {
        model.to_bytes(&edit);
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

/// A forward pass through the operators whose attributes and constants say the most about shapes.
fn shapely() -> ModelProto {
    let ints = |values: &[i64]| isaac::proto::TensorProto::of_ints(values);
    let constant =
        |name: &str, values: &[i64]| NodeProto::build("", "Constant", &[], &[name]).with_tensor("value", ints(values));
    let op = |op_type: &str, inputs: &[&str], output: &str| NodeProto::build("", op_type, inputs, &[output]);
    let nodes = vec![
        constant("shape", &[2, 3, 4]),
        constant("starts", &[1, 0]),
        constant("ends", &[3, 3]),
        constant("axes", &[1, 2]),
        constant("steps", &[1, 2]),
        constant("pads", &[0, 0, 1, 0, 1, 0]),
        constant("parts", &[1, 1]),
        constant("repeats", &[1, 2, 1]),
        constant("indices", &[0, 1, 0]),
        constant("one", &[1]),
        op("Reshape", &["w", "shape"], "reshaped"),
        op("Transpose", &["reshaped"], "transposed").with_ints("perm", &[1, 0, 2]),
        op("Transpose", &["transposed"], "back").with_ints("perm", &[1, 0, 2]),
        op("Slice", &["back", "starts", "ends", "axes", "steps"], "sliced"),
        op("Pad", &["sliced", "pads"], "padded"),
        NodeProto::build("", "Split", &["padded", "parts"], &["left", "right"]).with_int("axis", 0),
        op("Concat", &["left", "right"], "joined").with_int("axis", 2),
        op("Tile", &["joined", "repeats"], "tiled"),
        op("Gather", &["tiled", "indices"], "gathered").with_int("axis", 1),
        op("Softmax", &["gathered"], "soft").with_int("axis", -1),
        op("ReduceSum", &["soft", "one"], "summed").with_int("keepdims", 0),
        op("ReduceMean", &["summed"], "mean").with_ints("axes", &[1]).with_int("keepdims", 1),
        op("Unsqueeze", &["mean", "one"], "deep"),
        op("Squeeze", &["deep", "one"], "flat"),
        op("Flatten", &["flat"], "matrix").with_int("axis", 1),
        op("Conv", &["image", "kernel"], "seen")
            .with_ints("strides", &[2, 1])
            .with_ints("pads", &[1, 0, 1, 0])
            .with_int("group", 1),
        op("GlobalAveragePool", &["seen"], "pooled"),
        op("Flatten", &["pooled"], "features").with_int("axis", 1),
        op("LayerNormalization", &["features", "scale"], "normal").with_int("axis", -1),
        op("Gemm", &["normal", "matrix"], "y").with_int("transA", 1).with_int("transB", 0),
    ];
    let floats = |name: &str, dims: &[i64]| isaac::proto::TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        float_data: vec![0.5; dims.iter().product::<i64>() as usize],
        ..Default::default()
    };
    let mut proto = model(nodes, vec![tensor("image", &[1, 2, 5, 5])], vec![tensor("y", &[2, 1])]);
    let graph = proto.graph.as_mut().expect("a graph");
    graph.value_info = vec![tensor("padded", &[2, 3, 3]), tensor("tiled", &[1, 6, 6])];
    graph.initializer = vec![floats("w", &[24]), floats("kernel", &[2, 2, 3, 3]), floats("scale", &[2])];
    proto
}

/// A forward pass through operators that are made of others, and through those that choose elements.
fn composed() -> ModelProto {
    let op = |op_type: &str, inputs: &[&str], outputs: &[&str]| NodeProto::build("", op_type, inputs, outputs);
    let constant = |name: &str, values: &[i64]| {
        op("Constant", &[], &[name]).with_tensor("value", isaac::proto::TensorProto::of_ints(values))
    };
    let branch = |op_type: &str| GraphProto {
        node: vec![op(op_type, &["attended"], &["r"])],
        output: vec![ValueInfoProto { name: Some("r".into()), ..ValueInfoProto::default() }],
        ..GraphProto::default()
    };
    let mut choice = op("If", &["is three"], &["chosen"]);
    choice.attribute = ["then_branch", "else_branch"]
        .into_iter()
        .zip(["Tanh", "Neg"])
        .map(|(name, op_type)| AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::Graph as i32),
            g: Some(branch(op_type)),
            ..AttributeProto::default()
        })
        .collect();
    let nodes = vec![
        constant("at", &[-1]),
        constant("first", &[0]),
        constant("sizes", &[1, 1]),
        constant("three", &[3]),
        constant("rows", &[0, 0, 1]),
        constant("flat", &[0, 0, -1]),
        op("LSTM", &["x", "w", "r", "b"], &["all", "last"]).with_int("hidden_size", 2).with_int("layout", 0),
        op("Squeeze", &["all", "sizes"], &["by step"]),
        op("GRU", &["by step", "v", "u"], &["again"]).with_int("linear_before_reset", 1),
        op("Squeeze", &["again", "sizes"], &["steps"]),
        op("SplitToSequence", &["steps", "sizes"], &["sequence"]).with_int("axis", 1).with_int("keepdims", 1),
        op("SequenceAt", &["sequence", "at"], &["one"]),
        op("SequenceErase", &["sequence", "first"], &["shorter"]),
        op("SequenceInsert", &["shorter", "one", "first"], &["longer"]),
        op("ConcatFromSequence", &["longer"], &["together"]).with_int("axis", 1).with_int("new_axis", 0),
        op("Attention", &["together", "steps", "steps"], &["attended"])
            .with_int("q_num_heads", 2)
            .with_int("kv_num_heads", 1)
            .with_int("is_causal", 1),
        op("Shape", &["attended"], &["shape"]),
        op("Gather", &["shape", "first"], &["size"]),
        op("Equal", &["size", "three"], &["is three"]),
        choice,
        op("Einsum", &["chosen", "m"], &["product"]).with_string("equation", "bsd,...dk->bs...k"),
        op("TopK", &["product", "three"], &["largest", ""]).with_int("axis", 2),
        op("CumSum", &["largest", "first"], &["sums"]).with_int("exclusive", 1).with_int("reverse", 0),
        op("GreaterOrEqual", &["rows", "first"], &["kept"]),
        op("Compress", &["sums", "kept"], &["compressed"]).with_int("axis", 0),
        op("ScatterND", &["compressed", "sizes", "m"], &["scattered"]),
        op("Transpose", &["scattered"], &["scores"]).with_ints("perm", &[0, 2, 1]),
        op("SoftmaxCrossEntropyLoss", &["scores", "labels"], &["y"]).with_int("ignore_index", 2),
    ];
    let floats = |name: &str, dims: &[i64]| isaac::proto::TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        float_data: vec![0.5; dims.iter().product::<i64>() as usize],
        ..Default::default()
    };
    let mut proto = model(nodes, vec![tensor("labels", &[3, 2])], vec![tensor("y", &[])]);
    let graph = proto.graph.as_mut().expect("a graph");
    graph.value_info = vec![tensor("together", &[3, 2, 2]), tensor("product", &[3, 2, 4])];
    graph.initializer = vec![
        floats("x", &[3, 2, 4]),
        floats("w", &[1, 8, 4]),
        floats("r", &[1, 8, 2]),
        floats("b", &[1, 16]),
        floats("v", &[1, 6, 2]),
        floats("u", &[1, 6, 2]),
        floats("m", &[2, 4]),
    ];
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
    assert!(
        panics.is_empty(),
        "{} panics, the first of them:\n{}",
        panics.len(),
        panics[..panics.len().min(30)].join("\n")
    );
}

#[test]
fn bent_forward_graphs_never_panic() {
    let mut panics = Vec::new();
    let fixtures =
        ["mlp_gemm_ts17", "lora_merged_ts17", "clip_contrastive_ts17", "handmade_rnn_ts17", "mlp3d_ts15_dynshape"];
    let forward = fixtures.map(|name| (name, load(&fixture(name).join("forward.onnx"))));
    for (name, proto) in forward.into_iter().chain([("shapely", shapely()), ("composed", composed())]) {
        let proto = with_gradient(proto);
        let straight = Model::from_bytes(name, proto.encode_to_vec().into()).expect("a model");
        lower_gradients(&straight).unwrap_or_else(|error| panic!("{name}: {error}"));
        for_each_bend(&proto, &mut |what, bent| survive(&mut panics, name, what, bent, differentiate));
    }
    assert!(
        panics.is_empty(),
        "{} panics, the first of them:\n{}",
        panics.len(),
        panics[..panics.len().min(30)].join("\n")
    );
}
