use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::check::byte_size;
use super::types::TensorType;
use super::wire::{self, Field};
use super::{ModelError, NodeExt};
use crate::proto::{NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};

/// The head of a `TensorProto`: what it is, without its payload. The decoder steps over the fields that are not named here.
#[derive(Clone, PartialEq, prost::Message)]
struct TensorHead {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    data_type: Option<i32>,
    #[prost(string, optional, tag = "8")]
    name: Option<String>,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
    #[prost(int32, optional, tag = "14")]
    data_location: Option<i32>,
}

/// The head of a `SparseTensorProto`: the name is that of its values.
#[derive(Clone, PartialEq, prost::Message)]
struct SparseHead {
    #[prost(message, optional, tag = "1")]
    values: Option<TensorHead>,
}

/// A constant, or the default of an input: a tensor of the file that is decoded only on request.
#[derive(Debug, Clone)]
pub struct Initializer {
    head: TensorHead,
    message: Bytes,
    sparse: bool,
    record: Field,
}

impl Initializer {
    /// The value's name.
    pub fn name(&self) -> &str {
        self.head.name()
    }

    /// Element type and shape; of a sparse tensor, the element type only.
    pub fn tensor_type(&self) -> TensorType {
        let shape = (!self.sparse).then(|| TensorType::known(&self.head.dims)).flatten();
        TensorType { elem: self.head.data_type(), shape }
    }

    /// The whole tensor, decoded; `None` for a sparse one or a damaged one. Costs time and memory of the tensor's size.
    pub fn tensor(&self) -> Option<TensorProto> {
        (!self.sparse).then(|| TensorProto::decode(self.message.clone()).ok()).flatten()
    }

    /// The message as the file has it.
    pub(crate) fn message(&self) -> &Bytes {
        &self.message
    }

    pub(super) fn record(&self) -> &Field {
        &self.record
    }

    pub(super) fn elem(&self) -> i32 {
        self.head.data_type()
    }

    pub(super) fn dims(&self) -> &[i64] {
        &self.head.dims
    }

    /// How many bytes its data have, where that is known.
    pub(super) fn byte_size(&self) -> Option<u64> {
        byte_size(self.head.data_type(), &self.head.dims)
    }

    /// Whether it is dense, and its data are in the file.
    pub(super) fn is_inline(&self) -> bool {
        !self.sparse && self.external_data().is_none()
    }

    pub(super) fn external_data(&self) -> Option<&[StringStringEntryProto]> {
        is_external(self.head.data_location()).then_some(&self.head.external_data)
    }
}

pub(super) fn is_external(location: i32) -> bool {
    location == crate::proto::tensor_proto::DataLocation::External as i32
}

/// A graph of a model file.
#[derive(Debug)]
pub struct Graph {
    nodes: Vec<NodeProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    value_info: Vec<ValueInfoProto>,
    initializers: Vec<Initializer>,
    record: Field,
    node_records: Vec<Field>,
    input_records: Vec<Field>,
}

impl Graph {
    pub(super) fn decode(path: &Path, bytes: &Bytes, record: Field) -> Result<Self, ModelError> {
        let mut graph = Self {
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            value_info: Vec::new(),
            initializers: Vec::new(),
            node_records: Vec::new(),
            input_records: Vec::new(),
            record,
        };
        let fields = wire::fields(bytes, graph.record.payload.clone())
            .map_err(|source| ModelError::Wire { path: path.into(), source })?;
        for field in fields {
            let payload = bytes.slice(field.payload.clone());
            let invalid = |part: String| move |source| ModelError::Decode { path: path.into(), part, source };
            match field.number {
                1 => {
                    let part = format!("node {} of the graph", graph.nodes.len());
                    graph.nodes.push(NodeProto::decode(payload).map_err(invalid(part))?);
                    graph.node_records.push(field);
                }
                5 => graph.initializers.push(Initializer {
                    head: TensorHead::decode(payload.clone()).map_err(invalid("initializer".into()))?,
                    message: payload,
                    sparse: false,
                    record: field,
                }),
                11 => {
                    graph.inputs.push(ValueInfoProto::decode(payload).map_err(invalid("graph input".into()))?);
                    graph.input_records.push(field);
                }
                12 => graph.outputs.push(ValueInfoProto::decode(payload).map_err(invalid("graph output".into()))?),
                13 => graph.value_info.push(ValueInfoProto::decode(payload).map_err(invalid("value_info".into()))?),
                15 => graph.initializers.push(Initializer {
                    head: SparseHead::decode(payload.clone())
                        .map_err(invalid("sparse_initializer".into()))?
                        .values
                        .unwrap_or_default(),
                    message: payload,
                    sparse: true,
                    record: field,
                }),
                _ => {}
            }
        }
        Ok(graph)
    }

    /// The nodes, in file order.
    pub fn nodes(&self) -> &[NodeProto] {
        &self.nodes
    }

    /// The graph's inputs, those with a default included.
    pub fn inputs(&self) -> &[ValueInfoProto] {
        &self.inputs
    }

    /// The graph's outputs.
    pub fn outputs(&self) -> &[ValueInfoProto] {
        &self.outputs
    }

    /// What the file says of the types of inner values.
    pub fn value_info(&self) -> &[ValueInfoProto] {
        &self.value_info
    }

    /// Constants and defaults, dense and sparse.
    pub fn initializers(&self) -> &[Initializer] {
        &self.initializers
    }

    pub(super) fn record(&self) -> &Field {
        &self.record
    }

    pub(super) fn node_records(&self) -> &[Field] {
        &self.node_records
    }

    pub(super) fn input_records(&self) -> &[Field] {
        &self.input_records
    }

    /// Calls `visit` for every tensor that has its payload outside the file, but for the initializers at the positions `without`.
    pub(super) fn for_each_external(&self, without: &BTreeSet<usize>, visit: &mut impl FnMut(External<'_>)) {
        for (at, initializer) in self.initializers.iter().enumerate() {
            if let Some(entries) = initializer.external_data().filter(|_| !without.contains(&at)) {
                visit(External { name: initializer.name(), size: initializer.byte_size(), entries });
            }
        }
        for_each_tensor(&self.nodes, &mut |name, tensor| {
            if is_external(tensor.data_location() as i32) {
                visit(External::of(name, tensor));
            }
        });
    }
}

/// A tensor whose payload lies outside the file.
pub(super) struct External<'a> {
    pub(super) name: &'a str,
    /// How many bytes its payload has, where that is known.
    pub(super) size: Option<u64>,
    pub(super) entries: &'a [StringStringEntryProto],
}

impl<'a> External<'a> {
    fn of(name: &'a str, tensor: &'a TensorProto) -> Self {
        Self { name, size: byte_size(tensor.data_type(), &tensor.dims), entries: &tensor.external_data }
    }
}

/// Calls `visit` with each tensor that `nodes` hold in attributes and subgraphs, and what it is called; that of an attribute as the node's first
/// output.
pub(super) fn for_each_tensor<'a>(nodes: &'a [NodeProto], visit: &mut impl FnMut(&'a str, &'a TensorProto)) {
    for node in nodes {
        let name = node.output.first().map_or("", String::as_str);
        for tensor in node.attribute.iter().flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors)) {
            visit(name, tensor);
        }
        for graph in node.subgraphs() {
            for tensor in &graph.initializer {
                visit(tensor.name(), tensor);
            }
            for_each_tensor(&graph.node, visit);
        }
    }
}
