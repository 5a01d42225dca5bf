//! Operators that are a linear map along each axis. A map's matrix is what the operator itself makes of the identity, so that the runtime's own
//! coordinates and roundings are differentiated, at any size.

use super::{Rule, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::{Dim, NodeExt};
use crate::proto::{AttributeProto, NodeProto, TensorProto};

pub(super) const RULES: &[(&str, Rule)] =
    &[("Pad", first(3, pad)), ("CenterCropPad", first(1, center_crop_pad)), ("Resize", first(1, resize))];

type Done = Result<(), Refusal>;

/// The identity of a longer axis would fill the memory.
const MAX_AXIS: u64 = 1 << 13;

/// 0, 1, 2, … along the first input's `axis`.
pub(super) fn places(s: &mut Step<'_, '_>, axis: usize) -> String {
    let count = s.b.size(s.x(0), axis);
    s.b.count_up(&count)
}

/// A matrix with a row for each of the `chosen` places, which has its one there.
pub(super) fn selection(s: &mut Step<'_, '_>, chosen: &str, places: &str) -> String {
    let column = s.b.unsqueeze(chosen, &[1]);
    let is_same = s.b.op("Equal", &[&column, places]);
    let elem = s.elem(0);
    s.b.cast(&is_same, elem)
}

/// The identity matrix of the first input's `axis`.
fn identity_matrix(s: &mut Step<'_, '_>, axis: usize) -> Result<String, Refusal> {
    let size = s.shape(0).and_then(|shape| shape.get(axis)?.known());
    if let Some(size) = size.filter(|&size| size > MAX_AXIS) {
        return Err(format!("its gradient is a product with a matrix of {size} rows"));
    }
    let places = places(s, axis);
    Ok(selection(s, &places, &places))
}

/// The product of `value` with a matrix [its size, new size] along one of `rank` axes.
pub(super) fn multiplied(s: &mut Step<'_, '_>, value: &str, matrix: &str, axis: usize, rank: usize) -> String {
    if axis + 1 == rank {
        return s.b.op("MatMul", &[value, matrix]);
    }
    if axis + 2 == rank {
        let turned = s.b.op("Transpose", &[matrix]);
        return s.b.op("MatMul", &[&turned, value]);
    }
    // Its own inverse: the axis and the last one change places.
    let mut swap: Vec<i64> = (0..rank as i64).collect();
    swap.swap(axis, rank - 1);
    let last = s.b.transpose(value, &swap);
    let product = s.b.op("MatMul", &[&last, matrix]);
    s.b.transpose(&product, &swap)
}

/// Of constants around: dx is the part of dy in the middle, and the constant's gradient the sum of the rest.
fn pad(s: &mut Step<'_, '_>) -> Done {
    let dy = s.dy();
    let mode = s.node.string("mode", "constant");
    if mode != b"constant" {
        let gradient = pad_with_copies(s, &dy)?;
        s.give(0, gradient);
        return Ok(());
    }
    let gradient = unpadded(s, &dy)?;
    if s.wants(2) {
        let [all, middle] = [&dy, &gradient].map(|value| s.b.total(value));
        let rest = s.b.op("Sub", &[&all, &middle]);
        let rest = s.b.reshape_like(&rest, s.x(2));
        s.give(2, rest);
    }
    if s.wants(0) {
        s.give(0, gradient);
    }
    Ok(())
}

/// What Pad put around taken off, and zeros where it took something off.
fn unpadded(s: &mut Step<'_, '_>, dy: &str) -> Result<String, Refusal> {
    let pads = s.ints("pads", 1).filter(|pads| pads.iter().all(|&pad| pad >= 0));
    let axes = if s.has(3) { s.ints("axes", 3) } else { s.rank(0).map(|rank| (0..rank as i64).collect()) };
    let Some((pads, axes)) = pads.zip(axes) else {
        let pads = s.b.op("Neg", &[s.x(1)]);
        let zero = s.scalar(0.0);
        let inputs = [dy, &pads, &zero, s.x(3)];
        return Ok(s.b.op("Pad", if s.has(3) { &inputs } else { &inputs[..3] }));
    };
    let (starts, ends) = halves(&pads, axes.len())?;
    let ends: Vec<i64> = ends.iter().map(|&pad| if pad == 0 { i64::MAX } else { -pad }).collect();
    let [starts, ends, axes] = [starts, &ends, &axes].map(|list| s.b.ints(list));
    Ok(s.b.op("Slice", &[dy, &starts, &ends, &axes]))
}

/// The same operator back to the input's sizes: it crops what it padded, and the other way round.
fn center_crop_pad(s: &mut Step<'_, '_>) -> Done {
    let mut sizes = s.b.op("Shape", &[s.x(0)]);
    let axes = s.node.ints("axes").map(<[i64]>::to_vec);
    if let Some(axes) = &axes {
        let rank = s.need_rank(0)?;
        let axes: Vec<i64> =
            axes.iter().map(|&axis| Ok(Step::axis(axis, rank)? as i64)).collect::<Result<_, Refusal>>()?;
        let axes = s.b.ints(&axes);
        sizes = s.b.op("Gather", &[&sizes, &axes]);
    }
    let gradient = s.b.with("CenterCropPad", &[&s.dy(), &sizes], |node| match &axes {
        Some(axes) => node.with_ints("axes", axes),
        None => node,
    });
    s.give(0, gradient);
    Ok(())
}

/// Pads before and after each of some axes.
fn halves(pads: &[i64], axes: usize) -> Result<(&[i64], &[i64]), Refusal> {
    if pads.len() == 2 * axes { Ok(pads.split_at(axes)) } else { Err(format!("{} pads for {axes} axes", pads.len())) }
}

/// Edge, reflect and wrap.
fn pad_with_copies(s: &mut Step<'_, '_>, dy: &str) -> Result<String, Refusal> {
    let rank = s.need_rank(0)?;
    let pads = s.ints("pads", 1).ok_or("its pads are not constant")?;
    let axes =
        if s.has(3) { s.ints("axes", 3).ok_or("its axes are not constant")? } else { (0..rank as i64).collect() };
    let (begins, ends) = halves(&pads, axes.len())?;
    let mut gradient = dy.to_owned();
    for (i, &axis) in axes.iter().enumerate().filter(|(i, _)| begins[*i] != 0 || ends[*i] != 0) {
        let axis = Step::axis(axis, rank)?;
        let identity = identity_matrix(s, axis)?;
        let pads = s.b.ints(&[begins[i], 0, ends[i], 0]);
        let matrix = s.b.with("Pad", &[&identity, &pads], |node| with_attributes(node, s.node, &["mode"]));
        gradient = multiplied(s, &gradient, &matrix, axis, rank);
    }
    Ok(gradient)
}

/// The attributes of the forward node with these names.
fn with_attributes(mut node: NodeProto, of: &NodeProto, names: &[&str]) -> NodeProto {
    let chosen = of.attribute.iter().filter(|attribute: &&AttributeProto| names.contains(&attribute.name()));
    node.attribute.extend(chosen.cloned());
    node
}

/// Interpolation along each axis; what the extrapolation value fills has no gradient.
fn resize(s: &mut Step<'_, '_>) -> Done {
    let policy = s.node.string("keep_aspect_ratio_policy", "stretch");
    if policy != b"stretch" {
        return Err(format!("keep_aspect_ratio_policy {}", String::from_utf8_lossy(policy)));
    }
    let rank = s.need_rank(0)?;
    let axes: Vec<i64> = s.node.ints("axes").map_or_else(|| (0..rank as i64).collect(), <[i64]>::to_vec);
    let mut gradient = s.dy();
    for (i, &axis) in axes.iter().enumerate() {
        let axis = Step::axis(axis, rank)?;
        if !keeps(s, i, axis) {
            let matrix = resized_identity(s, i, axis, axes.len())?;
            gradient = multiplied(s, &gradient, &matrix, axis, rank);
        }
    }
    s.give(0, gradient);
    Ok(())
}

/// Whether the axis that entry `i` of scales or sizes is about stays as it is.
fn keeps(s: &Step<'_, '_>, i: usize, axis: usize) -> bool {
    if s.node.string("coordinate_transformation_mode", "half_pixel") == b"tf_crop_and_resize" {
        return false;
    }
    if s.has(3) {
        let size = |shape: Option<&[Dim]>| shape?.get(axis).filter(|dim| **dim != Dim::Unknown).cloned();
        return size(s.shape(0)).is_some_and(|own| Some(own) == size(s.output_shape()));
    }
    s.floats(2).and_then(|scales| scales.get(i).copied()) == Some(1.0)
}

/// The identity of an axis, resized along its rows as the forward pass resizes that axis, the i-th of `count`.
fn resized_identity(s: &mut Step<'_, '_>, i: usize, axis: usize, count: usize) -> Result<String, Refusal> {
    let identity = identity_matrix(s, axis)?;
    let (i, count) = (i as i64, count as i64);
    let chosen = |s: &mut Step<'_, '_>, list: &str, places: &[i64]| {
        let places = s.b.ints(places);
        s.b.op("Gather", &[list, &places])
    };
    let joined = |s: &mut Step<'_, '_>, a: &str, b: &str| s.b.with("Concat", &[a, b], |node| node.with_int("axis", 0));
    let is_cropping = s.node.string("coordinate_transformation_mode", "half_pixel") == b"tf_crop_and_resize";
    let mut inputs = vec![identity.clone(), s.x(1).to_owned()];
    if is_cropping {
        let ends = s.b.constant(TensorProto::of_floats(&[0.0, 1.0], &[2], s.elem(1)));
        let roi = joined(s, s.x(1), &ends);
        inputs[1] = chosen(s, &roi, &[i, 2 * count, count + i, 2 * count + 1]);
    }
    if s.has(3) {
        let size = chosen(s, s.x(3), &[i]);
        let shape = s.b.op("Shape", &[s.x(0)]);
        let columns = chosen(s, &shape, &[axis as i64]);
        inputs.extend([s.x(2).to_owned(), joined(s, &size, &columns)]);
    } else {
        let scale = chosen(s, s.x(2), &[i]);
        let one = s.b.constant(TensorProto::of_floats(&[1.0], &[1], s.elem(2)));
        inputs.push(joined(s, &scale, &one));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    Ok(s.b.with("Resize", &inputs, |node| with_attributes(node, s.node, RESIZE_ATTRIBUTES)))
}

/// What says how Resize interpolates.
const RESIZE_ATTRIBUTES: &[&str] =
    &["antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode"];
