//! Sequences of tensors, as exporters write `chunk` and `split`: whoever takes an element of a sequence takes the element.

use std::collections::{BTreeSet, HashMap};

use super::Replaced;
use super::scene::Scene;
use crate::model::{Builder, NodeExt, NodeId, ValueId};
use crate::proto::{NodeProto, TensorProto};

/// Longer sequences are not followed.
const MAX_LENGTH: i64 = 4096;

/// Whether an operator makes or reads sequences.
pub(super) fn is_of_sequences(op_type: &str) -> bool {
    op_type.starts_with("Sequence") || ["SplitToSequence", "ConcatFromSequence"].contains(&op_type)
}

/// What takes the place of the nodes that make and read sequences, for each sequence of which the elements and all readers are known.
pub(super) fn resolved(scene: &Scene<'_>) -> Replaced {
    let mut sequences = Sequences { scene, elements: HashMap::new(), nodes: HashMap::new() };
    for &id in scene.index.order() {
        sequences.follow(id);
    }
    let open = sequences.open();
    let Sequences { nodes, .. } = sequences;
    let of_sequence = |id: NodeId| {
        let node = &scene.graph.nodes()[id.0];
        scene.index.inputs(node).chain(scene.index.output(node, 0)).any(|value| open.contains(&value))
    };
    nodes.into_iter().filter(|(id, _)| !of_sequence(*id)).map(|(id, nodes)| (id.0, nodes)).collect()
}

struct Sequences<'s, 'a> {
    scene: &'s Scene<'a>,
    /// By sequence: the names of its elements.
    elements: HashMap<ValueId, Vec<String>>,
    /// By node that makes or reads a known sequence: what takes its place.
    nodes: HashMap<NodeId, Vec<NodeProto>>,
}

impl Sequences<'_, '_> {
    fn follow(&mut self, id: NodeId) {
        let scene = self.scene;
        let node = &scene.graph.nodes()[id.0];
        let Some(output) = scene.index.output(node, 0) else { return };
        if !node.is_standard() {
            return;
        }
        let mut builder = scene.builder(node);
        if let Some(elements) = self.made(&mut builder, node) {
            self.elements.insert(output, elements);
            self.nodes.insert(id, builder.into_nodes());
        } else if self.read(&mut builder, node, &node.output[0]).is_some() {
            self.nodes.insert(id, builder.into_nodes());
        }
    }

    fn elements(&self, node: &NodeProto) -> Option<&Vec<String>> {
        self.elements.get(&self.scene.index.input(node, 0)?)
    }

    /// The elements of the sequence that a node makes.
    fn made(&self, builder: &mut Builder<'_>, node: &NodeProto) -> Option<Vec<String>> {
        match node.op_type() {
            "SequenceConstruct" => Some(node.input.clone()),
            "SequenceEmpty" => Some(Vec::new()),
            "Identity" => self.elements(node).cloned(),
            "SplitToSequence" => parts(self.scene, builder, node),
            "SequenceInsert" => {
                let mut elements = self.elements(node)?.clone();
                let at =
                    if node.input_name(2).is_some() { self.place(node, 2, elements.len())? } else { elements.len() };
                elements.insert(at, node.input_name(1)?.to_owned());
                Some(elements)
            }
            "SequenceErase" => {
                let mut elements = self.elements(node)?.clone();
                let last = elements.len().checked_sub(1)?;
                let at = if node.input_name(1).is_some() { self.place(node, 1, elements.len())? } else { last };
                if at <= last {
                    elements.remove(at);
                }
                Some(elements)
            }
            _ => None,
        }
    }

    /// Appends what gives the result of a node that reads a sequence.
    fn read(&self, builder: &mut Builder<'_>, node: &NodeProto, result: &str) -> Option<()> {
        let elements = match node.op_type() {
            "SequenceAt" | "ConcatFromSequence" | "SequenceLength" => self.elements(node)?,
            _ => return None,
        };
        let value = match node.op_type() {
            "SequenceAt" => elements.get(self.place(node, 1, elements.len())?)?.clone(),
            "SequenceLength" => {
                let length = TensorProto::of_ints(&[elements.len() as i64]);
                builder.constant(TensorProto { dims: Vec::new(), ..length })
            }
            _ if elements.is_empty() => return None,
            _ => {
                let axis = node.int("axis", 0);
                let is_new = node.int("new_axis", 0) != 0;
                let parts: Vec<String> = elements
                    .iter()
                    .map(|part| if is_new { builder.unsqueeze(part, &[axis]) } else { part.clone() })
                    .collect();
                builder.concat(&parts, axis)
            }
        };
        builder.name(&value, result);
        Some(())
    }

    /// A constant position in a sequence, counted from the front; as long as the sequence at most.
    fn place(&self, node: &NodeProto, slot: usize, length: usize) -> Option<usize> {
        let [at] = self.scene.ints(node, slot)?[..] else { return None };
        let at = if at < 0 { at.checked_add(length as i64)? } else { at };
        usize::try_from(at).ok().filter(|&at| at <= length)
    }

    /// The sequences that somebody reads who needs them as sequences.
    fn open(&self) -> BTreeSet<ValueId> {
        let (graph, index) = (self.scene.graph, self.scene.index);
        let mut open = BTreeSet::new();
        for id in index.order().iter().rev() {
            let Some(output) = index.output(&graph.nodes()[id.0], 0) else { continue };
            if !self.elements.contains_key(&output) {
                continue;
            }
            let value = index.value(output);
            let is_left = |reader: &NodeId| {
                let result = index.output(&graph.nodes()[reader.0], 0);
                !self.nodes.contains_key(reader) || result.is_some_and(|result| open.contains(&result))
            };
            let is_open = value.is_output
                || !value.captured_by.is_empty()
                || value.consumers.iter().any(|(reader, _)| is_left(reader));
            if is_open {
                open.insert(output);
            }
        }
        open
    }
}

/// The parts of the tensor that SplitToSequence splits, where there are so many that it can be told.
fn parts(scene: &Scene<'_>, builder: &mut Builder<'_>, node: &NodeProto) -> Option<Vec<String>> {
    let axis = node.int("axis", 0);
    let size = scene.size(node, 0, axis).filter(|size| (0..=i64::from(i32::MAX)).contains(size));
    let x = node.input_name(0)?;
    let part = match node.input_name(1) {
        None => 1,
        Some(split) => {
            let sizes = scene.ints(node, 1)?;
            let is_list = !scene.types.shape(scene.index.find(split)?)?.is_empty();
            if is_list {
                return Some(builder.split(x, axis, &sizes));
            }
            *sizes.first().filter(|&&part| part > 0)?
        }
    };
    let size = size?;
    let count = size / part + i64::from(size % part > 0);
    let sizes: Vec<i64> = (0..count.min(MAX_LENGTH + 1)).map(|i| part.min(size - part * i)).collect();
    let parts = (count <= MAX_LENGTH).then(|| builder.split(x, axis, &sizes))?;
    // ONNX Runtime also drops the axis where a part of size one is asked for, which PyTorch's `unbind` is exported with.
    let keep = part != 1 || node.int("keepdims", 1) != 0;
    Some(if keep { parts } else { parts.iter().map(|part| builder.squeeze(part, &[axis])).collect() })
}
