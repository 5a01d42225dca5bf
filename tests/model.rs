//! Loading and saving: what no edit touches stays byte for byte, and damaged files are errors.

mod common;

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use isaac::model::{Edit, GraphEdit, GraphId, IndexError, Model, ModelError, NodeExt};
use isaac::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, TrainingInfoProto,
};
use proptest::prelude::*;
use prost::Message;

use common::{fixture, model, onnx_data, onnx_files, tensor};

fn from_bytes(bytes: impl Into<Bytes>) -> Result<Model, ModelError> {
    Model::from_bytes("test.onnx", bytes.into())
}

#[test]
fn every_model_of_the_onnx_package_is_saved_as_it_was_loaded() {
    let files = onnx_files(&onnx_data());
    assert!(files.len() > 1000, "only {} models", files.len());
    let target = tempfile::tempdir().unwrap();
    let output = target.path().join("saved.onnx");
    for file in files {
        let model = Model::load(&file).unwrap_or_else(|error| panic!("{error}"));
        for (id, graph) in model.graphs() {
            model.index(id).unwrap_or_else(|error| panic!("{}: {error}", file.display())).check(graph);
        }
        model.save(&Edit::default(), &output).unwrap();
        assert!(fs::read(&file).unwrap() == fs::read(&output).unwrap(), "{}", file.display());
    }
}

#[test]
fn every_fixture_is_indexed_and_saved_as_it_was_loaded() {
    for file in onnx_files(&fixture("")) {
        let model = Model::load(&file).unwrap();
        for (id, graph) in model.graphs() {
            model.index(id).unwrap_or_else(|error| panic!("{}: {error}", file.display())).check(graph);
        }
        assert!(model.to_bytes(&Edit::default()) == fs::read(&file).unwrap(), "{}", file.display());
    }
}

#[test]
fn a_truncated_file_is_an_error_and_never_a_panic() {
    let whole = Bytes::from(fs::read(fixture("mlp_gemm_ts17/training_model.onnx")).unwrap());
    let loads = |length: usize| from_bytes(whole.slice(..length)).is_ok();
    // Cut between two fields of the model, behind the graph, the rest is a model; anywhere else it is not.
    let accepted = (0..whole.len()).filter(|&length| loads(length)).count();
    assert!(accepted < 20, "{accepted} of {} cuts were accepted", whole.len());
    assert!(matches!(from_bytes(whole.slice(..1000)), Err(ModelError::Wire { .. })));
}

#[test]
fn flipped_bytes_never_panic() {
    let whole = fs::read(fixture("castmix_f16_ts17/training_model.onnx")).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        if let Ok(model) = from_bytes(damaged.clone()) {
            assert!(model.to_bytes(&Edit::default()) == damaged, "byte {at}");
            let _ = isaac::rewrite::Analysis::new(&model, &[]);
        }
    }
}

#[test]
fn what_is_no_model_is_refused() {
    assert!(matches!(from_bytes(Vec::new()), Err(ModelError::GraphCount { count: 0, .. })));
    assert!(matches!(from_bytes(&b"not a model"[..]), Err(ModelError::Wire { .. })));
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Model::load(&folder.path().join("none.onnx")), Err(ModelError::Read { .. })));
    assert!(matches!(Model::load(folder.path()), Err(ModelError::Read { .. })));
    let mut twice = model(Vec::new(), Vec::new(), Vec::new()).encode_to_vec();
    twice.extend(twice.clone());
    assert!(matches!(from_bytes(twice), Err(ModelError::GraphCount { count: 2, .. })));
}

#[test]
fn an_edit_changes_its_node_and_nothing_else() {
    let relu = |input: &str, output: &str| NodeProto::build("", "Relu", &[input], &[output]);
    let nodes = vec![relu("x", "a"), relu("a", "b"), relu("b", "y")];
    let mut original = model(nodes, vec![tensor("x", &[2])], vec![tensor("y", &[2])]);
    let algorithm = original.graph.clone();
    original.training_info = vec![TrainingInfoProto { algorithm, ..TrainingInfoProto::default() }];
    // A field that no release of onnx.proto has, behind everything else.
    let mut bytes = original.encode_to_vec();
    bytes.extend([0xfa, 0x3f, 2, b'h', b'i']);
    let model = from_bytes(bytes.clone()).unwrap();
    for id in [GraphId::Main, GraphId::Algorithm(0)] {
        let replacement =
            vec![NodeProto::build("", "Tanh", &["a"], &["t"]), NodeProto::build("", "Abs", &["t"], &["b"])];
        let graph_edit = GraphEdit { nodes: [(1, replacement.clone())].into(), ..GraphEdit::default() };
        let edited = model.to_bytes(&Edit { graphs: [(id, graph_edit)].into(), ..Edit::default() });
        assert!(edited.ends_with(&[0xfa, 0x3f, 2, b'h', b'i']));
        let mut expected = original.clone();
        let graph: &mut GraphProto = match id {
            GraphId::Main => expected.graph.as_mut().unwrap(),
            GraphId::Algorithm(i) => expected.training_info[i].algorithm.as_mut().unwrap(),
        };
        graph.node.splice(1..2, replacement);
        assert_eq!(ModelProto::decode(edited.as_slice()).unwrap(), expected);
    }
    assert!(model.to_bytes(&Edit::default()) == bytes);
}

#[test]
fn the_index_refuses_graphs_that_cannot_run() {
    let relu = |input: &str, output: &str| NodeProto::build("", "Relu", &[input], &[output]);
    let index = |nodes: Vec<NodeProto>| {
        let bytes = model(nodes, vec![tensor("x", &[2])], Vec::new()).encode_to_vec();
        from_bytes(bytes).unwrap().index(GraphId::Main).map(|_| ()).map_err(|error| match error {
            ModelError::Graph { source, .. } => source,
            other => panic!("{other}"),
        })
    };
    assert_eq!(index(vec![relu("x", "y")]), Ok(()));
    assert!(
        matches!(index(vec![relu("x", "y"), relu("x", "y")]), Err(IndexError::DefinedTwice { name, .. }) if name == "y")
    );
    assert!(matches!(index(vec![relu("x", "x")]), Err(IndexError::DefinedTwice { .. })));
    assert!(matches!(index(vec![relu("z", "y")]), Err(IndexError::Undefined { name, .. }) if name == "z"));
    assert!(matches!(index(vec![relu("b", "a"), relu("a", "b")]), Err(IndexError::Cycle { .. })));
    // A loop through the body of an If.
    let body =
        GraphProto { node: vec![relu("y", "inner")], output: vec![tensor("inner", &[2])], ..GraphProto::default() };
    let mut branch = NodeProto::build("", "If", &["x"], &["y"]);
    branch.attribute =
        vec![AttributeProto { g: Some(body), name: Some("then_branch".into()), ..AttributeProto::default() }];
    assert!(matches!(index(vec![branch]), Err(IndexError::Cycle { .. })));
}

/// A model file with one tensor of four floats in `location`.
fn with_external_data(folder: &std::path::Path, entries: &[(&str, &str)]) -> PathBuf {
    let entry =
        |&(key, value): &(&str, &str)| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    let weight = TensorProto {
        name: Some("w".into()),
        dims: vec![4],
        data_type: Some(1),
        data_location: Some(1),
        external_data: entries.iter().map(entry).collect(),
        ..TensorProto::default()
    };
    let add = NodeProto::build("", "Add", &["x", "w"], &["y"]);
    let mut proto = model(vec![add], vec![tensor("x", &[4])], vec![tensor("y", &[4])]);
    proto.graph.as_mut().unwrap().initializer = vec![weight];
    let path = folder.join("model.onnx");
    fs::write(&path, proto.encode_to_vec()).unwrap();
    path
}

#[test]
fn external_data_is_checked_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("model");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("data.bin"), [0; 32]).unwrap();
    fs::write(folder.path().join("outside.bin"), [0; 32]).unwrap();
    std::os::unix::fs::symlink(folder.path().join("outside.bin"), inner.join("link.bin")).unwrap();
    let outcome = |entries: &[(&str, &str)]| Model::load(&with_external_data(&inner, entries)).map(|_| ());
    for entries in [&[("location", "data.bin")][..], &[("location", "./data.bin"), ("offset", "16"), ("length", "16")]]
    {
        outcome(entries).unwrap();
    }
    for (entries, message) in [
        (&[("location", "missing.bin")][..], "missing.bin"),
        (&[("location", "../outside.bin")], "leaves the model's folder"),
        (&[("location", "/etc/hostname")], "leaves the model's folder"),
        (&[("location", "link.bin")], "by a link"),
        (&[("location", "")], "no location"),
        (&[("location", "data.bin"), ("offset", "17"), ("length", "16")], "ends at byte 33"),
        (&[("location", "data.bin"), ("offset", "x")], "not a number"),
        (&[("location", "data.bin"), ("offset", "18446744073709551615"), ("length", "2")], "overflow"),
    ] {
        let error = outcome(entries).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("'w'") && error.contains("model.onnx"), "{error}");
    }
}

#[test]
fn external_data_goes_along_to_another_folder_and_overwrites_nothing() {
    let source = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("data")).unwrap();
    fs::write(source.path().join("data/w.bin"), [7; 16]).unwrap();
    let model = Model::load(&with_external_data(source.path(), &[("location", "data/w.bin")])).unwrap();
    let output = target.path().join("model.onnx");
    for _ in 0..2 {
        model.save(&Edit::default(), &output).unwrap();
        assert_eq!(fs::read(target.path().join("data/w.bin")).unwrap(), [7; 16]);
        Model::load(&output).unwrap();
    }
    fs::remove_file(&output).unwrap();
    fs::write(target.path().join("data/w.bin"), [8; 16]).unwrap();
    assert!(matches!(model.save(&Edit::default(), &output), Err(ModelError::CopyData { .. })));
    assert_eq!(fs::read(target.path().join("data/w.bin")).unwrap(), [8; 16]);
    assert!(!output.exists());
}

#[test]
fn a_failing_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::load(&fixture("mlp_gemm_ts17/forward.onnx")).unwrap();
    let missing = folder.path().join("no/such/folder/out.onnx");
    assert!(matches!(model.save(&Edit::default(), &missing), Err(ModelError::Write { .. })));
    // A folder cannot be replaced by a file; the temporary file goes away.
    let occupied = folder.path().join("out.onnx");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("inside"), "kept").unwrap();
    assert!(matches!(model.save(&Edit::default(), &occupied), Err(ModelError::Write { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn names() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[a-z/._]{0,6}")
}

fn tensors() -> impl Strategy<Value = TensorProto> {
    (names(), proptest::collection::vec(0_i64..4, 0..3), proptest::collection::vec(any::<f32>(), 0..8), any::<bool>())
        .prop_map(|(name, dims, values, raw)| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
            let (float_data, raw_data) = if raw { (Vec::new(), Some(bytes.into())) } else { (values, None) };
            TensorProto { name, dims, data_type: Some(1), float_data, raw_data, ..TensorProto::default() }
        })
}

fn nodes() -> impl Strategy<Value = NodeProto> {
    (names(), proptest::collection::vec("[a-d]{0,2}", 0..3), proptest::collection::vec("[a-d]{0,2}", 0..3), names())
        .prop_map(|(name, input, output, op_type)| NodeProto { name, input, output, op_type, ..NodeProto::default() })
}

fn graphs() -> impl Strategy<Value = GraphProto> {
    (names(), proptest::collection::vec(nodes(), 0..4), proptest::collection::vec(tensors(), 0..4), names()).prop_map(
        |(name, node, initializer, doc_string)| GraphProto {
            name,
            node,
            initializer,
            doc_string,
            ..GraphProto::default()
        },
    )
}

/// Bytes that no release of onnx.proto gives a meaning: a field of a high number, with a length written in five bytes
/// instead of one.
fn unknown_fields() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5), 0..3).prop_map(|payloads| {
        let field = |payload: Vec<u8>| {
            let length = [payload.len() as u8 | 0x80, 0x80, 0x80, 0x80, 0x00];
            [&[0xfa, 0x3f][..], &length, &payload].concat()
        };
        payloads.into_iter().flat_map(field).collect()
    })
}

proptest! {
    #[test]
    fn generated_models_are_saved_as_they_were_loaded(
        graph in graphs(), algorithm in proptest::option::of(graphs()), front in unknown_fields(), back in unknown_fields(),
    ) {
        let training_info = algorithm.map(|algorithm| TrainingInfoProto { algorithm: Some(algorithm), ..Default::default() });
        let proto = ModelProto { graph: Some(graph), training_info: training_info.into_iter().collect(), ..Default::default() };
        let bytes = [front, proto.encode_to_vec(), back].concat();
        let model = from_bytes(bytes.clone()).unwrap();
        prop_assert!(model.to_bytes(&Edit::default()) == bytes);
        // An edit that puts every node in its own place changes no more than how the graph's length is written.
        let nodes = model.graph().nodes().iter().enumerate().map(|(at, node)| (at, vec![node.clone()])).collect();
        let edited = model.to_bytes(&Edit { graphs: [(GraphId::Main, GraphEdit { nodes, ..GraphEdit::default() })].into(), ..Edit::default() });
        prop_assert!(edited == bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = from_bytes(bytes);
    }
}

#[test]
fn an_edit_adds_and_replaces() {
    let relu = NodeProto::build("", "Relu", &["x"], &["y"]);
    let mut original = model(vec![relu.clone()], vec![tensor("b", &[]), tensor("x", &[2])], vec![tensor("y", &[2])]);
    let named = |name: &str, value: f64| TensorProto { name: Some(name.into()), ..TensorProto::of_float(value, 1) };
    original.graph.as_mut().unwrap().initializer = vec![named("a", 1.0), named("b", 2.0)];
    let entry = |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    original.metadata_props = vec![entry("k", "old"), entry("other", "stays"), entry("k", "again")];
    let loaded = from_bytes(original.encode_to_vec()).unwrap();
    let tanh = NodeProto::build("", "Tanh", &["y"], &["z"]);
    let graph = GraphEdit {
        initializers: [(1, named("b", 3.0))].into(),
        fewer_inputs: [0].into(),
        more_nodes: vec![tanh.clone()],
        more_inputs: vec![tensor("c", &[])],
        more_outputs: vec![tensor("z", &[2])],
        more_initializers: vec![named("c", 4.0)],
        ..GraphEdit::default()
    };
    let edit = Edit {
        graphs: [(GraphId::Main, graph)].into(),
        opsets: [("ai.onnx".to_owned(), 19), ("ai.isaac".to_owned(), 1)].into(),
        metadata: [("k".to_owned(), "new".to_owned()), ("l".to_owned(), "added".to_owned())].into(),
        ir_version: Some(9),
    };
    let edited = ModelProto::decode(loaded.to_bytes(&edit).as_slice()).unwrap();
    let graph = edited.graph.as_ref().unwrap();
    assert_eq!(graph.node, [relu, tanh]);
    assert_eq!(graph.initializer, [named("a", 1.0), named("b", 3.0), named("c", 4.0)]);
    assert_eq!(graph.input, [tensor("x", &[2]), tensor("c", &[])]);
    assert_eq!(graph.output, [tensor("y", &[2]), tensor("z", &[2])]);
    assert_eq!(edited.metadata_props, [entry("k", "new"), entry("other", "stays"), entry("l", "added")]);
    assert_eq!(edited.ir_version, Some(9));
    let edited = from_bytes(edited.encode_to_vec()).unwrap();
    assert_eq!((edited.opset(""), edited.opset("ai.isaac"), edited.ir_version()), (Some(19), Some(1), 9));
}
