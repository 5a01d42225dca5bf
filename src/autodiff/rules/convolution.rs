//! Convolution.

use super::{Rule, all};
use crate::autodiff::step::{Refusal, Step};
use crate::model::{Dim, NodeExt};
use crate::proto::NodeProto;

pub(super) const RULES: &[(&str, Rule)] = &[("Conv", all(conv))];

/// The window of a convolution, an entry for each spatial axis.
struct Window {
    strides: Vec<i64>,
    dilations: Vec<i64>,
    /// Begins, then ends.
    pads: Vec<i64>,
    kernel: Vec<i64>,
    input: Vec<i64>,
}

impl Window {
    fn read(s: &Step<'_, '_>) -> Result<Self, Refusal> {
        let sizes = |slot: usize| -> Option<Vec<i64>> {
            let size = |dim: &Dim| dim.known().and_then(|size| i64::try_from(size).ok()).filter(|&size| size < 1 << 31);
            s.shape(slot)?.get(2..)?.iter().map(size).collect()
        };
        let input = sizes(0).ok_or("its input's spatial sizes are not known")?;
        let kernel = sizes(1).ok_or("its kernel's sizes are not known")?;
        let count = input.len();
        if kernel.len() != count {
            return Err(format!("a kernel with {} spatial axes for an input with {count}", kernel.len()));
        }
        // Sizes of real windows: no sum or product of them overflows.
        let list = |name: &str, default: i64, least: i64, count: usize| match s.node.ints(name) {
            Some(ints) if !ints.is_empty() => {
                let is_right = ints.len() == count && ints.iter().all(|int| (least..1 << 31).contains(int));
                if is_right { Ok(ints.to_vec()) } else { Err(format!("{name} = {ints:?}")) }
            }
            _ => Ok(vec![default; count]),
        };
        let (strides, dilations) = (list("strides", 1, 1, count)?, list("dilations", 1, 1, count)?);
        let extent = |i: usize| (kernel[i] - 1) * dilations[i] + 1;
        let auto_pad = NodeExt::attribute(s.node, "auto_pad").map_or(&b"NOTSET"[..], |attribute| attribute.s());
        let pads = match auto_pad {
            b"NOTSET" | b"" => list("pads", 0, 0, 2 * count)?,
            b"VALID" => vec![0; 2 * count],
            // As much padding as makes the output ceil(input / stride) long; an odd one goes to the end, or to the begin.
            same => {
                let total =
                    |i: usize| ((input[i] + strides[i] - 1) / strides[i] - 1) * strides[i] + extent(i) - input[i];
                let begin = |i: usize| {
                    let total = total(i).max(0);
                    if same == b"SAME_LOWER" { total - total / 2 } else { total / 2 }
                };
                (0..count).map(begin).chain((0..count).map(|i| total(i).max(0) - begin(i))).collect()
            }
        };
        Ok(Self { strides, dilations, pads, kernel, input })
    }

    /// How many elements at the end of axis `i` no window reaches.
    fn rest(&self, i: usize) -> i64 {
        let padded = self.input[i] + self.pads[i] + self.pads[self.input.len() + i];
        (padded - (self.kernel[i] - 1) * self.dilations[i] - 1) % self.strides[i]
    }
}

/// y = w * x + b: dx is the transposed convolution of dy with w; dw the convolution of x with dy, in which strides and dilations change
/// places; db the sum of dy.
fn conv(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let window = Window::read(s)?;
    let group = s.node.int("group", 1);
    let spatial = window.input.len();
    if s.wants(0) {
        let extra: Vec<i64> = (0..spatial).map(|i| window.rest(i)).collect();
        let gradient = s.b.with("ConvTranspose", &[&s.dy(), s.x(1)], |node| {
            windowed(node, &window.strides, &window.dilations, &window.pads)
                .with_ints("output_padding", &extra)
                .with_int("group", group)
        });
        s.give(0, gradient);
    }
    if s.wants(1) {
        if group != 1 {
            return Err(format!("the gradient of its weight in {group} groups"));
        }
        let swap: Vec<i64> = [1, 0].into_iter().chain(2..spatial as i64 + 2).collect();
        let [x, dy] = [s.x(0).to_owned(), s.dy()]
            .map(|value| s.b.with("Transpose", &[&value], |node| node.with_ints("perm", &swap)));
        let product =
            s.b.with("Conv", &[&x, &dy], |node| windowed(node, &window.dilations, &window.strides, &window.pads));
        // Where windows do not reach the end, the convolution goes on beyond the kernel.
        let trimmed = if (0..spatial).any(|i| window.rest(i) > 0) {
            let (starts, axes) = (vec![0; spatial], (2..spatial as i64 + 2).collect::<Vec<_>>());
            let [starts, ends, axes] = [&starts, &window.kernel, &axes].map(|list| s.b.ints(list));
            s.b.op("Slice", &[&product, &starts, &ends, &axes])
        } else {
            product
        };
        let gradient = s.b.with("Transpose", &[&trimmed], |node| node.with_ints("perm", &swap));
        s.give(1, gradient);
    }
    if s.wants(2) {
        let axes: Vec<i64> = [0].into_iter().chain(2..spatial as i64 + 2).collect();
        let gradient = s.b.sum(&s.dy(), &axes, false);
        s.give(2, gradient);
    }
    Ok(())
}

fn windowed(node: NodeProto, strides: &[i64], dilations: &[i64], pads: &[i64]) -> NodeProto {
    node.with_ints("strides", strides).with_ints("dilations", dilations).with_ints("pads", pads)
}
