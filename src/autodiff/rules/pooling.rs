//! Pooling over windows.

use super::gather::adding;
use super::window::{Window, each_channel};
use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;
use crate::proto::{NodeProto, TensorProto};

pub(super) const RULES: &[(&str, Rule)] = &[
    ("MaxPool", all(max)),
    ("MaxUnpool", first(1, unpool)),
    ("AveragePool", all(average)),
    ("LpPool", all(lp)),
    ("GlobalLpPool", all(global_lp)),
];

type Done = Result<(), Refusal>;

/// The number of elements that a window averages is written out for at most so many windows along an axis.
const MAX_COUNTS: i64 = 1 << 16;

/// dy goes to the one element that the forward pass took: of equal ones, the first.
fn max(s: &mut Step<'_, '_>) -> Done {
    let gradient = if s.b.scatters_add() { scattered(s) } else { compared(s)? };
    let gradient = s.b.reshape_like(&gradient, s.x(0));
    s.give(0, gradient);
    Ok(())
}

/// A MaxPool that also tells the places of what it takes, in the order in which a scatter counts.
pub(crate) fn telling_places(pool: &NodeProto, places: &str) -> NodeProto {
    let mut pool = pool.clone();
    pool.attribute.retain(|attribute| attribute.name() != "storage_order");
    pool.output.truncate(1);
    pool.output.push(places.to_owned());
    pool
}

/// dy added at the places that MaxPool tells, which count through the whole tensor.
fn scattered(s: &mut Step<'_, '_>) -> String {
    let places = if s.y(1).is_empty() || s.node.int("storage_order", 0) != 0 {
        let [pooled, places] = ["MaxPool", "Indices"].map(|base| s.b.fresh(base));
        let mut node = telling_places(s.node, &places).named("");
        node.output[0] = pooled;
        s.b.push(node);
        places
    } else {
        s.y(1).to_owned()
    };
    let flat = s.b.ints(&[-1]);
    let [places, dy] = [places, s.dy()].map(|value| s.b.op("Reshape", &[&value, &flat]));
    let size = s.b.op("Size", &[s.x(0)]);
    let size = s.b.op("Reshape", &[&size, &flat]);
    let elem = s.elem(0);
    let zeros = s.b.filled(&size, 0.0, elem);
    s.b.with("ScatterElements", &[&zeros, &places, &dy], |node| adding(node.with_int("axis", 0)))
}

/// dy at the places, which count through the whole tensor.
fn unpool(s: &mut Step<'_, '_>) -> Done {
    if s.has(2) {
        return Err("with output_shape, releases disagree whether its places count through that shape".into());
    }
    let flat = s.b.ints(&[-1]);
    let [places, dy] = [s.x(1), s.dy().as_str()].map(|value| s.b.op("Reshape", &[value, &flat]));
    let taken = s.b.op("GatherElements", &[&dy, &places]);
    let gradient = s.b.reshape_like(&taken, s.x(0));
    s.give(0, gradient);
    Ok(())
}

/// Before opset 16 no scatter adds: dy goes to the first largest of the elements that a window sees.
fn compared(s: &mut Step<'_, '_>) -> Result<String, Refusal> {
    let window = Window::over_input(s)?;
    let spatial = window.kernel.len();
    if s.node.int("ceil_mode", 0) != 0 && window.rest.contains(&None) {
        return Err(
            "how many windows ceil_mode makes depends on sizes, and its gradient without them needs opset 16".into()
        );
    }
    // Padding is smaller than all elements.
    let beyond: Vec<i64> = window.rest.iter().map(|rest| -rest.unwrap_or(0).min(0)).collect();
    let ends = window.ends.iter().zip(&beyond).map(|(end, beyond)| end + beyond);
    let pads: Vec<i64> = [0, 0].into_iter().chain(window.begins.clone()).chain([0, 0]).chain(ends).collect();
    let pads = s.b.ints(&pads);
    let lowest = s.scalar(lowest(s.elem(0)));
    let image = s.b.op("Pad", &[s.x(0), &pads, &lowest]);
    let image = each_channel(s, &image);
    let kernel = window.one_hot(s)?;
    let patches = s.b.with("Conv", &[&image, &kernel], |node| {
        node.with_ints("strides", &window.strides).with_ints("dilations", &window.dilations)
    });
    let largest = s.b.with("ArgMax", &[&patches], |node| node.with_int("axis", 1));
    let count: i64 = window.kernel.iter().product();
    let dims: Vec<i64> = [1, count].into_iter().chain(std::iter::repeat_n(1, spatial)).collect();
    let places: Vec<i64> = (0..count).collect();
    let places = s.b.constant(TensorProto { dims, ..TensorProto::of_ints(&places) });
    let is_taken = s.b.op("Equal", &[&largest, &places]);
    let elem = s.elem(0);
    let taken = s.b.cast(&is_taken, elem);
    let dy = each_channel(s, &s.dy());
    let values = s.b.op("Mul", &[&taken, &dy]);
    Ok(window.spread(s, [&values, &kernel, s.x(0)], 1))
}

/// The least finite number of an element type.
fn lowest(elem: i32) -> f64 {
    use crate::proto::tensor_proto::DataType;
    match DataType::try_from(elem) {
        Ok(DataType::Double) => f64::MIN,
        Ok(DataType::Float16) => half::f16::MIN.into(),
        Ok(DataType::Bfloat16) => half::bf16::MIN.into(),
        _ => f32::MIN.into(),
    }
}

/// Each element of a window gets dy over the number of elements that the window averages, which is a product over the axes.
fn average(s: &mut Step<'_, '_>) -> Done {
    let window = Window::over_input(s)?;
    let spatial = window.kernel.len();
    let mut share = s.dy();
    let mut common = 1.0;
    for i in 0..spatial {
        let counts = counts(s, &window, i)?;
        if counts.iter().all(|count| *count == counts[0]) {
            common *= counts[0];
        } else {
            let dims: Vec<i64> = [counts.len() as i64].into_iter().chain(vec![1; spatial - 1 - i]).collect();
            let elem = s.elem(0);
            let counts = s.b.constant(TensorProto::of_floats(&counts, &dims, elem));
            share = s.b.op("Div", &[&share, &counts]);
        }
    }
    let gradient = spread(s, &window, &share, 1.0 / common);
    s.give(0, gradient);
    Ok(())
}

/// How many elements along axis `i` each window averages: one number where all are alike.
fn counts(s: &Step<'_, '_>, window: &Window, i: usize) -> Result<Vec<f64>, Refusal> {
    let (kernel, stride, dilation) = (window.kernel[i], window.strides[i], window.dilations[i]);
    let (begin, end) = (window.begins[i], window.ends[i]);
    let counts_pads = s.node.int("count_include_pad", 0) != 0;
    let is_inside = s.node.int("ceil_mode", 0) == 0 && (counts_pads || begin == 0 && end == 0);
    if is_inside {
        return Ok(vec![kernel as f64]);
    }
    let (image, count) = (window.sizes(s.shape(0))[i], window.sizes(s.output_shape())[i]);
    let (image, count) = image.zip(count).ok_or("how many elements its windows average depends on sizes")?;
    if !(1..MAX_COUNTS).contains(&count) {
        return Err(format!("{count} windows along an axis"));
    }
    let (low, high) = if counts_pads { (-begin, image + end) } else { (0, image) };
    let inside = |at: i64| {
        let start = at * stride - begin;
        let before = (low - start + dilation - 1).div_euclid(dilation).max(0);
        let up_to = (high - start + dilation - 1).div_euclid(dilation).min(kernel);
        (up_to - before).max(1) as f64
    };
    Ok((0..count).map(inside).collect())
}

/// `values`, one for each window, times `factor`, added to all elements of the window.
fn spread(s: &mut Step<'_, '_>, window: &Window, values: &str, factor: f64) -> String {
    let values = each_channel(s, values);
    let shape = s.b.ints(&[&[1, 1], window.kernel.as_slice()].concat());
    let elem = s.elem(0);
    let kernel = s.b.filled(&shape, factor, elem);
    let spread = window.spread(s, [&values, &kernel, s.x(0)], 1);
    s.b.reshape_like(&spread, s.x(0))
}

/// y = (Σ |x|ᵖ)¹ᐟᵖ over a window: dx = sign x · |x|ᵖ⁻¹ · Σ dy / yᵖ⁻¹ over the windows that see x.
fn lp(s: &mut Step<'_, '_>) -> Done {
    let window = Window::over_input(s)?;
    let share = over_power(s)?;
    let spread = spread(s, &window, &share, 1.0);
    times_slope(s, &spread)
}

fn global_lp(s: &mut Step<'_, '_>) -> Done {
    let share = over_power(s)?;
    times_slope(s, &share)
}

/// dy / yᵖ⁻¹, and dy where y is 0, as all the window's elements are then.
fn over_power(s: &mut Step<'_, '_>) -> Result<String, Refusal> {
    let power = power(s)?;
    let (zero, one) = (s.scalar(0.0), s.scalar(1.0));
    let is_zero = s.b.op("Equal", &[s.y(0), &zero]);
    let safe = s.b.op("Where", &[&is_zero, &one, s.y(0)]);
    let less = s.scalar(power - 1.0);
    let divisor = s.b.op("Pow", &[&safe, &less]);
    Ok(s.b.op("Div", &[&s.dy(), &divisor]))
}

fn times_slope(s: &mut Step<'_, '_>, value: &str) -> Done {
    let less = s.scalar(power(s)? - 1.0);
    let (size, sign) = (s.b.op("Abs", &[s.x(0)]), s.b.op("Sign", &[s.x(0)]));
    let power = s.b.op("Pow", &[&size, &less]);
    let slope = s.b.op("Mul", &[&sign, &power]);
    let gradient = s.b.op("Mul", &[&slope, value]);
    s.give(0, gradient);
    Ok(())
}

fn power(s: &Step<'_, '_>) -> Result<f64, Refusal> {
    match s.node.int("p", 2) {
        power @ 1.. => Ok(power as f64),
        power => Err(format!("p = {power}")),
    }
}
