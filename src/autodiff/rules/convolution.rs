//! Convolution and its transpose.

use super::window::{Window, each_channel, sizes_from, spatial_axes};
use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;

pub(super) const RULES: &[(&str, Rule)] =
    &[("Conv", all(conv)), ("ConvTranspose", all(conv_transpose)), ("Col2Im", first(1, col2im))];

/// With fewer, the matrices of [`weight_by_tap`] and [`image_by_tap`] would be too narrow.
const FEWEST_CHANNELS: i64 = 8;

/// An image of as many positions is wide enough for a product of its own.
const WIDE: i64 = 64;

/// Kernels of more elements are not written out.
const MOST_TAPS: i64 = 64;

/// y = w * x + b: dx is the transposed convolution of dy with w.
fn conv(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let window = Window::over_input(s)?;
    let group = s.node.int("group", 1);
    let dy = s.dy();
    if s.wants(0) {
        let gradient = image_by_tap(s, &window, &dy).unwrap_or_else(|| window.spread(s, [&dy, s.x(1), s.x(0)], group));
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
    weight_by_tap(s, window, image, values).unwrap_or_else(|| windows_convolved(s, window, image, values))
}

/// The gradient of the image of a convolution as a sum of products of matrices, one for each element of the kernel, a tap: of what it meets in dy,
/// with its weight. ONNX Runtime makes of the transposed convolution a product for each image, with a column for each of its positions: where these
/// are few, it takes up to three times as long. `None` for wide images, groups, strides, few channels or many taps.
fn image_by_tap(s: &mut Step<'_, '_>, window: &Window, dy: &str) -> Option<String> {
    let sizes: Vec<i64> = window.sizes(s.shape(0)).into_iter().collect::<Option<_>>()?;
    let is_small =
        sizes.iter().try_fold(1, |count: i64, &size| count.checked_mul(size)).is_some_and(|count| count < WIDE);
    let channels = channels(s)?;
    if !is_small || window.strides.iter().any(|&stride| stride != 1) {
        return None;
    }
    let taps = window.taps(MOST_TAPS)?;
    let spatial = sizes.len();
    // A position is met by windows that begin up to an extent before it.
    let around = |pads: &[i64]| (0..spatial).map(|i| window.extent(i) - 1 - pads[i]).collect::<Vec<_>>();
    let (before, after) = (around(&window.begins), around(&window.ends));
    if before.iter().chain(&after).any(|&pad| pad < 0) {
        return None;
    }
    let dy = channels_last(s, dy, &before, &after);
    let taps_first: Vec<i64> = (2..spatial as i64 + 2).chain([0, 1]).collect();
    let weights = s.b.transpose(s.x(1), &taps_first);
    let matrix = s.b.ints(&[-1, channels[1]]);
    let weights = s.b.op("Reshape", &[&weights, &matrix]);
    let weights = if taps.len() == 1 { vec![weights] } else { s.b.split(&weights, 0, &vec![channels[0]; taps.len()]) };
    let rows = s.b.ints(&[-1, channels[0]]);
    let mut sum: Option<String> = None;
    for (tap, weight) in taps.iter().zip(&weights) {
        let from_end: Vec<i64> = tap.iter().zip(&window.kernel).map(|(at, size)| size - 1 - at).collect();
        let met = met_by(s, window, &from_end, &vec![0; spatial], &dy);
        let met = s.b.op("Reshape", &[&met, &rows]);
        let factors: Vec<&str> = [met.as_str(), weight].into_iter().chain(sum.as_deref()).collect();
        sum = Some(s.b.op("Gemm", &factors));
    }
    let shape = [&[-1], sizes.as_slice(), &[channels[1]]].concat();
    let shape = s.b.ints(&shape);
    let image = s.b.op("Reshape", &[&sum?, &shape]);
    Some(channels_second(s, &image, spatial))
}

/// [`weight_gradient`] as a product of matrices for each tap: of the values with what it meets in the image.
/// ONNX Runtime takes half the time for them that it takes for the convolution. `None` for groups, few channels or many
/// taps, and where it is not known where the last window ends.
fn weight_by_tap(s: &mut Step<'_, '_>, window: &Window, image: &str, values: &str) -> Option<String> {
    let [_, channels] = channels(s)?;
    let rest: Vec<i64> = window.rest.iter().copied().collect::<Option<_>>()?;
    let taps = window.taps(MOST_TAPS)?;
    let spatial = window.kernel.len();
    let image = channels_last(s, image, &window.begins, &window.ends);
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
    Some(channels_second(s, &product, spatial))
}

/// How many channels a kernel without groups makes, and how many it reads, if these are many enough for products.
fn channels(s: &Step<'_, '_>) -> Option<[i64; 2]> {
    let size = |axis: usize| i64::try_from(s.shape(1)?.get(axis)?.known()?).ok();
    let sizes = [size(0)?, size(1)?];
    (s.node.int("group", 1) == 1 && sizes[1] >= FEWEST_CHANNELS).then_some(sizes)
}

/// An image [N, c, …] as [N, …, c], padded.
fn channels_last(s: &mut Step<'_, '_>, image: &str, before: &[i64], after: &[i64]) -> String {
    let order: Vec<i64> = [0].into_iter().chain(spatial_axes(before.len())).chain([1]).collect();
    let image = s.b.transpose(image, &order);
    if before.iter().chain(after).all(|&pad| pad == 0) {
        return image;
    }
    let pads = [&[0], before, &[0, 0], after, &[0]].concat();
    let pads = s.b.ints(&pads);
    s.b.op("Pad", &[&image, &pads])
}

/// [N, …, c] as [N, c, …].
fn channels_second(s: &mut Step<'_, '_>, value: &str, spatial: usize) -> String {
    let last = spatial as i64 + 1;
    let order: Vec<i64> = [0, last].into_iter().chain(1..last).collect();
    s.b.transpose(value, &order)
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
