//! Forward models by hand, whose operators, attributes and constants say the most about shapes.

use isaac::model::NodeExt;
use isaac::proto::attribute_proto::AttributeType;
use isaac::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use crate::common::{model, tensor};

fn floats(name: &str, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        float_data: vec![0.5; dims.iter().product::<i64>() as usize],
        ..TensorProto::default()
    }
}

/// A forward pass through the operators on images, with the pads and sizes that they can have.
pub(crate) fn spatial() -> ModelProto {
    let constant =
        |name: &str, tensor: TensorProto| NodeProto::build("", "Constant", &[], &[name]).with_tensor("value", tensor);
    let ints = |name: &str, values: &[i64]| constant(name, TensorProto::of_ints(values));
    let op = |op_type: &str, inputs: &[&str], output: &str| NodeProto::build("", op_type, inputs, &[output]);
    let nodes = vec![
        ints("pads", &[0, 0, 1, 2, 0, 0, 1, 0]),
        ints("negative", &[0, 0, -1, 0, 0, 0, 0, -1]),
        ints("sizes", &[1, 2, 6, 5]),
        ints("image_shape", &[4, 5]),
        ints("block", &[2, 1]),
        constant("scales", floats("", &[4])),
        op("ConvTranspose", &["image", "kernel"], "wide")
            .with_ints("strides", &[2, 1])
            .with_ints("dilations", &[1, 2])
            .with_ints("pads", &[1, 0, 0, 1])
            .with_ints("output_padding", &[1, 0])
            .with_ints("kernel_shape", &[3, 3])
            .with_int("group", 2),
        op("Conv", &["wide", "depthwise"], "seen")
            .with_ints("strides", &[1, 2])
            .with_ints("kernel_shape", &[3, 3])
            .with_int("group", 4),
        op("MaxPool", &["seen"], "largest")
            .with_ints("kernel_shape", &[2, 2])
            .with_ints("pads", &[1, 0, 1, 0])
            .with_ints("dilations", &[2, 1])
            .with_int("ceil_mode", 0)
            .with_int("storage_order", 0),
        op("AveragePool", &["largest"], "average")
            .with_ints("kernel_shape", &[3, 3])
            .with_ints("strides", &[2, 1])
            .with_ints("pads", &[1, 1, 1, 1])
            .with_int("ceil_mode", 1)
            .with_int("count_include_pad", 0),
        op("LpPool", &["average"], "normed")
            .with_ints("kernel_shape", &[2, 2])
            .with_ints("pads", &[0, 1, 1, 0])
            .with_int("p", 2),
        op("Pad", &["normed", "pads"], "padded"),
        op("Pad", &["padded", "negative"], "cut"),
        op("Resize", &["cut", "", "", "sizes"], "resized"),
        op("Resize", &["resized", "", "scales"], "scaled"),
        op("DepthToSpace", &["wide"], "space").with_int("blocksize", 2),
        op("SpaceToDepth", &["space"], "depth").with_int("blocksize", 2),
        op("LRN", &["depth"], "local").with_int("size", 3),
        op("MeanVarianceNormalization", &["local"], "standard").with_ints("axes", &[0, 2, 3]),
        op("LpNormalization", &["standard"], "unit").with_int("axis", 1).with_int("p", 2),
        op("GroupNormalization", &["unit", "scale", "scale"], "grouped").with_int("num_groups", 2),
        op("GlobalLpPool", &["grouped"], "global").with_int("p", 2),
        op("Col2Im", &["columns", "image_shape", "block"], "drawn")
            .with_ints("strides", &[1, 2])
            .with_ints("pads", &[0, 0, 0, 1])
            .with_ints("dilations", &[1, 1]),
        op("GlobalAveragePool", &["scaled"], "left"),
        op("GlobalAveragePool", &["drawn"], "right"),
        op("Sum", &["left", "right", "global"], "y"),
    ];
    let mut proto = model(nodes, vec![tensor("image", &[1, 2, 5, 5])], vec![tensor("y", &[1, 4, 1, 1])]);
    let graph = proto.graph.as_mut().expect("a graph");
    graph.value_info = vec![tensor("seen", &[1, 4, 8, 4]), tensor("average", &[1, 4, 5, 3])];
    graph.initializer = vec![
        floats("kernel", &[2, 2, 3, 3]),
        floats("depthwise", &[4, 1, 3, 3]),
        floats("scale", &[2]),
        floats("columns", &[1, 8, 12]),
    ];
    proto
}

/// A forward pass through the operators whose attributes and constants say the most about shapes.
pub(crate) fn shapely() -> ModelProto {
    let ints = |values: &[i64]| TensorProto::of_ints(values);
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
    let mut proto = model(nodes, vec![tensor("image", &[1, 2, 5, 5])], vec![tensor("y", &[2, 1])]);
    let graph = proto.graph.as_mut().expect("a graph");
    graph.value_info = vec![tensor("padded", &[2, 3, 3]), tensor("tiled", &[1, 6, 6])];
    graph.initializer = vec![floats("w", &[24]), floats("kernel", &[2, 2, 3, 3]), floats("scale", &[2])];
    proto
}

/// A forward pass through operators that are made of others, and through those that choose elements.
pub(crate) fn composed() -> ModelProto {
    let op = |op_type: &str, inputs: &[&str], outputs: &[&str]| NodeProto::build("", op_type, inputs, outputs);
    let constant =
        |name: &str, values: &[i64]| op("Constant", &[], &[name]).with_tensor("value", TensorProto::of_ints(values));
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
