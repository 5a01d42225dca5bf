//! Loop and Scan that run their body a known number of times: the body so often, one after the other.

use super::inline::{give, subgraph};
use super::scene::Scene;
use crate::autodiff::step::Refusal;
use crate::model::{NodeExt, from_front};
use crate::proto::tensor_proto::DataType;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// More iterations are not written out.
const MAX_ITERATIONS: i64 = 256;

/// The iterations of a Loop of a constant trip count, whose condition never changes.
pub(super) fn repeated(scene: &Scene<'_>, node: &NodeProto) -> Result<Vec<NodeProto>, Refusal> {
    let body = body(node)?;
    let count = match scene.ints(node, 0).as_deref() {
        Some([count]) => iterations(*count)?,
        _ => return Err("how often it runs its body depends on the data".into()),
    };
    let starts_true = node.input_name(1).is_none() || scene.truth(node, 1) == Some(true);
    if !starts_true || !goes_on(body) {
        return Err("whether it goes on depends on the data".into());
    }
    let mut b = scene.builder(node);
    let mut carried: Vec<String> = node.input.iter().skip(2).cloned().collect();
    let mut stacked = Vec::new();
    let condition = b.constant(TensorProto {
        dims: Vec::new(),
        data_type: Some(DataType::Bool as i32),
        raw_data: Some(vec![1].into()),
        ..TensorProto::default()
    });
    for at in 0..count {
        let inputs: Vec<String> = [b.int(at), condition.clone()].into_iter().chain(carried.clone()).collect();
        let mut outputs = subgraph(&mut b, node, "body", &inputs)?;
        if outputs.len() <= carried.len() {
            return Err(format!("its body has {} outputs and carries {} values", outputs.len(), carried.len()));
        }
        let scanned = outputs.split_off(1 + carried.len());
        carried = outputs.split_off(1);
        stacked.push(scanned);
    }
    let mut results = carried;
    for slot in 0..node.output.len().saturating_sub(results.len()) {
        let parts = column(&stacked, slot)?;
        let parts: Vec<String> = parts.iter().map(|part| b.unsqueeze(part, &[0])).collect();
        results.push(b.concat(&parts, 0));
    }
    give(&mut b, &results, node);
    Ok(b.into_nodes())
}

/// The steps of a Scan along axes of a known size.
pub(super) fn scanned(scene: &Scene<'_>, node: &NodeProto) -> Result<Vec<NodeProto>, Refusal> {
    let body = body(node)?;
    let inputs =
        usize::try_from(node.int("num_scan_inputs", 0)).ok().filter(|&count| (1..=node.input.len()).contains(&count));
    let inputs = inputs.ok_or("num_scan_inputs")?;
    let states = node.input.len() - inputs;
    let setting = |name: &str, at: usize| node.ints(name).and_then(|list| list.get(at)).copied().unwrap_or(0);
    let mut b = scene.builder(node);
    let mut columns = Vec::new();
    for at in 0..inputs {
        let slot = states + at;
        let rank = scene.shape(node, slot).map(<[_]>::len).ok_or("the rank of what it scans is not known")?;
        let axis = from_front(setting("scan_input_axes", at), rank).ok_or("scan_input_axes")? as i64;
        let count = iterations(scene.size(node, slot, axis).ok_or("how many steps it makes depends on sizes")?)?;
        let parts = b.split(&node.input[slot], axis, &vec![1; count as usize]);
        let mut parts: Vec<String> = parts.iter().map(|part| b.squeeze(part, &[axis])).collect();
        if setting("scan_input_directions", at) != 0 {
            parts.reverse();
        }
        columns.push(parts);
    }
    let steps = columns[0].len();
    if columns.iter().any(|column| column.len() != steps) {
        return Err("what it scans is not of one length".into());
    }
    let mut state = node.input[..states].to_vec();
    let mut stacked = Vec::new();
    for step in 0..steps {
        let inputs: Vec<String> =
            state.iter().cloned().chain(columns.iter().map(|column| column[step].clone())).collect();
        state = subgraph(&mut b, node, "body", &inputs)?;
        if state.len() < states {
            return Err(format!("its body has {} outputs and carries {states} values", state.len()));
        }
        stacked.push(state.split_off(states));
    }
    let mut results = state;
    for slot in 0..body.output.len() - states {
        let mut parts = column(&stacked, slot)?;
        if setting("scan_output_directions", slot) != 0 {
            parts.reverse();
        }
        let axis = setting("scan_output_axes", slot);
        let parts: Vec<String> = parts.iter().map(|part| b.unsqueeze(part, &[axis])).collect();
        results.push(b.concat(&parts, axis));
    }
    give(&mut b, &results, node);
    Ok(b.into_nodes())
}

fn body(node: &NodeProto) -> Result<&GraphProto, Refusal> {
    Ok(NodeExt::attribute(node, "body").and_then(|attribute| attribute.g.as_ref()).ok_or("it has no body")?)
}

fn iterations(count: i64) -> Result<i64, Refusal> {
    if (1..=MAX_ITERATIONS).contains(&count) {
        return Ok(count);
    }
    Err(format!("it runs its body {count} times, and from 1 to {MAX_ITERATIONS} can be written out"))
}

/// What every iteration gives for one result.
fn column(stacked: &[Vec<String>], slot: usize) -> Result<Vec<String>, Refusal> {
    let parts: Option<Vec<String>> = stacked.iter().map(|row| row.get(slot).cloned()).collect();
    parts.ok_or_else(|| "its body has fewer outputs than it".into())
}

/// Whether a Loop's body passes its condition on, or gives a constant true.
fn goes_on(body: &GraphProto) -> bool {
    let (Some(given), Some(mut name)) = (body.input.get(1), body.output.first().map(|output| output.name())) else {
        return false;
    };
    for _ in 0..=body.node.len() {
        if name == given.name() {
            return true;
        }
        if let Some(tensor) = body.initializer.iter().find(|tensor| tensor.name() == name) {
            return is_true(tensor);
        }
        let Some(maker) = body.node.iter().find(|node| node.output.first().is_some_and(|output| output == name)) else {
            return false;
        };
        let constant: Option<&AttributeProto> = NodeExt::attribute(maker, "value");
        match (maker.op_type(), constant.and_then(|constant| constant.t.as_ref())) {
            ("Constant", Some(tensor)) => return is_true(tensor),
            // Exporters make a boolean of a constant integer.
            ("Identity" | "Cast", _) => name = maker.input_name(0).unwrap_or_default(),
            _ => return false,
        }
    }
    false
}

fn is_true(tensor: &TensorProto) -> bool {
    let ints = tensor.int64_elements().or_else(|| tensor.int32_elements());
    tensor.bool_elements() == Some(vec![true])
        || ints.is_some_and(|ints| ints.iter().all(|&int| int != 0) && ints.len() == 1)
}
