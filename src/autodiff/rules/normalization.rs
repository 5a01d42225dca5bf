//! Normalization over axes.

use super::{Rule, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("LayerNormalization", first(3, layer)),
    ("BatchNormalization", first(3, batch)),
    ("InstanceNormalization", first(3, instance)),
    ("RMSNormalization", first(2, rms)),
];

type Done = Result<(), Refusal>;

/// x̂ = (x - mean) / √(var + ε) over `axes`, and 1 / √(var + ε).
fn standardized(s: &mut Step<'_, '_>, axes: &[i64], epsilon: f64) -> [String; 2] {
    let x = s.x(0);
    let mean = mean_over(s, x, axes);
    let centred = s.b.op("Sub", &[x, &mean]);
    scaled_to_unit(s, &centred, axes, epsilon)
}

/// v / √(mean v² + ε) over `axes`, and 1 / √(mean v² + ε).
fn scaled_to_unit(s: &mut Step<'_, '_>, value: &str, axes: &[i64], epsilon: f64) -> [String; 2] {
    let squared = s.b.op("Mul", &[value, value]);
    let variance = mean_over(s, &squared, axes);
    let epsilon = s.scalar(epsilon);
    let shifted = s.b.op("Add", &[&variance, &epsilon]);
    let deviation = s.b.op("Sqrt", &[&shifted]);
    let inverse = s.b.op("Reciprocal", &[&deviation]);
    [s.b.op("Mul", &[value, &inverse]), inverse]
}

/// The mean over some axes, kept as ones. Written as a sum and a quotient: ReduceMean takes its axes differently from opset 18 on.
fn mean_over(s: &mut Step<'_, '_>, value: &str, axes: &[i64]) -> String {
    let sum = s.b.sum(value, axes, true);
    let count = count(s, axes);
    s.b.op("Div", &[&sum, &count])
}

/// The number of elements along `axes` of the first input.
fn count(s: &mut Step<'_, '_>, axes: &[i64]) -> String {
    let shape = s.shape(0).unwrap_or_default();
    let at = |axis: i64| if axis < 0 { axis + shape.len() as i64 } else { axis } as usize;
    let known = axes.iter().try_fold(1, |count: u64, &axis| count.checked_mul(shape.get(at(axis))?.known()?));
    match known {
        Some(count) => s.scalar(count as f64),
        None => {
            let sizes = s.b.op("Shape", &[s.x(0)]);
            let axes = s.b.ints(axes);
            let sizes = s.b.op("Gather", &[&sizes, &axes]);
            let count = s.b.with("ReduceProd", &[&sizes], |node| node.with_int("keepdims", 0));
            let elem = s.elem(0).into();
            s.b.with("Cast", &[&count], |node| node.with_int("to", elem))
        }
    }
}

/// dx = (h - mean h - x̂ · mean (h · x̂)) / √(var + ε), with h = dy · scale; `centred`: whether the mean was taken off.
fn normalized_gradient(
    s: &mut Step<'_, '_>,
    h: &str,
    [unit, inverse]: &[String; 2],
    axes: &[i64],
    centred: bool,
) -> String {
    let product = s.b.op("Mul", &[h, unit]);
    let along = mean_over(s, &product, axes);
    let along = s.b.op("Mul", &[unit, &along]);
    let mut rest = s.b.op("Sub", &[h, &along]);
    if centred {
        let mean = mean_over(s, h, axes);
        rest = s.b.op("Sub", &[&rest, &mean]);
    }
    s.b.op("Mul", &[&rest, inverse])
}

/// Gradients of scale (slot 1) and bias (slot 2), each of the shape that `reduce` brings dy to.
fn give_affine(s: &mut Step<'_, '_>, unit: &str, axes: &[i64], keep: bool) {
    let dy = s.dy();
    if s.wants(1) {
        let product = s.b.op("Mul", &[&dy, unit]);
        let gradient = reduced(s, &product, axes, keep);
        s.give(1, gradient);
    }
    if s.wants(2) {
        let gradient = reduced(s, &dy, axes, keep);
        s.give(2, gradient);
    }
}

fn reduced(s: &mut Step<'_, '_>, value: &str, axes: &[i64], keep: bool) -> String {
    if axes.is_empty() { value.to_owned() } else { s.b.sum(value, axes, keep) }
}

fn layer(s: &mut Step<'_, '_>) -> Done {
    over_last_axes(s, 1e-5, true)
}

fn rms(s: &mut Step<'_, '_>) -> Done {
    over_last_axes(s, 1e-5, false)
}

fn over_last_axes(s: &mut Step<'_, '_>, epsilon: f32, centred: bool) -> Done {
    let rank = s.need_rank(0)?;
    let axis = Step::axis(s.node.int("axis", -1), rank)? as i64;
    let rank = rank as i64;
    if s.rank(1).is_some_and(|own| own as i64 > rank) || s.dy_at(1).or(s.dy_at(2)).is_some() {
        return Err("gradients of its mean or deviation outputs".into());
    }
    let axes: Vec<i64> = (axis..rank).collect();
    let epsilon = s.node.float("epsilon", epsilon).into();
    let unit = if centred { standardized(s, &axes, epsilon) } else { scaled_to_unit(s, s.x(0), &axes, epsilon) };
    if s.wants(0) {
        let h = s.b.op("Mul", &[&s.dy(), s.x(1)]);
        let gradient = normalized_gradient(s, &h, &unit, &axes, centred);
        s.give(0, gradient);
    }
    let dy = s.dy();
    if s.wants(1) {
        let product = s.b.op("Mul", &[&dy, &unit[0]]);
        s.give_broadcast(1, product)?;
    }
    if s.wants(2) {
        s.give_broadcast(2, dy)?;
    }
    Ok(())
}

/// A vector of one number a channel, as [1, channels, 1, …].
fn per_channel(s: &mut Step<'_, '_>, value: &str, rank: usize) -> String {
    let axes: Vec<i64> = (1..rank as i64 - 1).collect();
    if axes.is_empty() { value.to_owned() } else { s.b.unsqueeze(value, &axes) }
}

/// In inference the statistics are constants: y = (x - mean) / √(var + ε) · scale + bias. In training mode they are the batch's.
fn batch(s: &mut Step<'_, '_>) -> Done {
    let rank = s.need_rank(0)?;
    let axes: Vec<i64> = (0..rank as i64).filter(|&axis| axis != 1).collect();
    let epsilon: f64 = s.node.float("epsilon", 1e-5).into();
    let scale = per_channel(s, s.x(1), rank);
    let h = s.b.op("Mul", &[&s.dy(), &scale]);
    let is_training = s.node.int("training_mode", 0) != 0;
    let unit = if is_training {
        standardized(s, &axes, epsilon)
    } else {
        let [mean, variance] = [3, 4].map(|slot| per_channel(s, s.x(slot), rank));
        let epsilon = s.scalar(epsilon);
        let shifted = s.b.op("Add", &[&variance, &epsilon]);
        let deviation = s.b.op("Sqrt", &[&shifted]);
        let inverse = s.b.op("Reciprocal", &[&deviation]);
        let centred = s.b.op("Sub", &[s.x(0), &mean]);
        [s.b.op("Mul", &[&centred, &inverse]), inverse]
    };
    if s.wants(0) {
        let gradient =
            if is_training { normalized_gradient(s, &h, &unit, &axes, true) } else { s.b.op("Mul", &[&h, &unit[1]]) };
        s.give(0, gradient);
    }
    give_affine(s, &unit[0], &axes, false);
    Ok(())
}

fn instance(s: &mut Step<'_, '_>) -> Done {
    let rank = s.need_rank(0)?;
    let axes: Vec<i64> = (2..rank as i64).collect();
    let epsilon = s.node.float("epsilon", 1e-5).into();
    let unit = standardized(s, &axes, epsilon);
    if s.wants(0) {
        let scale = per_channel(s, s.x(1), rank);
        let h = s.b.op("Mul", &[&s.dy(), &scale]);
        let gradient = normalized_gradient(s, &h, &unit, &axes, true);
        s.give(0, gradient);
    }
    let all_but_channels: Vec<i64> = (0..rank as i64).filter(|&axis| axis != 1).collect();
    give_affine(s, &unit[0], &all_but_channels, false);
    Ok(())
}
