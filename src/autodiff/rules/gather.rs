//! Elements taken by index, and the other way round.

use super::{Rule, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;
use crate::proto::NodeProto;
use crate::proto::tensor_proto::DataType;

pub(super) const RULES: &[(&str, Rule)] =
    &[("Gather", first(1, gather)), ("GatherElements", first(1, gather_elements)), ("GatherND", first(1, gather_nd))];

/// Zeros in the shape of the first input.
pub(super) fn zeros(s: &mut Step<'_, '_>) -> String {
    s.b.filled_like(s.x(0), 0.0, s.elem(0))
}

/// The same node with the attribute that adds where indices meet.
pub(super) fn adding(node: NodeProto) -> NodeProto {
    node.with_string("reduction", "add")
}

/// Where nothing but a scatter that adds will do.
fn need_adding(s: &Step<'_, '_>) -> Result<(), Refusal> {
    if s.b.scatters_add() {
        Ok(())
    } else {
        Err(format!("its gradient needs opset 16, and the model imports {}", s.b.opset()))
    }
}

/// The rows of dy added at their indices: the axis goes first, and comes back.
fn gather(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let rank = s.need_rank(0)?;
    let (axis, rank) = (Step::axis(s.node.int("axis", 0), rank)? as i64, rank as i64);
    let index_rank = s.need_rank(1)? as i64;
    let permuted = |s: &mut Step<'_, '_>, value: &str, order: &[i64]| {
        if order.is_sorted() {
            return value.to_owned();
        }
        s.b.transpose(value, order)
    };
    // dy is [before, indices, after].
    let order: Vec<i64> =
        (axis..axis + index_rank).chain(0..axis).chain(axis + index_rank..rank - 1 + index_rank).collect();
    let dy = permuted(s, &s.dy(), &order);
    let to_front: Vec<i64> = std::iter::once(axis).chain((0..rank).filter(|&a| a != axis)).collect();
    let zeros = zeros(s);
    let zeros = permuted(s, &zeros, &to_front);
    let added = if s.b.scatters_add() {
        let indices = indices_from_the_start(s, axis);
        let indices = s.b.unsqueeze(&indices, &[-1]);
        s.b.with("ScatterND", &[&zeros, &indices, &dy], adding)
    } else {
        add_rows(s, &zeros, &dy, axis)
    };
    let back: Vec<i64> = (1..=axis).chain([0]).chain(axis + 1..rank).collect();
    let gradient = permuted(s, &added, &back);
    s.give(0, gradient);
    Ok(())
}

/// The indices as int64 that count from the start of the axis; a negative one counts from its end, which tract's ScatterND does not.
fn indices_from_the_start(s: &mut Step<'_, '_>, axis: i64) -> String {
    let indices = s.b.converted(s.x(1), s.elem(1), DataType::Int64 as i32);
    if s.ints("", 1).is_some_and(|indices| indices.iter().all(|&index| index >= 0)) {
        return indices;
    }
    let size = s.b.size(s.x(0), axis as usize);
    let from_the_start = s.b.op("Add", &[&indices, &size]);
    let zero = s.b.int(0);
    let is_negative = s.b.op("Less", &[&indices, &zero]);
    s.b.op("Where", &[&is_negative, &from_the_start, &indices])
}

/// Before opset 16: the sum over all indices of (one at its place) times (its row of dy), as a product of matrices.
fn add_rows(s: &mut Step<'_, '_>, zeros: &str, dy: &str, axis: i64) -> String {
    let shape = s.b.op("Shape", &[s.x(0)]);
    let at = s.b.ints(&[axis]);
    let depth = s.b.op("Gather", &[&shape, &at]);
    let ends = [0.0, 1.0].map(|value| s.scalar(value)).map(|value| s.b.unsqueeze(&value, &[0]));
    let zero_and_one = s.b.with("Concat", &[&ends[0], &ends[1]], |node| node.with_int("axis", 0));
    let flat = s.b.ints(&[-1]);
    let indices = s.b.op("Reshape", &[s.x(1), &flat]);
    let places = s.b.op("OneHot", &[&indices, &depth, &zero_and_one]);
    let count = s.b.op("Size", &[s.x(1)]);
    let count = s.b.unsqueeze(&count, &[0]);
    let rows = s.b.with("Concat", &[&count, &flat], |node| node.with_int("axis", 0));
    let rows = s.b.op("Reshape", &[dy, &rows]);
    let sum = s.b.with("Gemm", &[&places, &rows], |node| node.with_int("transA", 1));
    s.b.reshape_like(&sum, zeros)
}

fn gather_elements(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    need_adding(s)?;
    let axis = s.node.int("axis", 0);
    let zeros = zeros(s);
    let gradient = s.b.with("ScatterElements", &[&zeros, s.x(1), &s.dy()], |node| adding(node.with_int("axis", axis)));
    s.give(0, gradient);
    Ok(())
}

fn gather_nd(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    need_adding(s)?;
    let zeros = zeros(s);
    let batch_dims = s.node.int("batch_dims", 0);
    if batch_dims == 0 {
        let gradient = s.b.with("ScatterND", &[&zeros, s.x(1), &s.dy()], adding);
        s.give(0, gradient);
        return Ok(());
    }
    // ScatterND knows no batch: its axes become one, and the place along that the first index.
    let axes_of_indices = s.need_rank(1)? as i64 - batch_dims + 1;
    let dy = s.dy();
    let [zeros, indices, dy] = [&zeros, s.x(1), &dy].map(|value| with_one_batch_axis(s, value, batch_dims));
    let count = s.b.size(&indices, 0);
    let places = s.b.count_up(&count);
    let places = s.b.unsqueeze(&places, &(1..axes_of_indices).collect::<Vec<_>>());
    let shape = s.b.with("Shape", &[&indices], |node| node.with_int("end", -1));
    let one = s.b.ints(&[1]);
    let shape = s.b.concat(&[shape, one], 0);
    let places = s.b.op("Expand", &[&places, &shape]);
    let indices = s.b.concat(&[places, indices], axes_of_indices - 1);
    let added = s.b.with("ScatterND", &[&zeros, &indices, &dy], adding);
    let gradient = s.b.reshape_like(&added, s.x(0));
    s.give(0, gradient);
    Ok(())
}

/// `value` with its first axes, as many as there are, as one.
fn with_one_batch_axis(s: &mut Step<'_, '_>, value: &str, axes: i64) -> String {
    let rest = s.b.with("Shape", &[value], |node| node.with_int("start", axes));
    let inferred = s.b.ints(&[-1]);
    let shape = s.b.concat(&[inferred, rest], 0);
    s.b.op("Reshape", &[value, &shape])
}
