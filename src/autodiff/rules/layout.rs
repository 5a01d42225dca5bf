//! The same elements in another shape, order or type; parts and copies of them.

use super::linear::{multiplied, places, selection};
use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::{Dim, NodeExt};
use crate::proto::NodeProto;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Identity", all(identity)),
    ("Cast", all(cast)),
    ("CastLike", all(cast)),
    ("Reshape", first(1, reshape)),
    ("Flatten", all(reshape)),
    ("Squeeze", first(1, reshape)),
    ("Unsqueeze", first(1, reshape)),
    ("Transpose", all(transpose)),
    ("Expand", first(1, expand)),
    ("Concat", all(concat)),
    ("Split", first(1, split)),
    ("Slice", first(1, slice)),
    ("Tile", first(1, tile)),
    ("Dropout", first(1, dropout)),
    ("SpaceToDepth", all(space_to_depth)),
    ("DepthToSpace", all(depth_to_space)),
    ("Trilu", first(1, trilu)),
];

type Done = Result<(), Refusal>;

fn identity(s: &mut Step<'_, '_>) -> Done {
    s.give(0, s.dy());
    Ok(())
}

/// Of CastLike, the second input gives the type only: it has no gradient.
fn cast(s: &mut Step<'_, '_>) -> Done {
    let elem = s.elem(0);
    let gradient = s.b.cast(&s.dy(), elem);
    s.give(0, gradient);
    Ok(())
}

/// Back to the shape of the input.
fn reshape(s: &mut Step<'_, '_>) -> Done {
    let sizes: Option<Vec<i64>> =
        s.shape(0).and_then(|shape| shape.iter().map(|dim| dim.known().map(|size| size as i64)).collect());
    let gradient = match sizes.filter(|sizes| !sizes.contains(&0)) {
        Some(sizes) => {
            let sizes = s.b.ints(&sizes);
            s.b.op("Reshape", &[&s.dy(), &sizes])
        }
        None => s.b.reshape_like(&s.dy(), s.x(0)),
    };
    s.give(0, gradient);
    Ok(())
}

fn transpose(s: &mut Step<'_, '_>) -> Done {
    let gradient = match s.node.ints("perm") {
        Some(perm) => {
            let mut inverse = vec![0; perm.len()];
            for (to, &from) in perm.iter().enumerate() {
                *inverse.get_mut(from as usize).ok_or("perm is no permutation")? = to as i64;
            }
            s.b.transpose(&s.dy(), &inverse)
        }
        None => s.b.op("Transpose", &[&s.dy()]),
    };
    s.give(0, gradient);
    Ok(())
}

fn expand(s: &mut Step<'_, '_>) -> Done {
    s.give_broadcast(0, s.dy())?;
    Ok(())
}

/// The sizes of all inputs along `axis`.
fn known_sizes(s: &Step<'_, '_>, axis: i64) -> Option<Vec<i64>> {
    let size = |slot: usize| {
        let shape = s.shape(slot)?;
        let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
        shape.get(usize::try_from(axis).ok()?)?.known().map(|size| size as i64)
    };
    (0..s.node.input.len()).map(size).collect()
}

/// The same as an int64 tensor, read at run time where they are not known.
fn sizes_along(s: &mut Step<'_, '_>, axis: i64) -> String {
    if let Some(sizes) = known_sizes(s, axis) {
        return s.b.ints(&sizes);
    }
    let index = s.b.ints(&[axis]);
    let sizes: Vec<String> = (0..s.node.input.len())
        .map(|slot| {
            let shape = s.b.op("Shape", &[s.x(slot)]);
            s.b.op("Gather", &[&shape, &index])
        })
        .collect();
    let sizes: Vec<&str> = sizes.iter().map(String::as_str).collect();
    s.b.with("Concat", &sizes, |node| node.with_int("axis", 0))
}

fn concat(s: &mut Step<'_, '_>) -> Done {
    let axis = s.node.int("axis", 0);
    let parts: Vec<String> = (0..s.node.input.len()).map(|_| s.b.fresh("part")).collect();
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    let split: NodeProto = if s.b.opset() >= 13 {
        let sizes = sizes_along(s, axis);
        NodeExt::build("", "Split", &[&s.dy(), &sizes], &names)
    } else {
        let sizes =
            known_sizes(s, axis).ok_or("the sizes of its parts are not known, and before opset 13 Split needs them")?;
        NodeProto::build("", "Split", &[&s.dy()], &names).with_ints("split", &sizes)
    };
    s.b.push(split.with_int("axis", axis));
    for (slot, part) in parts.into_iter().enumerate() {
        if s.wants(slot) {
            s.give(slot, part);
        }
    }
    Ok(())
}

/// The parts side by side; zeros where nothing depends on a part.
fn split(s: &mut Step<'_, '_>) -> Done {
    let axis = s.node.int("axis", 0);
    let parts: Vec<String> = (0..s.node.output.len())
        .map(|slot| s.dy_at(slot).unwrap_or_else(|| s.b.op("Sub", &[s.y(slot), s.y(slot)])))
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let gradient = s.b.with("Concat", &parts, |node| node.with_int("axis", axis));
    s.give(0, gradient);
    Ok(())
}

/// Zeros around: scattered along each sliced axis to where the elements came from.
fn slice(s: &mut Step<'_, '_>) -> Done {
    let [starts, ends] = [("starts", 1), ("ends", 2)].map(|(name, slot)| s.ints(name, slot));
    let rank = s.need_rank(0)?;
    let axes = match s.has(3) || s.node.ints("axes").is_some() {
        true => s.ints("axes", 3).ok_or("its axes are not constant")?,
        false => {
            let count = starts.as_ref().or(ends.as_ref()).map(Vec::len);
            (0..count.ok_or("of how many axes it takes a part is not known")? as i64).collect()
        }
    };
    let steps = if s.has(4) { s.ints("steps", 4) } else { Some(vec![1; axes.len()]) };
    let bounds = [(starts, 1), (ends, 2), (steps, 4)];
    if bounds.iter().any(|(list, _)| list.as_ref().is_some_and(|list| list.len() != axes.len())) {
        return Err("its starts, ends, axes and steps are not as many".into());
    }
    let shape = s.shape(0).map(<[Dim]>::to_vec).unwrap_or_default();
    let mut gradient = s.dy();
    for (i, &axis) in axes.iter().enumerate() {
        let axis = Step::axis(axis, rank)?;
        let size = shape[axis].known().and_then(|size| i64::try_from(size).ok());
        let [start, end, step] = [0, 1, 2].map(|list| bounds[list].0.as_ref().map(|list| list[i]));
        gradient = match (size, start, end, step) {
            (Some(size), Some(start), Some(end), Some(1)) => {
                let wrap = |at: i64| if at < 0 { at.saturating_add(size) } else { at }.clamp(0, size);
                let (start, end) = (wrap(start), wrap(end).max(wrap(start)));
                let mut pads = vec![0; 2 * rank];
                pads[axis] = start;
                pads[rank + axis] = size - end;
                if pads.iter().all(|&pad| pad == 0) { gradient } else { padded(s, &gradient, &pads) }
            }
            _ => {
                let bounds = [(start, 1), (end, 2), (step, 4)].map(|(known, slot)| bound(s, known, slot, i));
                scattered(s, &gradient, axis, rank, bounds)
            }
        };
    }
    s.give(0, gradient);
    Ok(())
}

/// A list with the `i`-th element of an input, which may be known.
fn bound(s: &mut Step<'_, '_>, known: Option<i64>, slot: usize, i: usize) -> String {
    match known {
        Some(at) => s.b.ints(&[at]),
        None => {
            let place = s.b.ints(&[i as i64]);
            s.b.op("Gather", &[s.x(slot), &place])
        }
    }
}

fn padded(s: &mut Step<'_, '_>, value: &str, pads: &[i64]) -> String {
    let pads = s.b.ints(pads);
    s.b.op("Pad", &[value, &pads])
}

/// `value` at the places along `axis` that a slice took it from, zeros elsewhere; sizes are read at run time.
fn scattered(s: &mut Step<'_, '_>, value: &str, axis: usize, rank: usize, [start, end, step]: [String; 3]) -> String {
    let places = places(s, axis);
    let first = s.b.ints(&[0]);
    let taken = s.b.op("Slice", &[&places, &start, &end, &first, &step]);
    let selection = selection(s, &taken, &places);
    multiplied(s, value, &selection, axis, rank)
}

/// The sum over the copies: each axis is seen as (copy, element).
fn tile(s: &mut Step<'_, '_>) -> Done {
    let rank = s.need_rank(0)?;
    let repeats = s.ints("repeats", 1).ok_or("how often it repeats is not constant")?;
    let shape = s.b.op("Shape", &[s.x(0)]);
    let repeats = s.b.ints(&repeats);
    // [r₀, n₀, r₁, n₁, …]
    let [columns, sizes] = [&repeats, &shape].map(|list| s.b.unsqueeze(list, &[1]));
    let pairs = s.b.with("Concat", &[&columns, &sizes], |node| node.with_int("axis", 1));
    let flat = s.b.ints(&[-1]);
    let target = s.b.op("Reshape", &[&pairs, &flat]);
    let apart = s.b.op("Reshape", &[&s.dy(), &target]);
    let copies: Vec<i64> = (0..rank as i64).map(|axis| 2 * axis).collect();
    let gradient = if rank == 0 { s.dy() } else { s.b.sum(&apart, &copies, false) };
    s.give(0, gradient);
    Ok(())
}

/// Where the forward pass drops nothing (inference, or ratio 0), the gradient is passed on; otherwise its mask says what was kept, and what was
/// kept has been divided by 1 - ratio.
fn dropout(s: &mut Step<'_, '_>) -> Done {
    let is_training = if s.has(2) { s.bool_input(2) } else { Some(false) };
    let ratio = if s.has(1) { s.float_input(1) } else { Some(0.5) };
    if is_training == Some(false) || ratio == Some(0.0) {
        s.give(0, s.dy());
        return Ok(());
    }
    if s.y(1).is_empty() {
        return Err("in training mode without a mask as second output".into());
    }
    let (zero, one) = (s.scalar(0.0), s.scalar(1.0));
    let mut kept = match ratio {
        Some(ratio) => s.scalar(1.0 - ratio),
        None => {
            let elem = s.elem(0);
            let ratio = s.b.cast(s.x(1), elem);
            s.b.op("Sub", &[&one, &ratio])
        }
    };
    if is_training.is_none() {
        kept = s.b.op("Where", &[s.x(2), &kept, &one]);
    }
    let scaled = s.b.op("Div", &[&s.dy(), &kept]);
    let gradient = s.b.op("Where", &[s.y(1), &scaled, &zero]);
    s.give(0, gradient);
    Ok(())
}

/// Newer operator sets give it the modes of DepthToSpace, which is its inverse in each.
fn space_to_depth(s: &mut Step<'_, '_>) -> Done {
    let attribute = s.node.attribute.clone();
    let gradient = s.b.with("DepthToSpace", &[&s.dy()], |node| NodeProto { attribute, ..node });
    s.give(0, gradient);
    Ok(())
}

/// In mode DCR the inverse of SpaceToDepth, which puts the places within a block before the channels; in mode CRD they are behind.
fn depth_to_space(s: &mut Step<'_, '_>) -> Done {
    let size = s.node.int("blocksize", 1);
    let mut gradient = s.b.with("SpaceToDepth", &[&s.dy()], |node| node.with_int("blocksize", size));
    if s.node.string("mode", "DCR") == b"CRD" {
        let channels = s.shape(0).and_then(|shape| i64::try_from(shape.get(1)?.known()?).ok());
        let places = size.checked_mul(size).filter(|&places| places > 0).ok_or_else(|| format!("blocksize {size}"))?;
        let channels = channels.ok_or("mode CRD, and its channels are not known")? / places;
        let apart = s.b.ints(&[0, places, channels, -1]);
        let apart = s.b.op("Reshape", &[&gradient, &apart]);
        let turned = s.b.transpose(&apart, &[0, 2, 1, 3]);
        gradient = s.b.reshape_like(&turned, s.x(0));
    }
    s.give(0, gradient);
    Ok(())
}

fn trilu(s: &mut Step<'_, '_>) -> Done {
    let upper = s.node.int("upper", 1);
    let dy = s.dy();
    let inputs: Vec<&str> = if s.has(1) { vec![&dy, s.x(1)] } else { vec![&dy] };
    let gradient = s.b.with("Trilu", &inputs, |node| node.with_int("upper", upper));
    s.give(0, gradient);
    Ok(())
}
