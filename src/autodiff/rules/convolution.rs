//! Convolution and its transpose.

use super::window::{Window, each_channel, sizes_from, spatial_axes};
use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;

pub(super) const RULES: &[(&str, Rule)] =
    &[("Conv", all(conv)), ("ConvTranspose", all(conv_transpose)), ("Col2Im", first(1, col2im))];

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

/// The convolution of an image [N, group·c, …] with the values [N, m, …] of its windows, in which strides and dilations change places:
/// [m, c, …kernel].
fn weight_gradient(s: &mut Step<'_, '_>, window: &Window, image: &str, values: &str) -> String {
    let group = s.node.int("group", 1);
    let spatial = window.kernel.len();
    let swapped = |s: &mut Step<'_, '_>, value: &str, rank: usize| {
        let swap: Vec<i64> = [1, 0].into_iter().chain(2..rank as i64).collect();
        s.b.transpose(value, &swap)
    };
    let [mut image, values] = [image, values].map(|value| swapped(s, value, spatial + 2));
    if group != 1 {
        // [group·c, N, …] as [c, group·N, …]: the examples of a group are its channels.
        let joined = |s: &mut Step<'_, '_>, front: &[i64], image: &str, sizes: &str| {
            let front = s.b.ints(front);
            let target = s.b.with("Concat", &[&front, sizes], |node| node.with_int("axis", 0));
            s.b.op("Reshape", &[image, &target])
        };
        let [sizes, spatial_sizes] = [1, 2].map(|first| sizes_from(s, &image, first));
        let apart = joined(s, &[group, -1], &image, &sizes);
        let turned = swapped(s, &apart, spatial + 3);
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
    swapped(s, &trimmed, spatial + 2)
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
