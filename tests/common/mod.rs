//! What the integration tests share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};

use isaac::proto::tensor_shape_proto::{Dimension, dimension};
use isaac::proto::type_proto::{Tensor, Value};
use isaac::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

/// A fixture's file.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// An export with dynamic axes.
pub fn export(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports").join(format!("{name}.onnx"))
}

/// The backend test data of the onnx package.
pub fn onnx_data() -> PathBuf {
    let folder = std::env::var("ISAAC_ONNX_DATA").expect(
        "ISAAC_ONNX_DATA names the backend test data of the onnx 1.16.2 package; `cargo xtask test` installs it and sets this",
    );
    PathBuf::from(folder)
}

/// Every .onnx file below a folder, sorted.
pub fn onnx_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "onnx") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A float tensor of this shape, as a graph input or output.
pub fn tensor(name: &str, shape: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension { value: Some(dimension::Value::DimValue(size)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let value = Value::TensorType(Tensor { elem_type: Some(1), shape: Some(shape) });
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(value), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

/// A model of opset 17.
pub fn model(nodes: Vec<NodeProto>, input: Vec<ValueInfoProto>, output: Vec<ValueInfoProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        graph: Some(GraphProto { node: nodes, name: Some("graph".into()), input, output, ..GraphProto::default() }),
        ..ModelProto::default()
    }
}
