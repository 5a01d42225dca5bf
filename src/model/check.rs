//! What ONNX says of every file, and a decoder does not look at: tensors hold as many elements as their dims say, defaults fit their
//! inputs, and nodes stand in an order in which they can be executed. Payloads are measured, not read.

use std::collections::HashMap;

use super::graph::{for_each_tensor, is_external};
use super::index::captured;
use super::{Graph, IndexError, Initializer, Model, ModelError, NodeExt, TensorType, wire};
use crate::proto::tensor_proto::DataType;
use crate::proto::{GraphProto, NodeProto, TensorProto};

/// The fields of a `TensorProto` that hold elements.
const FLOAT_DATA: u32 = 4;
const INT32_DATA: u32 = 5;
const STRING_DATA: u32 = 6;
const INT64_DATA: u32 = 7;
const RAW_DATA: u32 = 9;
const DOUBLE_DATA: u32 = 10;
const UINT64_DATA: u32 = 11;

/// Checks the graphs of `model`. External data is checked where it is looked for.
pub(super) fn check(model: &Model) -> Result<(), ModelError> {
    for (id, graph) in model.graphs() {
        check_tensors(graph).and_then(|()| check_defaults(graph)).map_err(|(tensor, what)| ModelError::Tensor {
            path: model.path.clone(),
            tensor,
            what,
        })?;
        if let Some(source) = unsorted(graph.nodes()) {
            // What has no order at all is told as that.
            model.index(id)?;
            return Err(ModelError::Graph { path: model.path.clone(), source });
        }
    }
    Ok(())
}

/// How many bytes a tensor of these dims takes in `raw_data` or external data; `None` where that is not known.
pub(super) fn byte_size(elem: i32, dims: &[i64]) -> Option<u64> {
    let bits = match DataType::try_from(elem).ok()? {
        DataType::Undefined | DataType::String => return None,
        DataType::Uint2 | DataType::Int2 => 2,
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => 4,
        DataType::Float6e2m3 | DataType::Float6e3m2 => return None,
        DataType::Int16 | DataType::Uint16 | DataType::Float16 | DataType::Bfloat16 => 16,
        DataType::Int32 | DataType::Uint32 | DataType::Float => 32,
        DataType::Int64 | DataType::Uint64 | DataType::Double | DataType::Complex64 => 64,
        DataType::Complex128 => 128,
        _ => 8,
    };
    Some(count(dims)?.checked_mul(bits)?.div_ceil(8))
}

/// The number of elements; `None` where dims are below zero, or the product is out of range.
fn count(dims: &[i64]) -> Option<u64> {
    dims.iter().try_fold(1_u64, |count, &size| count.checked_mul(size.try_into().ok()?))
}

/// The field in which elements of a type are listed, where they are not in `raw_data`, and how many entries `count` elements take there.
fn listed(elem: i32, count: u64) -> Option<(u32, u64)> {
    Some(match DataType::try_from(elem).ok()? {
        DataType::Undefined | DataType::Float6e2m3 | DataType::Float6e3m2 => return None,
        DataType::Float => (FLOAT_DATA, count),
        DataType::Complex64 => (FLOAT_DATA, count.checked_mul(2)?),
        DataType::Double => (DOUBLE_DATA, count),
        DataType::Complex128 => (DOUBLE_DATA, count.checked_mul(2)?),
        DataType::Int64 => (INT64_DATA, count),
        DataType::Uint32 | DataType::Uint64 => (UINT64_DATA, count),
        DataType::String => (STRING_DATA, count),
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => (INT32_DATA, count.div_ceil(2)),
        DataType::Uint2 | DataType::Int2 => (INT32_DATA, count.div_ceil(4)),
        _ => (INT32_DATA, count),
    })
}

/// A tensor, and what does not fit.
type Misfit = (String, String);

fn check_tensors(graph: &Graph) -> Result<(), Misfit> {
    for initializer in graph.initializers().iter().filter(|initializer| initializer.is_inline()) {
        let held = |list| held_by_message(initializer, list);
        check_size(initializer.elem(), initializer.dims(), held)
            .map_err(|what| (initializer.name().to_owned(), what))?;
    }
    let mut checked = Ok(());
    for_each_tensor(graph.nodes(), &mut |name, tensor| {
        if checked.is_ok() {
            checked = check_tensor(tensor).map_err(|what| (name.to_owned(), what));
        }
    });
    checked
}

fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    if is_external(tensor.data_location() as i32) {
        return Ok(());
    }
    check_size(tensor.data_type(), &tensor.dims, |list| held_by_tensor(tensor, list))
}

/// `held` gives the bytes in `raw_data` and the entries of a list.
fn check_size(elem: i32, dims: &[i64], held: impl Fn(u32) -> (u64, u64)) -> Result<(), String> {
    let name = DataType::try_from(elem).map_or("unknown".to_owned(), super::name_of);
    let Some(count) = count(dims) else {
        return Err(format!("no tensor has the dims {dims:?}"));
    };
    let Some((list, entries)) = listed(elem, count) else { return Ok(()) };
    let (bytes, found) = held(list);
    match byte_size(elem, dims) {
        Some(expected) if bytes > 0 && bytes != expected => {
            Err(format!("{name}{dims:?} takes {expected} bytes, and the file holds {bytes}"))
        }
        _ if bytes == 0 && found != entries => {
            Err(format!("{name}{dims:?} takes {entries} numbers, and the file holds {found}"))
        }
        _ => Ok(()),
    }
}

/// The bytes in `raw_data`, and the entries in the field `list`.
fn held_by_message(initializer: &Initializer, list: u32) -> (u64, u64) {
    let message = initializer.message();
    let (mut bytes, mut entries) = (0, 0);
    for field in wire::fields(message, 0..message.len()).unwrap_or_default() {
        let payload = &message[field.payload];
        match field.number {
            RAW_DATA => bytes = payload.len(),
            number if number != list => {}
            FLOAT_DATA if field.delimited => entries += payload.len() / 4,
            DOUBLE_DATA if field.delimited => entries += payload.len() / 8,
            // The last byte of a number has its highest bit clear.
            INT32_DATA | INT64_DATA | UINT64_DATA if field.delimited => {
                entries += payload.iter().filter(|&byte| byte & 0x80 == 0).count();
            }
            _ => entries += 1,
        }
    }
    (bytes as u64, entries as u64)
}

/// The same of a tensor that is decoded.
fn held_by_tensor(tensor: &TensorProto, list: u32) -> (u64, u64) {
    let entries = match list {
        FLOAT_DATA => tensor.float_data.len(),
        DOUBLE_DATA => tensor.double_data.len(),
        INT32_DATA => tensor.int32_data.len(),
        INT64_DATA => tensor.int64_data.len(),
        UINT64_DATA => tensor.uint64_data.len(),
        _ => tensor.string_data.len(),
    };
    (tensor.raw_data().len() as u64, entries as u64)
}

/// An initializer of an input's name is its default, and of its type.
fn check_defaults(graph: &Graph) -> Result<(), Misfit> {
    let inputs: HashMap<&str, TensorType> =
        graph.inputs().iter().filter_map(|input| Some((input.name(), TensorType::of(input)?))).collect();
    for initializer in graph.initializers() {
        let (own, Some(input)) = (initializer.tensor_type(), inputs.get(initializer.name())) else { continue };
        let fits = match (&own.shape, &input.shape) {
            (Some(own), Some(input)) => {
                own.len() == input.len() && own.iter().zip(input).all(|(own, input)| own.compatible(input))
            }
            _ => true,
        };
        if own.elem != input.elem || !fits {
            let what = format!("the graph input of that name is {input}, and its initializer {own}");
            return Err((initializer.name().to_owned(), what));
        }
    }
    Ok(())
}

/// The first node that reads what only a later one makes, in subgraphs too.
fn unsorted(nodes: &[NodeProto]) -> Option<IndexError> {
    let made = |node| outputs(node).map(move |name| (name, node));
    let mut later: HashMap<&str, &NodeProto> = nodes.iter().flat_map(made).collect();
    for node in nodes {
        let mut reads = node.input.iter().map(String::as_str).chain(captured(node));
        if let Some((name, maker)) = reads.find_map(|name| later.get_key_value(name)) {
            return Some(IndexError::Unsorted { node: node.label(), name: (*name).to_owned(), maker: maker.label() });
        }
        if let Some(error) = node.subgraphs().find_map(|GraphProto { node, .. }| unsorted(node)) {
            return Some(error);
        }
        for name in outputs(node) {
            later.remove(name);
        }
    }
    None
}

fn outputs(node: &NodeProto) -> impl Iterator<Item = &str> {
    node.output.iter().map(String::as_str).filter(|name| !name.is_empty())
}
