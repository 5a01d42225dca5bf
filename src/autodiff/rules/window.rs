//! The windows that a convolution or a pooling moves over an image: where each stands, and the way back from windows to the image.

use crate::autodiff::step::{Refusal, Step};
use crate::model::{Dim, NodeExt};
use crate::proto::{NodeProto, TensorProto};

/// Sizes of real windows are smaller: no sum or product of them overflows.
const TOO_LARGE: i64 = 1 << 31;

/// A kernel of more elements is not written out with a one for each of them.
const MAX_ONE_HOT: i64 = 1 << 10;

/// How a window moves, an entry for each spatial axis.
pub(super) struct Window {
    pub(super) kernel: Vec<i64>,
    pub(super) strides: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    /// Padding before the image, and after it.
    pub(super) begins: Vec<i64>,
    pub(super) ends: Vec<i64>,
    /// How many elements at the end of the padded image no window reaches; negative where the last one goes beyond it. `None` where
    /// that depends on sizes that are not known.
    pub(super) rest: Vec<Option<i64>>,
}

impl Window {
    /// That of a node that moves it over its first input: Conv and the poolings.
    pub(super) fn over_input(s: &Step<'_, '_>) -> Result<Self, Refusal> {
        let mut window = Self::of_kernel(s, kernel(s)?)?;
        let (image, count) = (window.sizes(s.shape(0)), window.sizes(s.output_shape()));
        match s.node.string("auto_pad", "NOTSET") {
            b"NOTSET" | b"" | b"VALID" => {}
            mode => {
                for (i, &image) in image.iter().enumerate() {
                    let total = window.same_padding(i, image).ok_or("its input's spatial sizes are not known")?;
                    window.set_padding(i, total, mode != b"SAME_LOWER");
                }
            }
        }
        let ceil = s.node.int("ceil_mode", 0) != 0;
        for i in 0..window.kernel.len() {
            let slack = image[i].map(|image| image + window.begins[i] + window.ends[i] - window.extent(i));
            window.rest[i] = match window.strides[i] {
                1 => Some(0),
                stride if ceil => slack.zip(count[i]).map(|(slack, count)| slack - (count - 1) * stride),
                stride => slack.map(|slack| slack.rem_euclid(stride)),
            };
        }
        Ok(window)
    }

    /// That of ConvTranspose, which moves it over its output.
    pub(super) fn over_output(s: &Step<'_, '_>) -> Result<Self, Refusal> {
        let mut window = Self::of_kernel(s, kernel(s)?)?;
        let spatial = window.kernel.len();
        let extra = list(s, "output_padding", 0, 0, spatial)?;
        let sizes = s.node.ints("output_shape").filter(|sizes| !sizes.is_empty());
        // The output has the batch and the channels in front in some models.
        let sizes = sizes.map(|sizes| &sizes[sizes.len().saturating_sub(spatial)..]);
        let count = window.sizes(s.shape(0));
        let mode = s.node.string("auto_pad", "NOTSET");
        for i in 0..spatial {
            window.rest[i] = Some(extra[i]);
            let stride = window.strides[i];
            let total = match sizes {
                Some(sizes) => {
                    let size = *sizes.get(i).filter(|size| (0..TOO_LARGE).contains(size)).ok_or("output_shape")?;
                    let count = count[i].ok_or("its input's spatial sizes are not known")?;
                    let total = (count - 1) * stride + extra[i] + window.extent(i) - size;
                    // Where the output is larger than what windows reach, it has zeros at the end.
                    window.rest[i] = Some(extra[i] - total.min(0));
                    total
                }
                None if mode.starts_with(b"SAME") => extra[i] + window.extent(i) - stride,
                None => continue,
            };
            window.set_padding(i, total.max(0), mode == b"SAME_UPPER");
        }
        Ok(window)
    }

    /// A window of these sizes, with the node's strides, dilations and pads.
    pub(super) fn of_kernel(s: &Step<'_, '_>, kernel: Vec<i64>) -> Result<Self, Refusal> {
        let count = kernel.len();
        if count == 0 || kernel.iter().any(|size| !(1..TOO_LARGE).contains(size)) {
            return Err(format!("a kernel of sizes {kernel:?}"));
        }
        let mut begins = match s.node.string("auto_pad", "NOTSET") {
            b"NOTSET" | b"" => list(s, "pads", 0, 0, 2 * count)?,
            _ => vec![0; 2 * count],
        };
        let ends = begins.split_off(count);
        let (strides, dilations) = (list(s, "strides", 1, 1, count)?, list(s, "dilations", 1, 1, count)?);
        Ok(Self { kernel, strides, dilations, begins, ends, rest: vec![Some(0); count] })
    }

    /// From the first element of a window to its last.
    pub(super) fn extent(&self, i: usize) -> i64 {
        (self.kernel[i] - 1) * self.dilations[i] + 1
    }

    /// The spatial sizes of an image of this shape, or the numbers of windows.
    pub(super) fn sizes(&self, shape: Option<&[Dim]>) -> Vec<Option<i64>> {
        let size = |dim: &Dim| i64::try_from(dim.known()?).ok().filter(|&size| size < TOO_LARGE);
        (0..self.kernel.len()).map(|i| size(shape?.get(2 + i)?)).collect()
    }

    /// As much padding as makes the windows ceil(image / stride); of an image of unknown size, only stride 1 tells.
    fn same_padding(&self, i: usize, image: Option<i64>) -> Option<i64> {
        let (stride, extent) = (self.strides[i], self.extent(i));
        match image {
            _ if stride == 1 => Some(extent - 1),
            Some(image) => Some((((image + stride - 1) / stride - 1) * stride + extent - image).max(0)),
            None => None,
        }
    }

    /// An odd padding goes to the end, or else to the begin.
    fn set_padding(&mut self, i: usize, total: i64, odd_to_end: bool) {
        self.begins[i] = if odd_to_end { total / 2 } else { total - total / 2 };
        self.ends[i] = total - self.begins[i];
    }

    /// The node with the attributes of this window; it reads a window's elements where `self` steps, and the other way round, if `turned`.
    pub(super) fn on(&self, node: NodeProto, turned: bool) -> NodeProto {
        let (strides, dilations) =
            if turned { (&self.dilations, &self.strides) } else { (&self.strides, &self.dilations) };
        let pads = [self.begins.as_slice(), &self.ends].concat();
        node.with_ints("strides", strides).with_ints("dilations", dilations).with_ints("pads", &pads)
    }

    /// The transposed convolution: `values`, one for each window, times `weight`, added where the windows stand on `image`.
    pub(super) fn spread(&self, s: &mut Step<'_, '_>, [values, weight, image]: [&str; 3], group: i64) -> String {
        let spatial = self.kernel.len();
        let beyond: Option<Vec<i64>> =
            self.ends.iter().zip(&self.rest).map(|(&end, rest)| Some(end - (*rest)?)).collect();
        let moved = |node: NodeProto| {
            node.with_ints("strides", &self.strides).with_ints("dilations", &self.dilations).with_int("group", group)
        };
        if let Some(beyond) = beyond {
            let pads: Vec<i64> = self.begins.iter().copied().chain(beyond.iter().map(|&end| end.max(0))).collect();
            let extra: Vec<i64> = beyond.iter().map(|&end| (-end).max(0)).collect();
            return s.b.with("ConvTranspose", &[values, weight], |node| {
                moved(node).with_ints("pads", &pads).with_ints("output_padding", &extra)
            });
        }
        let whole = s.b.with("ConvTranspose", &[values, weight], moved);
        // Windows leave out less than a stride.
        let mut room = vec![0; 2 * (spatial + 2)];
        for (room, stride) in room[spatial + 4..].iter_mut().zip(&self.strides) {
            *room = stride - 1;
        }
        let room = s.b.ints(&room);
        let whole = s.b.op("Pad", &[&whole, &room]);
        let starts = s.b.ints(&self.begins);
        let sizes = sizes_from(s, image, 2);
        let ends = s.b.op("Add", &[&starts, &sizes]);
        let axes = s.b.ints(&spatial_axes(spatial));
        s.b.op("Slice", &[&whole, &starts, &ends, &axes])
    }

    /// The elements of the kernel by their places, row-major; `None` if there are more than `most`.
    pub(super) fn taps(&self, most: i64) -> Option<Vec<Vec<i64>>> {
        let place = |mut at: i64| {
            let mut tap = vec![0; self.kernel.len()];
            for (place, size) in tap.iter_mut().zip(&self.kernel).rev() {
                *place = at % size;
                at /= size;
            }
            tap
        };
        Some((0..self.count(most)?).map(place).collect())
    }

    /// The number of the kernel's elements, if there are no more than `most`.
    fn count(&self, most: i64) -> Option<i64> {
        let count = self.kernel.iter().try_fold(1, |count: i64, size| count.checked_mul(*size));
        count.filter(|&count| count <= most)
    }

    /// What each window sees of an image with one channel: its elements as channels.
    pub(super) fn patches(&self, s: &mut Step<'_, '_>, image: &str) -> Result<String, Refusal> {
        let kernel = self.one_hot(s)?;
        Ok(s.b.with("Conv", &[image, &kernel], |node| self.on(node, false)))
    }

    /// A kernel for each element of the window, with a one there.
    pub(super) fn one_hot(&self, s: &mut Step<'_, '_>) -> Result<String, Refusal> {
        let count = self.count(MAX_ONE_HOT).ok_or_else(|| format!("a kernel of sizes {:?}", self.kernel))?;
        let dims: Vec<i64> = [count, 1].into_iter().chain(self.kernel.iter().copied()).collect();
        let values: Vec<f64> = (0..count * count).map(|at| f64::from(u8::from(at % (count + 1) == 0))).collect();
        let elem = s.elem(0);
        Ok(s.b.constant(TensorProto::of_floats(&values, &dims, elem)))
    }
}

/// The axes behind batch and channels.
pub(super) fn spatial_axes(spatial: usize) -> Vec<i64> {
    (2..2 + spatial as i64).collect()
}

/// The sizes of a value's axes from `first` on, at run time.
pub(super) fn sizes_from(s: &mut Step<'_, '_>, value: &str, first: i64) -> String {
    let shape = s.b.op("Shape", &[value]);
    let [start, end] = [first, i64::MAX].map(|at| s.b.ints(&[at]));
    s.b.op("Slice", &[&shape, &start, &end])
}

/// [N, C, …] as [N·C, 1, …].
pub(super) fn each_channel(s: &mut Step<'_, '_>, value: &str) -> String {
    let front = s.b.ints(&[-1, 1]);
    let sizes = sizes_from(s, value, 2);
    let target = s.b.with("Concat", &[&front, &sizes], |node| node.with_int("axis", 0));
    s.b.op("Reshape", &[value, &target])
}

/// The kernel's sizes: of the attribute, or of the weight.
fn kernel(s: &Step<'_, '_>) -> Result<Vec<i64>, Refusal> {
    let spatial = s.need_rank(0)?.checked_sub(2).ok_or("an input without spatial axes")?;
    let size = |dim: &Dim| i64::try_from(dim.known()?).ok();
    let of_weight = || s.shape(1)?.get(2..)?.iter().map(size).collect::<Option<Vec<i64>>>();
    let stated = s.node.ints("kernel_shape").filter(|sizes| !sizes.is_empty()).map(<[i64]>::to_vec);
    let kernel = stated.or_else(of_weight).ok_or("its kernel's sizes are not known")?;
    if kernel.len() == spatial {
        Ok(kernel)
    } else {
        Err(format!("a kernel with {} spatial axes for an input with {spatial}", kernel.len()))
    }
}

fn list(s: &Step<'_, '_>, name: &str, default: i64, least: i64, count: usize) -> Result<Vec<i64>, Refusal> {
    match s.node.ints(name) {
        Some(ints) if !ints.is_empty() => {
            let is_right = ints.len() == count && ints.iter().all(|int| (least..TOO_LARGE).contains(int));
            if is_right { Ok(ints.to_vec()) } else { Err(format!("{name} = {ints:?}")) }
        }
        _ => Ok(vec![default; count]),
    }
}
