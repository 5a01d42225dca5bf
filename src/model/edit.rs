use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use tempfile::Builder;

use super::wire::{self, Field};
use super::{Graph, GraphId, Model};
use crate::proto::{NodeProto, OperatorSetIdProto};

/// What is to be changed in a graph.
#[derive(Debug, Clone, Default)]
pub struct GraphEdit {
    /// By position in the file: the nodes that take a node's place; none to remove it.
    pub nodes: BTreeMap<usize, Vec<NodeProto>>,
}

/// What is to be changed in a model; everything else stays byte for byte.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// Changes of graphs.
    pub graphs: BTreeMap<GraphId, GraphEdit>,
    /// Operator sets to import in addition.
    pub opset_imports: Vec<OperatorSetIdProto>,
}

impl Edit {
    /// The file as a list of pieces: slices of the loaded one, and what is new.
    pub(super) fn pieces(&self, model: &Model) -> Vec<Bytes> {
        let mut changed: Vec<(&Field, Vec<Bytes>)> = Vec::new();
        for (id, edit) in &self.graphs {
            match *id {
                GraphId::Main => changed.push((
                    model.graph.record(),
                    graph_pieces(model, &model.graph, edit),
                )),
                GraphId::Algorithm(i) => {
                    let info = &model.training_info[i];
                    if let Some(graph) = info.algorithm() {
                        let inner = vec![(graph.record(), graph_pieces(model, graph, edit))];
                        let payload = splice(model, info.record.payload.clone(), inner);
                        changed.push((&info.record, delimited(&info.record, payload)));
                    }
                }
            }
        }
        let mut pieces = splice(model, 0..model.bytes.len(), changed);
        pieces.extend(
            self.opset_imports
                .iter()
                .map(|import| wire::record(8, import).into()),
        );
        pieces
    }

    pub(super) fn write(&self, model: &Model, path: &Path) -> std::io::Result<()> {
        // The usual permissions of a new file (the umask is applied), not the private ones of a temporary file.
        let permissions = std::fs::Permissions::from_mode(0o666);
        let mut file = Builder::new()
            .permissions(permissions)
            .prefix(".isaac-")
            .tempfile_in(folder(path))?;
        for piece in self.pieces(model) {
            file.write_all(&piece)?;
        }
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

/// The folder that holds `path`.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The graph's record with `edit` applied.
fn graph_pieces(model: &Model, graph: &Graph, edit: &GraphEdit) -> Vec<Bytes> {
    let changed = edit.nodes.iter().map(|(&position, nodes)| {
        (
            &graph.node_records()[position],
            nodes
                .iter()
                .map(|node| wire::record(1, node).into())
                .collect(),
        )
    });
    delimited(
        graph.record(),
        splice(model, graph.record().payload.clone(), changed.collect()),
    )
}

/// Tag and length of `record` with a payload of another length.
fn delimited(record: &Field, payload: Vec<Bytes>) -> Vec<Bytes> {
    let length = payload.iter().map(Bytes::len).sum();
    std::iter::once(wire::delimiter(record.number, length).into())
        .chain(payload)
        .collect()
}

/// The bytes of `range`, with some of the records in it replaced.
fn splice(
    model: &Model,
    range: std::ops::Range<usize>,
    mut changed: Vec<(&Field, Vec<Bytes>)>,
) -> Vec<Bytes> {
    changed.sort_by_key(|(field, _)| field.record.start);
    let mut pieces = Vec::new();
    let mut at = range.start;
    for (field, replacement) in changed {
        pieces.push(model.slice(at..field.record.start));
        pieces.extend(replacement);
        at = field.record.end;
    }
    pieces.push(model.slice(at..range.end));
    pieces
}
