//! The same elements in another shape, order or type; parts and copies of them.

use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::{Dim, NodeExt};
use crate::proto::{NodeProto, TensorProto};

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
    ("Pad", first(1, pad)),
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
    let elem = s.elem(0).into();
    let gradient = s.b.with("Cast", &[&s.dy()], |node| node.with_int("to", elem));
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
            s.b.with("Transpose", &[&s.dy()], |node| node.with_ints("perm", &inverse))
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
    let starts = s.ints("starts", 1).ok_or("where it starts is not constant")?;
    let ends = s.ints("ends", 2).ok_or("where it ends is not constant")?;
    let axes = match s.has(3) || s.node.ints("axes").is_some() {
        true => s.ints("axes", 3).ok_or("its axes are not constant")?,
        false => (0..starts.len() as i64).collect(),
    };
    let steps = if s.has(4) { s.ints("steps", 4).ok_or("its steps are not constant")? } else { vec![1; starts.len()] };
    if [&ends, &axes, &steps].iter().any(|list| list.len() != starts.len()) {
        return Err("its starts, ends, axes and steps are not as many".into());
    }
    let rank = s.need_rank(0)?;
    let shape = s.shape(0).map(<[Dim]>::to_vec).unwrap_or_default();
    let mut gradient = s.dy();
    for (i, &axis) in axes.iter().enumerate() {
        let axis = Step::axis(axis, rank)?;
        let size = shape[axis].known().and_then(|size| i64::try_from(size).ok());
        gradient = match (size, steps[i]) {
            (Some(size), 1) => {
                let wrap = |at: i64| if at < 0 { at.saturating_add(size) } else { at }.clamp(0, size);
                let (start, end) = (wrap(starts[i]), wrap(ends[i]).max(wrap(starts[i])));
                let mut pads = vec![0; 2 * rank];
                pads[axis] = start;
                pads[rank + axis] = size - end;
                if pads.iter().all(|&pad| pad == 0) { gradient } else { padded(s, &gradient, &pads) }
            }
            _ => scattered(s, &gradient, axis as i64, [starts[i], ends[i], steps[i]]),
        };
    }
    s.give(0, gradient);
    Ok(())
}

fn padded(s: &mut Step<'_, '_>, value: &str, pads: &[i64]) -> String {
    let pads = s.b.ints(pads);
    s.b.op("Pad", &[value, &pads])
}

/// `value` at the places along `axis` that a slice took it from, zeros elsewhere; sizes are read at run time.
fn scattered(s: &mut Step<'_, '_>, value: &str, axis: i64, [start, end, step]: [i64; 3]) -> String {
    let b = &mut *s.b;
    let x = s.node.input_name(0).unwrap_or_default();
    // The slice of 0, 1, 2, … tells where each element came from.
    let shape = b.op("Shape", &[x]);
    let at = b.ints(&[axis]);
    let size = b.op("Gather", &[&shape, &at]);
    let none = b.ints(&[]);
    let count = b.op("Reshape", &[&size, &none]);
    let int = |value: i64| TensorProto { dims: Vec::new(), ..TensorProto::of_ints(&[value]) };
    let (zero, one) = (b.constant(int(0)), b.constant(int(1)));
    let places = b.op("Range", &[&zero, &count, &one]);
    let [starts, ends, first, steps] = [start, end, 0, step].map(|value| b.ints(&[value]));
    let places = b.op("Slice", &[&places, &starts, &ends, &first, &steps]);
    // Row i of the selection has its one at the place that element i came from.
    let all = b.op("Range", &[&zero, &count, &one]);
    let column = b.unsqueeze(&places, &[1]);
    let hits = b.op("Equal", &[&column, &all]);
    let elem = s.elem(0);
    let selection = s.b.with("Cast", &[&hits], |node| node.with_int("to", elem.into()));
    let rank = s.rank(0).unwrap_or(1);
    // dx = dy ×ₐₓᵢₛ selection: bring the axis last, multiply, bring it back.
    let mut to_last: Vec<i64> = (0..rank as i64).filter(|&a| a != axis).collect();
    to_last.push(axis);
    let mut back: Vec<i64> = (0..rank as i64 - 1).collect();
    back.insert(axis as usize, rank as i64 - 1);
    let moved = s.b.with("Transpose", &[value], |node| node.with_ints("perm", &to_last));
    let spread = s.b.op("MatMul", &[&moved, &selection]);
    s.b.with("Transpose", &[&spread], |node| node.with_ints("perm", &back))
}

/// The part in the middle; of the other modes than `constant`, the copies would have to be added.
fn pad(s: &mut Step<'_, '_>) -> Done {
    let mode = NodeExt::attribute(s.node, "mode").map_or(&b"constant"[..], |attribute| attribute.s());
    if mode != b"constant" {
        return Err(format!("mode {}", String::from_utf8_lossy(mode)));
    }
    let rank = s.need_rank(0)?;
    let pads = s.ints("pads", 1).ok_or("its pads are not constant")?;
    let axes =
        if s.has(3) { s.ints("axes", 3).ok_or("its axes are not constant")? } else { (0..rank as i64).collect() };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let ends: Vec<i64> = pads[axes.len()..].iter().map(|&pad| if pad == 0 { i64::MAX } else { -pad }).collect();
    let starts = &pads[..axes.len()];
    if pads.iter().any(|&pad| pad < 0) {
        return Err("a negative pad".into());
    }
    let [starts, ends, axes] = [starts, &ends, &axes].map(|list| s.b.ints(list));
    let gradient = s.b.op("Slice", &[&s.dy(), &starts, &ends, &axes]);
    s.give(0, gradient);
    Ok(())
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

/// Where the forward pass drops nothing (inference, or ratio 0), the gradient is passed on; otherwise its mask says what was kept.
fn dropout(s: &mut Step<'_, '_>) -> Done {
    let training = s.has(2).then(|| s.bool_input(2));
    match training {
        None | Some(Some(false)) => {
            s.give(0, s.dy());
            Ok(())
        }
        Some(Some(true)) if s.node.output.get(1).is_some_and(|mask| !mask.is_empty()) => {
            let ratio = if s.has(1) { s.float_input(1).ok_or("its ratio is not constant")? } else { 0.5 };
            let (zero, scale) = (s.scalar(0.0), s.scalar(1.0 / (1.0 - ratio)));
            let scaled = s.b.op("Mul", &[&s.dy(), &scale]);
            let gradient = s.b.op("Where", &[s.y(1), &scaled, &zero]);
            s.give(0, gradient);
            Ok(())
        }
        Some(Some(true)) => Err("in training mode without a mask as second output".into()),
        Some(None) => Err("whether it is in training mode is not constant".into()),
    }
}

fn space_to_depth(s: &mut Step<'_, '_>) -> Done {
    let size = s.node.int("blocksize", 1);
    let gradient = s.b.with("DepthToSpace", &[&s.dy()], |node| node.with_int("blocksize", size));
    s.give(0, gradient);
    Ok(())
}

/// Mode DCR is the inverse of SpaceToDepth.
fn depth_to_space(s: &mut Step<'_, '_>) -> Done {
    if NodeExt::attribute(s.node, "mode").is_some_and(|attribute| attribute.s() != b"DCR") {
        return Err("mode CRD".into());
    }
    let size = s.node.int("blocksize", 1);
    let gradient = s.b.with("SpaceToDepth", &[&s.dy()], |node| node.with_int("blocksize", size));
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
