//! Elements put at indices, and sums and selections along an axis.

use super::gather::{adding, zeros};
use super::linear::{places, selection};
use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;
use crate::proto::NodeProto;
use crate::proto::tensor_proto::DataType;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("ScatterND", all(scatter)),
    ("ScatterElements", all(scatter)),
    ("TopK", first(1, top_k)),
    ("TensorScatter", first(2, tensor_scatter)),
    ("CumSum", first(1, cumulative_sum)),
    ("CumProd", first(1, cumulative_product)),
    ("Compress", first(1, compress)),
];

type Done = Result<(), Refusal>;

/// ScatterND and ScatterElements: y is x with updates u put at indices, or combined with what is there.
fn scatter(s: &mut Step<'_, '_>) -> Done {
    match s.node.string("reduction", "none") {
        b"none" => replace(s),
        b"add" => add(s),
        b"mul" => multiply(s),
        b"max" | b"min" => extreme(s),
        other => Err(format!("reduction {}", String::from_utf8_lossy(other))),
    }
}

/// The elements of `value` at the indices.
fn gathered(s: &mut Step<'_, '_>, value: &str) -> String {
    if s.node.op_type() == "ScatterND" {
        return s.b.op("GatherND", &[value, s.x(1)]);
    }
    let axis = s.node.int("axis", 0);
    s.b.with("GatherElements", &[value, s.x(1)], |node| node.with_int("axis", axis))
}

/// `value` with `updates` put at the indices, by the same operator.
fn scattered(
    s: &mut Step<'_, '_>,
    value: &str,
    updates: &str,
    reduction: impl FnOnce(NodeProto) -> NodeProto,
) -> String {
    let axis = s.node.int("axis", 0);
    s.b.with(s.node.op_type(), &[value, s.x(1), updates], |node| {
        reduction(if s.node.op_type() == "ScatterND" { node } else { node.with_int("axis", axis) })
    })
}

/// What was replaced has no gradient. Indices must not repeat, or the result would depend on the order.
fn replace(s: &mut Step<'_, '_>) -> Done {
    let dy = s.dy();
    if s.wants(0) {
        let none = s.b.op("Sub", &[s.x(2), s.x(2)]);
        let gradient = scattered(s, &dy, &none, |node| node);
        s.give(0, gradient);
    }
    if s.wants(2) {
        let gradient = gathered(s, &dy);
        s.give(2, gradient);
    }
    Ok(())
}

fn add(s: &mut Step<'_, '_>) -> Done {
    let dy = s.dy();
    if s.wants(2) {
        let gradient = gathered(s, &dy);
        s.give(2, gradient);
    }
    if s.wants(0) {
        s.give(0, dy);
    }
    Ok(())
}

/// dx is dy times the same updates; du = dy · y / u, for u without zeros.
fn multiply(s: &mut Step<'_, '_>) -> Done {
    let dy = s.dy();
    if s.wants(0) {
        let reduction = NodeExt::attribute(s.node, "reduction").cloned();
        let gradient = scattered(s, &dy, s.x(2), |mut node| {
            node.attribute.extend(reduction);
            node
        });
        s.give(0, gradient);
    }
    if s.wants(2) {
        let product = s.b.op("Mul", &[&dy, s.y(0)]);
        let product = gathered(s, &product);
        let gradient = s.b.op("Div", &[&product, s.x(2)]);
        s.give(2, gradient);
    }
    Ok(())
}

/// The gradient goes to those that have the extreme value, in equal shares.
fn extreme(s: &mut Step<'_, '_>) -> Done {
    let elem = s.elem(0).into();
    let chosen = |s: &mut Step<'_, '_>, value: &str, extreme: &str| {
        let is_chosen = s.b.op("Equal", &[value, extreme]);
        s.b.with("Cast", &[&is_chosen], |node| node.with_int("to", elem))
    };
    let x_chosen = chosen(s, s.x(0), s.y(0));
    let extremes = gathered(s, s.y(0));
    let u_chosen = chosen(s, s.x(2), &extremes);
    let count = scattered(s, &x_chosen, &u_chosen, adding);
    let share = s.b.op("Div", &[&s.dy(), &count]);
    if s.wants(0) {
        let gradient = s.b.op("Mul", &[&x_chosen, &share]);
        s.give(0, gradient);
    }
    if s.wants(2) {
        let share = gathered(s, &share);
        let gradient = s.b.op("Mul", &[&u_chosen, &share]);
        s.give(2, gradient);
    }
    Ok(())
}

/// dy at the places that the elements come from: its second result says them.
fn top_k(s: &mut Step<'_, '_>) -> Done {
    let axis = s.node.int("axis", -1);
    let indices = match s.y(1) {
        "" => {
            let (values, indices) = (s.b.fresh("values"), s.b.fresh("indices"));
            let again = NodeProto { output: vec![values, indices.clone()], name: None, ..s.node.clone() };
            s.b.push(again);
            indices
        }
        indices => indices.to_owned(),
    };
    let zeros = zeros(s);
    let gradient = s.b.with("ScatterElements", &[&zeros, &indices, &s.dy()], |node| node.with_int("axis", axis));
    s.give(0, gradient);
    Ok(())
}

/// The sum from the other end.
fn cumulative_sum(s: &mut Step<'_, '_>) -> Done {
    let (exclusive, reverse) = (s.node.int("exclusive", 0), s.node.int("reverse", 0));
    let gradient = s.b.with("CumSum", &[&s.dy(), s.x(1)], |node| {
        node.with_int("exclusive", exclusive).with_int("reverse", i64::from(reverse == 0))
    });
    s.give(0, gradient);
    Ok(())
}

/// yᵢ is the product of those x that it is over, so dxₖ is the sum over the i with xₖ in their product of dyᵢ times the others: the product with 1 in
/// the place of xₖ. That holds for zeros, too. In front of the axis goes one for k.
fn cumulative_product(s: &mut Step<'_, '_>) -> Done {
    let rank = s.need_rank(0)?;
    let [axis] = s.ints("", 1).ok_or("its axis is not constant")?[..] else { return Err("it has not one axis".into()) };
    let axis = Step::axis(axis, rank)?;
    let attribute = s.node.attribute.clone();
    let again = |s: &mut Step<'_, '_>, op_type: &str, value: &str, axis: i64| {
        let axis = s.b.int(axis);
        s.b.with(op_type, &[value, &axis], |node| NodeProto { attribute: attribute.clone(), ..node })
    };
    let places = places(s, axis);
    let own = selection(s, &places, &places);
    let is_in = again(s, "CumSum", &own, 1);
    // [size, size, 1, …]
    let behind: Vec<i64> = (0..(rank - axis - 1) as i64).map(|at| at + 2).collect();
    let [own, is_in] =
        [own, is_in].map(|matrix| if behind.is_empty() { matrix } else { s.b.unsqueeze(&matrix, &behind) });
    let [x, dy] = [s.x(0), s.dy().as_str()].map(|value| s.b.unsqueeze(value, &[axis as i64]));
    let is_own = s.b.cast(&own, DataType::Bool as i32);
    let one = s.scalar(1.0);
    let others = s.b.op("Where", &[&is_own, &one, &x]);
    let products = again(s, "CumProd", &others, axis as i64 + 1);
    let counted = s.b.op("Mul", &[&products, &is_in]);
    let terms = s.b.op("Mul", &[&counted, &dy]);
    let gradient = s.b.sum(&terms, &[axis as i64 + 1], false);
    s.give(0, gradient);
    Ok(())
}

/// Rows of a cache replaced by updates, from an index on: an update gets the dy of its rows, the cache that of the others.
fn tensor_scatter(s: &mut Step<'_, '_>) -> Done {
    let rank = s.need_rank(0)?;
    let axis = Step::axis(s.node.int("axis", -2), rank)?;
    let mut rows = s.b.size(s.x(1), axis);
    rows = s.b.count_up(&rows);
    let along = |axes: std::ops::Range<usize>| -> Vec<i64> { axes.map(|axis| axis as i64).collect() };
    if s.has(2) {
        let starts = s.b.unsqueeze(s.x(2), &[1]);
        rows = s.b.op("Add", &[&starts, &rows]);
        let around = along(1..axis).into_iter().chain(along(axis + 1..rank)).collect::<Vec<_>>();
        rows = if around.is_empty() { rows } else { s.b.unsqueeze(&rows, &around) };
    } else if axis + 1 < rank {
        rows = s.b.unsqueeze(&rows, &along(1..rank - axis));
    }
    if s.node.string("mode", "linear") == b"circular" {
        let size = s.b.size(s.x(0), axis);
        rows = s.b.op("Mod", &[&rows, &size]);
    }
    let rows = s.b.expand_like(&rows, s.x(1));
    let on_axis = |node: NodeProto| node.with_int("axis", axis as i64);
    if s.wants(0) {
        let none = s.b.filled_like(s.x(1), 0.0, s.elem(0));
        let gradient = s.b.with("ScatterElements", &[&s.dy(), &rows, &none], on_axis);
        s.give(0, gradient);
    }
    if s.wants(1) {
        let gradient = s.b.with("GatherElements", &[&s.dy(), &rows], on_axis);
        s.give(1, gradient);
    }
    Ok(())
}

/// dy at the places where the condition holds; without an axis, of the flat input.
fn compress(s: &mut Step<'_, '_>) -> Done {
    let places = s.b.op("NonZero", &[s.x(1)]);
    let zeros = zeros(s);
    let Some(axis) = NodeExt::attribute(s.node, "axis").and_then(|attribute| attribute.i) else {
        let flat = s.b.ints(&[-1]);
        let zeros = s.b.op("Reshape", &[&zeros, &flat]);
        let places = s.b.op("Reshape", &[&places, &flat]);
        let scattered = s.b.op("ScatterElements", &[&zeros, &places, &s.dy()]);
        let gradient = s.b.reshape_like(&scattered, s.x(0));
        s.give(0, gradient);
        return Ok(());
    };
    let rank = s.need_rank(0)?;
    let axis = Step::axis(axis, rank)?;
    let mut shape = vec![1; rank];
    shape[axis] = -1;
    let shape = s.b.ints(&shape);
    let places = s.b.op("Reshape", &[&places, &shape]);
    let places = s.b.expand_like(&places, &s.dy());
    let gradient = s.b.with("ScatterElements", &[&zeros, &places, &s.dy()], |node| node.with_int("axis", axis as i64));
    s.give(0, gradient);
    Ok(())
}
