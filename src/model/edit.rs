use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use super::wire::{self, Field};
use super::{Graph, GraphId, Model, Producer, TensorType, Value, canonical_domain};
use crate::proto::{NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use crate::replace::Written;

/// What is to be changed in a graph.
#[derive(Debug, Clone, Default)]
pub struct GraphEdit {
    /// By position in the file: the nodes that take a node's place; none to remove it.
    pub nodes: BTreeMap<usize, Vec<NodeProto>>,
    /// By position: the tensors that take the place of dense initializers.
    pub initializers: BTreeMap<usize, TensorProto>,
    /// By position in the file: inputs that are none any more.
    pub fewer_inputs: BTreeSet<usize>,
    /// Nodes behind all others.
    pub more_nodes: Vec<NodeProto>,
    /// Inputs behind all others.
    pub more_inputs: Vec<ValueInfoProto>,
    /// Outputs behind all others.
    pub more_outputs: Vec<ValueInfoProto>,
    /// Further initializers.
    pub more_initializers: Vec<TensorProto>,
}

/// What is to be changed in a model; everything else stays byte for byte.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// Changes of graphs.
    pub graphs: BTreeMap<GraphId, GraphEdit>,
    /// By domain: the version to import, in place of the one that the model imports.
    pub opsets: BTreeMap<String, i64>,
    /// By key: metadata properties, in place of those that the model has.
    pub metadata: BTreeMap<String, String>,
    /// The version of the ONNX IR.
    pub ir_version: Option<i64>,
}

impl GraphEdit {
    /// Adds an input with a default, which is its type as well.
    pub(crate) fn add_input(&mut self, name: &str, default: TensorProto) {
        self.more_inputs.push(TensorType::of_tensor(&default).declare(name));
        self.more_initializers.push(TensorProto { name: Some(name.to_owned()), ..default });
    }

    /// Makes an input of an initializer, which becomes its default, unless it is one already.
    pub(crate) fn feed(&mut self, value: &Value, tensor: &TensorType) {
        if matches!(value.producer, Producer::Initializer(_)) {
            self.more_inputs.push(tensor.declare(&value.name));
        }
    }

    fn add(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.initializers.extend(other.initializers);
        self.fewer_inputs.extend(other.fewer_inputs);
        self.more_nodes.extend(other.more_nodes);
        self.more_inputs.extend(other.more_inputs);
        self.more_outputs.extend(other.more_outputs);
        self.more_initializers.extend(other.more_initializers);
    }
}

impl From<GraphEdit> for Edit {
    /// The changes of a main graph.
    fn from(graph: GraphEdit) -> Self {
        Self { graphs: [(GraphId::Main, graph)].into(), ..Self::default() }
    }
}

/// A stretch of the output.
enum Piece {
    /// This range of the loaded file.
    Old(Range<usize>),
    /// Bytes that the loaded file does not have.
    New(Vec<u8>),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Old(range) => range.len(),
            Self::New(bytes) => bytes.len(),
        }
    }
}

impl Edit {
    /// Both changes of one model. Where both replace the same thing, that of `other` counts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (id, changes) in other.graphs {
            self.graphs.entry(id).or_default().add(changes);
        }
        self.opsets.extend(other.opsets);
        self.metadata.extend(other.metadata);
        self.ir_version = other.ir_version.or(self.ir_version);
        self
    }

    /// The whole output.
    pub(super) fn bytes(&self, model: &Model) -> Vec<u8> {
        let mut output = Vec::new();
        for piece in self.pieces(model) {
            match piece {
                Piece::Old(range) => output.extend_from_slice(&model.bytes[range]),
                Piece::New(bytes) => output.extend(bytes),
            }
        }
        output
    }

    fn pieces(&self, model: &Model) -> Vec<Piece> {
        let mut changed: Vec<(&Field, Vec<Piece>)> = Vec::new();
        for (id, edit) in &self.graphs {
            match *id {
                GraphId::Main => changed.push((model.graph.record(), graph_pieces(&model.graph, edit))),
                GraphId::Algorithm(i) => {
                    let info = &model.training_info[i];
                    if let Some(graph) = info.algorithm() {
                        let inner = vec![(graph.record(), graph_pieces(graph, edit))];
                        let payload = splice(info.record.payload.clone(), inner);
                        changed.push((&info.record, delimited(&info.record, payload)));
                    }
                }
            }
        }
        let mut added = Vec::new();
        for (domain, version) in &self.opsets {
            let import = OperatorSetIdProto { domain: Some(domain.clone()), version: Some(*version) };
            let is_same = |old: &OperatorSetIdProto| canonical_domain(old.domain()) == canonical_domain(domain);
            put(&model.opset_imports, is_same, wire::record(8, &import), &mut changed, &mut added);
        }
        for (key, value) in &self.metadata {
            let entry = StringStringEntryProto { key: Some(key.clone()), value: Some(value.clone()) };
            let is_same = |old: &StringStringEntryProto| old.key() == key;
            put(&model.metadata, is_same, wire::record(14, &entry), &mut changed, &mut added);
        }
        // Of a field that is no list, the last record counts.
        added.extend(self.ir_version.map(|version| Piece::New(wire::number(1, version))));
        splice(0..model.bytes.len(), changed).into_iter().chain(added).collect()
    }

    /// Writes the model with this edit beside `path`.
    pub(super) fn write(&self, model: &Model, path: &Path) -> std::io::Result<Written> {
        let pieces = self.pieces(model);
        if pieces.iter().map(Piece::len).sum::<usize>() > i32::MAX as usize {
            return Err(std::io::Error::other("the model would be larger than 2 GB, which protobuf does not allow"));
        }
        Written::new(path, |file| {
            pieces.into_iter().try_for_each(|piece| match piece {
                Piece::Old(range) => copy_range(model, range, file),
                Piece::New(bytes) => file.write_all(&bytes),
            })
        })
    }
}

/// Puts a record in the place of those that mean the same, or else behind all others.
fn put<'a, T>(
    records: &'a [(Field, T)],
    is_same: impl Fn(&T) -> bool,
    record: Vec<u8>,
    changed: &mut Vec<(&'a Field, Vec<Piece>)>,
    added: &mut Vec<Piece>,
) {
    let mut same = records.iter().filter(|(_, old)| is_same(old)).map(|(field, _)| field);
    match same.next() {
        Some(first) => changed.push((first, vec![Piece::New(record)])),
        None => added.push(Piece::New(record)),
    }
    changed.extend(same.map(|field| (field, Vec::new())));
}

/// Appends a range of the loaded file: by the kernel from file to file, which spares a page fault for every page of a map, or else
/// through the map.
fn copy_range(model: &Model, mut range: Range<usize>, output: &mut File) -> std::io::Result<()> {
    if let Some(source) = &model.file {
        let mut offset = range.start as u64;
        while !range.is_empty() {
            match rustix::fs::copy_file_range(source, Some(&mut offset), &mut *output, None, range.len()) {
                Ok(count) if count > 0 => range.start += count,
                // Not on these file systems, or not for this file.
                _ => break,
            }
        }
    }
    output.write_all(&model.bytes[range])
}

/// The graph's record with `edit` applied.
fn graph_pieces(graph: &Graph, edit: &GraphEdit) -> Vec<Piece> {
    let changed = edit.nodes.iter().map(|(&position, nodes)| {
        let new = nodes.iter().map(|node| Piece::New(wire::record(1, node))).collect();
        (&graph.node_records()[position], new)
    });
    let replaced = edit.initializers.iter().map(|(&position, tensor)| {
        (graph.initializers()[position].record(), vec![Piece::New(wire::record(5, tensor))])
    });
    let gone = edit.fewer_inputs.iter().map(|&position| (&graph.input_records()[position], Vec::new()));
    let mut pieces = splice(graph.record().payload.clone(), changed.chain(replaced).chain(gone).collect());
    pieces.extend(edit.more_nodes.iter().map(|node| Piece::New(wire::record(1, node))));
    pieces.extend(edit.more_initializers.iter().map(|tensor| Piece::New(wire::record(5, tensor))));
    pieces.extend(edit.more_inputs.iter().map(|input| Piece::New(wire::record(11, input))));
    pieces.extend(edit.more_outputs.iter().map(|output| Piece::New(wire::record(12, output))));
    delimited(graph.record(), pieces)
}

/// Tag and length of `record` with a payload of another length.
fn delimited(record: &Field, payload: Vec<Piece>) -> Vec<Piece> {
    let length = payload.iter().map(Piece::len).sum();
    std::iter::once(Piece::New(wire::delimiter(record.number, length))).chain(payload).collect()
}

/// The bytes of `range`, with some of the records in it replaced.
fn splice(range: Range<usize>, mut changed: Vec<(&Field, Vec<Piece>)>) -> Vec<Piece> {
    changed.sort_by_key(|(field, _)| field.record.start);
    let mut pieces = Vec::new();
    let mut at = range.start;
    for (field, replacement) in changed {
        pieces.push(Piece::Old(at..field.record.start));
        pieces.extend(replacement);
        at = field.record.end;
    }
    pieces.push(Piece::Old(at..range.end));
    pieces
}
