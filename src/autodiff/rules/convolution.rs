//! Convolution and its transpose.

use super::window::{Window, each_channel, sizes_from, spatial_axes};
use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;

pub(super) const RULES: &[(&str, Rule)] =
    &[("Conv", all(conv)), ("ConvTranspose", all(conv_transpose)), ("Col2Im", first(1, col2im))];

/// With fewer, the matrices of [`products_by_tap`] would be too narrow.
const FEWEST_CHANNELS: i64 = 8;

/// Kernels of more elements are not written out.
const MOST_TAPS: i64 = 64;

/// y = w * x + b: dx is the transposed convolution of dy with w.
fn conv(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let window = Window::over_input(s)?;
    let group = s.node.int("group", 1);
    let dy = s.dy();
    if s.wants(0) {
        let gradient = window.spread(s, [&dy, s.x(1), s.x(0)], group);
        s.give(0, gradient);
    }
    if s.wants(1) {
        let gradient = weight_gradient(s, &window, s.x(0), &dy);
        s.give(1, gradient);
    }
    give_bias(s, window.kernel.len());
    Ok(())
}

/// y is what a convolution with w takes to x's sizes: dx is that convolution of dy.
fn conv_transpose(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let window = Window::over_output(s)?;
    let group = s.node.int("group", 1);
    let dy = s.dy();
    if s.wants(0) {
        let mut gradient = s.b.with("Conv", &[&dy, s.x(1)], |node| window.on(node, false).with_int("group", group));
        // More windows fit where the output goes on for a stride or more.
        if window.rest.iter().zip(&window.strides).any(|(rest, stride)| rest.is_some_and(|rest| rest >= *stride)) {
            let ends = sizes_from(s, s.x(0), 2);
            gradient = first_of_each_axis(s, &gradient, &ends, window.kernel.len());
        }
        s.give(0, gradient);
    }
    if s.wants(1) {
        let gradient = weight_gradient(s, &window, &dy, s.x(0));
        s.give(1, gradient);
    }
    give_bias(s, window.kernel.len());
    Ok(())
}

/// The sum over all windows of an image [N, group·c, …] and their values [N, m, …] of window times value: [m, c, …kernel].
fn weight_gradient(s: &mut Step<'_, '_>, window: &Window, image: &str, values: &str) -> String {
    products_by_tap(s, window, image, values).unwrap_or_else(|| windows_convolved(s, window, image, values))
}

/// [`weight_gradient`] as a product of matrices for each element of the kernel, a tap: of the values with what it meets in the image.
/// ONNX Runtime takes half the time for them that it takes for the convolution. `None` for groups, few channels or many
/// taps, and where it is not known where the last window ends.
fn products_by_tap(s: &mut Step<'_, '_>, window: &Window, image: &str, values: &str) -> Option<String> {
    let channels = i64::try_from(s.shape(1)?.get(1)?.known()?).ok()?;
    if s.node.int("group", 1) != 1 || channels < FEWEST_CHANNELS {
        return None;
    }
    let rest: Vec<i64> = window.rest.iter().copied().collect::<Option<_>>()?;
    let taps = window.taps(MOST_TAPS)?;
    let spatial = window.kernel.len();
    let last = spatial as i64 + 1;
    let channels_last: Vec<i64> = [0].into_iter().chain(2..=last).chain([1]).collect();
    let mut image = s.b.transpose(image, &channels_last);
    if window.begins.iter().chain(&window.ends).any(|&pad| pad != 0) {
        let pads = [&[0], window.begins.as_slice(), &[0, 0], &window.ends, &[0]].concat();
        let pads = s.b.ints(&pads);
        image = s.b.op("Pad", &[&image, &pads]);
    }
    let values = first_axes_swapped(s, values, spatial + 2);
    let [all_values, all_positions] = [[0, -1], [-1, channels]].map(|shape| s.b.ints(&shape));
    let values = s.b.op("Reshape", &[&values, &all_values]);
    let products: Vec<String> = taps
        .iter()
        .map(|tap| {
            let met = met_by(s, window, tap, &rest, &image);
            let met = s.b.op("Reshape", &[&met, &all_positions]);
            s.b.op("MatMul", &[&values, &met])
        })
        .collect();
    let product = if let [only] = products.as_slice() { only.clone() } else { s.b.concat(&products, 1) };
    let shape = [&[0], window.kernel.as_slice(), &[channels]].concat();
    let shape = s.b.ints(&shape);
    let product = s.b.op("Reshape", &[&product, &shape]);
    let channels_second: Vec<i64> = [0, last].into_iter().chain(1..last).collect();
    Some(s.b.transpose(&product, &channels_second))
}

/// What a tap meets in all windows of a padded image [N, …, c].
fn met_by(s: &mut Step<'_, '_>, window: &Window, tap: &[i64], rest: &[i64], image: &str) -> String {
    let starts: Vec<i64> = tap.iter().zip(&window.dilations).map(|(at, dilation)| at * dilation).collect();
    // Counted from the image's end.
    let end = |i: usize| match starts[i] + 1 - window.extent(i) - rest[i] {
        0 => i64::MAX,
        end => end,
    };
    let ends: Vec<i64> = (0..tap.len()).map(end).collect();
    let is = |list: &[i64], number| list.iter().all(|&item| item == number);
    if is(&starts, 0) && is(&ends, i64::MAX) && is(&window.strides, 1) {
        return image.to_owned();
    }
    let axes: Vec<i64> = (1..=tap.len() as i64).collect();
    let [starts, ends, axes, steps] = [&starts, &ends, &axes, &window.strides].map(|list| s.b.ints(list));
    s.b.op("Slice", &[image, &starts, &ends, &axes, &steps])
}

/// [N, c, …] as [c, N, …], and back.
fn first_axes_swapped(s: &mut Step<'_, '_>, value: &str, rank: usize) -> String {
    let swap: Vec<i64> = [1, 0].into_iter().chain(2..rank as i64).collect();
    s.b.transpose(value, &swap)
}

/// [`weight_gradient`] as the convolution of the image with the values, in which strides and dilations change places.
fn windows_convolved(s: &mut Step<'_, '_>, window: &Window, image: &str, values: &str) -> String {
    let group = s.node.int("group", 1);
    let spatial = window.kernel.len();
    let [mut image, values] = [image, values].map(|value| first_axes_swapped(s, value, spatial + 2));
    if group != 1 {
        // [group·c, N, …] as [c, group·N, …]: the examples of a group are its channels.
        let joined = |s: &mut Step<'_, '_>, front: &[i64], image: &str, sizes: &str| {
            let front = s.b.ints(front);
            let target = s.b.with("Concat", &[&front, sizes], |node| node.with_int("axis", 0));
            s.b.op("Reshape", &[image, &target])
        };
        let [sizes, spatial_sizes] = [1, 2].map(|first| sizes_from(s, &image, first));
        let apart = joined(s, &[group, -1], &image, &sizes);
        let turned = first_axes_swapped(s, &apart, spatial + 3);
        image = joined(s, &[0, -1], &turned, &spatial_sizes);
    }
    let product = s.b.with("Conv", &[&image, &values], |node| window.on(node, true).with_int("group", group));
    // Where windows do not reach the end, the convolution goes on beyond the kernel.
    let trimmed = if window.rest.iter().any(|rest| *rest != Some(0)) {
        let ends = s.b.ints(&window.kernel);
        first_of_each_axis(s, &product, &ends, spatial)
    } else {
        product
    };
    first_axes_swapped(s, &trimmed, spatial + 2)
}

/// The first elements along each spatial axis, as many as `ends` says.
fn first_of_each_axis(s: &mut Step<'_, '_>, value: &str, ends: &str, spatial: usize) -> String {
    let [starts, axes] = [vec![0; spatial], spatial_axes(spatial)].map(|list| s.b.ints(&list));
    s.b.op("Slice", &[value, &starts, ends, &axes])
}

/// db is the sum of dy over all axes but the channels.
fn give_bias(s: &mut Step<'_, '_>, spatial: usize) {
    if s.wants(2) {
        let axes = [vec![0], spatial_axes(spatial)].concat();
        let gradient = s.b.sum(&s.dy(), &axes, false);
        s.give(2, gradient);
    }
}

/// Each block is added to the image at its place: its gradient is what a window there sees.
fn col2im(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let kernel = s.ints("block_shape", 2).ok_or("its block_shape is not constant")?;
    let window = Window::of_kernel(s, kernel)?;
    let image = each_channel(s, &s.dy());
    let patches = window.patches(s, &image)?;
    let gradient = s.b.reshape_like(&patches, s.x(0));
    s.give(0, gradient);
    Ok(())
}
