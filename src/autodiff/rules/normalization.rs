//! Normalization over axes.

use super::{Rule, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;
use crate::proto::tensor_proto::DataType;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("GroupNormalization", first(3, group)),
    ("MeanVarianceNormalization", first(1, mean_variance)),
    ("LpNormalization", first(1, lp)),
    ("LRN", first(1, local_response)),
    ("LayerNormalization", first(3, layer)),
    ("BatchNormalization", first(5, batch)),
    ("InstanceNormalization", first(3, instance)),
    ("RMSNormalization", first(2, rms)),
];

type Done = Result<(), Refusal>;

/// x̂ = (x - mean) / √(var + ε) over `axes`, and 1 / √(var + ε).
fn standardized(s: &mut Step<'_, '_>, x: &str, axes: &[i64], epsilon: f64) -> [String; 2] {
    let mean = s.b.mean(x, axes);
    let centred = s.b.op("Sub", &[x, &mean]);
    scaled_to_unit(s, &centred, axes, epsilon)
}

/// v / √(mean v² + ε) over `axes`, and 1 / √(mean v² + ε).
fn scaled_to_unit(s: &mut Step<'_, '_>, value: &str, axes: &[i64], epsilon: f64) -> [String; 2] {
    let squared = s.b.op("Mul", &[value, value]);
    let variance = s.b.mean(&squared, axes);
    let inverse = inverse_deviation(s, &variance, epsilon);
    [s.b.op("Mul", &[value, &inverse]), inverse]
}

/// 1 / √(variance + ε).
fn inverse_deviation(s: &mut Step<'_, '_>, variance: &str, epsilon: f64) -> String {
    let epsilon = s.scalar(epsilon);
    let shifted = s.b.op("Add", &[variance, &epsilon]);
    let deviation = s.b.op("Sqrt", &[&shifted]);
    s.b.op("Reciprocal", &[&deviation])
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
    let along = s.b.mean(&product, axes);
    let along = s.b.op("Mul", &[unit, &along]);
    let mut rest = s.b.op("Sub", &[h, &along]);
    if centred {
        let mean = s.b.mean(h, axes);
        rest = s.b.op("Sub", &[&rest, &mean]);
    }
    s.b.op("Mul", &[&rest, inverse])
}

/// Gradients of scale (slot 1) and bias (slot 2), each of the shape that `reduce` brings dy to.
fn give_affine(s: &mut Step<'_, '_>, dy: &str, unit: &str, axes: &[i64]) {
    if s.wants(1) {
        let product = s.b.op("Mul", &[dy, unit]);
        let gradient = reduced(s, &product, axes);
        s.give(1, gradient);
    }
    if s.wants(2) {
        let gradient = reduced(s, dy, axes);
        s.give(2, gradient);
    }
}

fn reduced(s: &mut Step<'_, '_>, value: &str, axes: &[i64]) -> String {
    if axes.is_empty() { value.to_owned() } else { s.b.sum(value, axes, false) }
}

/// All axes but that of the channels.
fn but_channels(rank: usize) -> Vec<i64> {
    (0..rank as i64).filter(|&axis| axis != 1).collect()
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
    let unit = match statistics(s).filter(|_| centred) {
        Some(statistics) => by_statistics(s, statistics),
        None if centred => standardized(s, s.x(0), &axes, epsilon),
        None => scaled_to_unit(s, s.x(0), &axes, epsilon),
    };
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

/// Where the forward pass computes them, the mean and 1 / √(var + ε), in the precision of x: those of other types than float are floats too.
fn statistics<'a>(s: &Step<'a, '_>) -> Option<[&'a str; 2]> {
    let statistics = [1, 2].map(|slot| s.y(slot));
    let are_of_the_same_type = s.elem(0) == DataType::Float as i32;
    (are_of_the_same_type && statistics.iter().all(|name| !name.is_empty())).then_some(statistics)
}

/// As [`standardized`].
fn by_statistics(s: &mut Step<'_, '_>, [mean, inverse]: [&str; 2]) -> [String; 2] {
    let centred = s.b.op("Sub", &[s.x(0), mean]);
    [s.b.op("Mul", &[&centred, inverse]), inverse.to_owned()]
}

/// A vector of one number a channel, as [1, channels, 1, …].
fn per_channel(s: &mut Step<'_, '_>, value: &str, rank: usize) -> String {
    let axes: Vec<i64> = (1..rank as i64 - 1).collect();
    if axes.is_empty() { value.to_owned() } else { s.b.unsqueeze(value, &axes) }
}

/// In inference the statistics are inputs: y = (x - mean) / √(var + ε) · scale + bias. In training mode they are the batch's.
fn batch(s: &mut Step<'_, '_>) -> Done {
    let rank = s.need_rank(0)?;
    let axes = but_channels(rank);
    let epsilon: f64 = s.node.float("epsilon", 1e-5).into();
    // Before opset 14, more than one output asked for training.
    let is_training = if s.b.opset() < 14 { !s.y(1).is_empty() } else { s.node.int("training_mode", 0) != 0 };
    if (1..5).any(|output| s.dy_at(output).is_some()) {
        return Err("gradients of its statistics".into());
    }
    let scale = per_channel(s, s.x(1), rank);
    let h = s.b.op("Mul", &[&s.dy(), &scale]);
    let unit = if is_training {
        standardized(s, s.x(0), &axes, epsilon)
    } else {
        let [mean, variance] = [3, 4].map(|slot| per_channel(s, s.x(slot), rank));
        let inverse = inverse_deviation(s, &variance, epsilon);
        let centred = s.b.op("Sub", &[s.x(0), &mean]);
        [s.b.op("Mul", &[&centred, &inverse]), inverse]
    };
    give_affine(s, &s.dy(), &unit[0], &axes);
    if is_training {
        if s.wants(0) {
            let gradient = normalized_gradient(s, &h, &unit, &axes, true);
            s.give(0, gradient);
        }
        // They are only averaged with the batch's.
        for slot in [3, 4].into_iter().filter(|&slot| s.wants(slot)).collect::<Vec<_>>() {
            let zero = s.b.op("Sub", &[s.x(slot), s.x(slot)]);
            s.give(slot, zero);
        }
        return Ok(());
    }
    let gradient = s.b.op("Mul", &[&h, &unit[1]]);
    give_statistics(s, &gradient, &unit, &axes);
    if s.wants(0) {
        s.give(0, gradient);
    }
    Ok(())
}

/// From dx: dmean = -Σ dx, and dvar = -½ Σ dx · x̂ / √(var + ε).
fn give_statistics(s: &mut Step<'_, '_>, dx: &str, [unit, inverse]: &[String; 2], axes: &[i64]) {
    if s.wants(3) {
        let sum = reduced(s, dx, axes);
        let gradient = s.b.op("Neg", &[&sum]);
        s.give(3, gradient);
    }
    if s.wants(4) {
        let share = s.b.op("Mul", &[unit, inverse]);
        let product = s.b.op("Mul", &[dx, &share]);
        let sum = reduced(s, &product, axes);
        let minus_half = s.scalar(-0.5);
        let gradient = s.b.op("Mul", &[&sum, &minus_half]);
        s.give(4, gradient);
    }
}

fn instance(s: &mut Step<'_, '_>) -> Done {
    let rank = s.need_rank(0)?;
    let axes: Vec<i64> = (2..rank as i64).collect();
    let epsilon = s.node.float("epsilon", 1e-5).into();
    let unit = standardized(s, s.x(0), &axes, epsilon);
    if s.wants(0) {
        let scale = per_channel(s, s.x(1), rank);
        let h = s.b.op("Mul", &[&s.dy(), &scale]);
        let gradient = normalized_gradient(s, &h, &unit, &axes, true);
        s.give(0, gradient);
    }
    give_affine(s, &s.dy(), &unit[0], &but_channels(rank));
    Ok(())
}

/// The channels of a group are normalized together: as rows of [N, groups, …]. Scale and bias have a number for each group before opset 21, and for each
/// channel from then on.
fn group(s: &mut Step<'_, '_>) -> Done {
    let rank = s.need_rank(0)?;
    let groups = s.node.int("num_groups", 0);
    if groups < 1 {
        return Err(format!("num_groups = {groups}"));
    }
    let epsilon = s.node.float("epsilon", 1e-5).into();
    let rows = s.b.ints(&[0, groups, -1]);
    let x = s.b.op("Reshape", &[s.x(0), &rows]);
    let unit = standardized(s, &x, &[2], epsilon);
    let dy = s.dy();
    if s.b.opset() < 21 {
        let dy = s.b.op("Reshape", &[&dy, &rows]);
        let scale = s.b.unsqueeze(s.x(1), &[1]);
        let h = s.b.op("Mul", &[&dy, &scale]);
        give_group_input(s, &h, &unit);
        give_affine(s, &dy, &unit[0], &[0, 2]);
        return Ok(());
    }
    let scale = per_channel(s, s.x(1), rank);
    let h = s.b.op("Mul", &[&dy, &scale]);
    let h = s.b.op("Reshape", &[&h, &rows]);
    give_group_input(s, &h, &unit);
    let unit = s.b.reshape_like(&unit[0], s.x(0));
    give_affine(s, &dy, &unit, &but_channels(rank));
    Ok(())
}

fn give_group_input(s: &mut Step<'_, '_>, h: &str, unit: &[String; 2]) {
    if s.wants(0) {
        let gradient = normalized_gradient(s, h, unit, &[2], true);
        let gradient = s.b.reshape_like(&gradient, s.x(0));
        s.give(0, gradient);
    }
}

/// y = (x - mean) / (deviation + 1e-9), with that number left out of the derivative of the deviation.
fn mean_variance(s: &mut Step<'_, '_>) -> Done {
    let axes = s.node.ints("axes").map_or_else(|| vec![0, 2, 3], <[i64]>::to_vec);
    let unit = standardized(s, s.x(0), &axes, 1e-18);
    let gradient = normalized_gradient(s, &s.dy(), &unit, &axes, true);
    s.give(0, gradient);
    Ok(())
}

/// y = x / ‖x‖ along an axis: dx = (dy - slope · Σ dy · y) / ‖x‖, where the norm's slope is y for p = 2, and the sign of x for p = 1.
/// Of a zero vector, which stays zero, it is taken as 0.
fn lp(s: &mut Step<'_, '_>) -> Done {
    let axes = [s.node.int("axis", -1)];
    let (size, slope) = match s.node.int("p", 2) {
        1 => (s.b.op("Abs", &[s.x(0)]), s.b.op("Sign", &[s.x(0)])),
        2 => (s.b.op("Mul", &[s.x(0), s.x(0)]), s.y(0).to_owned()),
        power => return Err(format!("p = {power}")),
    };
    let mut norm = s.b.sum(&size, &axes, true);
    if s.node.int("p", 2) == 2 {
        norm = s.b.op("Sqrt", &[&norm]);
    }
    let product = s.b.op("Mul", &[&s.dy(), s.y(0)]);
    let along = s.b.sum(&product, &axes, true);
    let along = s.b.op("Mul", &[&slope, &along]);
    let rest = s.b.op("Sub", &[&s.dy(), &along]);
    let quotient = s.b.op("Div", &[&rest, &norm]);
    let zero = s.scalar(0.0);
    let is_zero = s.b.op("Equal", &[&norm, &zero]);
    let gradient = s.b.op("Where", &[&is_zero, &zero, &quotient]);
    s.give(0, gradient);
    Ok(())
}

/// y = x · v⁻ᵝ, with v = bias + α · mean x² over a window of channels: dx = dy · v⁻ᵝ - 2αβ · x · mean (dy · x · v⁻ᵝ⁻¹) over the channels
/// whose window sees x.
fn local_response(s: &mut Step<'_, '_>) -> Done {
    let size = s.node.int("size", 0);
    if size < 1 {
        return Err(format!("size = {size}"));
    }
    let (before, after) = ((size - 1) / 2, size / 2);
    let [alpha, beta, bias] =
        [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)].map(|(name, default)| f64::from(s.node.float(name, default)));
    let squared = s.b.op("Mul", &[s.x(0), s.x(0)]);
    let mean = mean_of_channels(s, &squared, before, after);
    let alpha_scalar = s.scalar(alpha);
    let weighted = s.b.op("Mul", &[&mean, &alpha_scalar]);
    let bias = s.scalar(bias);
    let base = s.b.op("Add", &[&weighted, &bias]);
    let exponent = s.scalar(-beta);
    let power = s.b.op("Pow", &[&base, &exponent]);
    let direct = s.b.op("Mul", &[&s.dy(), &power]);
    let product = s.b.op("Mul", &[&direct, s.x(0)]);
    let share = s.b.op("Div", &[&product, &base]);
    let mean = mean_of_channels(s, &share, after, before);
    let factor = s.scalar(2.0 * alpha * beta);
    let scaled = s.b.op("Mul", &[&mean, &factor]);
    let through_window = s.b.op("Mul", &[&scaled, s.x(0)]);
    let gradient = s.b.op("Sub", &[&direct, &through_window]);
    s.give(0, gradient);
    Ok(())
}

/// The mean over each channel and those `before` and `after` it, with zeros beyond the first and the last.
fn mean_of_channels(s: &mut Step<'_, '_>, value: &str, before: i64, after: i64) -> String {
    let rows = s.b.ints(&[0, 0, -1]);
    let rows = s.b.op("Reshape", &[value, &rows]);
    let image = s.b.unsqueeze(&rows, &[1]);
    let mean = s.b.with("AveragePool", &[&image], |node| {
        node.with_ints("kernel_shape", &[before + after + 1, 1])
            .with_ints("pads", &[before, 0, after, 0])
            .with_int("count_include_pad", 1)
    });
    s.b.reshape_like(&mean, value)
}
