//! Shapes of operators on images: windows, padding, resizing.

use super::{Call, Shape, from_front};
use crate::model::{Dim, NodeExt};

/// Sizes of real windows are smaller: no sum or product of them overflows.
const TOO_LARGE: i64 = 1 << 31;

/// A window along one axis.
struct Window {
    stride: i64,
    /// From the first element to the last.
    extent: i64,
    /// Before and after.
    pads: [i64; 2],
}

impl Call<'_> {
    /// An entry of a list of window sizes.
    fn entry(&self, name: &str, i: usize, default: i64) -> Option<i64> {
        let list = self.node.ints(name).filter(|ints| !ints.is_empty());
        let value = list.map_or(Some(default), |ints| ints.get(i).copied());
        value.filter(|value| (0..TOO_LARGE).contains(value))
    }

    /// The window along spatial axis `i` of `spatial`, of a kernel that the attribute or the weight tells.
    fn window_along(&self, i: usize, spatial: usize) -> Option<Window> {
        let kernel = match self.node.ints("kernel_shape") {
            Some(kernel) => *kernel.get(i)?,
            None => i64::try_from(self.shape(1)?.get(2 + i)?.known()?).ok()?,
        };
        let kernel = Some(kernel).filter(|size| (1..TOO_LARGE).contains(size))?;
        let stride = self.entry("strides", i, 1).filter(|&stride| stride > 0)?;
        let extent = (kernel - 1) * self.entry("dilations", i, 1)? + 1;
        let pads = [self.entry("pads", i, 0)?, self.entry("pads", spatial + i, 0)?];
        Some(Window { stride, extent, pads })
    }

    /// Convolution and pooling: batch and channels are known, the rest where all attributes and sizes are.
    pub(super) fn window(&self) -> Shape {
        let input = self.shape(0)?;
        let spatial = input.len().checked_sub(2)?;
        let channels = if self.node.op_type() == "Conv" { self.shape(1)?.first()? } else { &input[1] };
        let size = |i: usize| self.windows(i, spatial, i64::try_from(input[2 + i].known()?).ok()?);
        let sizes = (0..spatial).map(|i| known(size(i)));
        Some([input[0].clone(), channels.clone()].into_iter().chain(sizes).collect())
    }

    /// How many windows stand along spatial axis `i`, of this size.
    fn windows(&self, i: usize, spatial: usize, size: i64) -> Option<i64> {
        let Window { stride, extent, pads: [begin, end], .. } = self.window_along(i, spatial)?;
        if size >= TOO_LARGE {
            return None;
        }
        let ceil = self.node.int("ceil_mode", 0) != 0;
        match self.node.string("auto_pad", "NOTSET") {
            b"SAME_UPPER" | b"SAME_LOWER" => Some((size + stride - 1) / stride),
            b"VALID" if ceil => None,
            b"VALID" => Some((size - extent) / stride + 1),
            _ if ceil => {
                let count = (size + begin + end - extent + stride - 1) / stride + 1;
                // Releases disagree about a window that would begin behind the image.
                Some(count).filter(|count| (count - 1) * stride < size + begin)
            }
            _ => Some((size + begin + end - extent) / stride + 1),
        }
    }

    pub(super) fn conv_transpose(&self) -> Shape {
        let (input, weight) = (self.shape(0)?, self.shape(1)?);
        let spatial = input.len().checked_sub(2)?;
        let groups = u64::try_from(self.node.int("group", 1)).ok()?;
        let channels = weight.get(1)?.known().and_then(|size| size.checked_mul(groups));
        let size = |i: usize| -> Option<i64> {
            let sizes = self.node.ints("output_shape").filter(|sizes| !sizes.is_empty());
            if let Some(sizes) = sizes {
                return sizes.get((sizes.len() + i).checked_sub(spatial)?).copied();
            }
            let count = i64::try_from(input[2 + i].known()?).ok().filter(|&size| size < TOO_LARGE)?;
            let Window { stride, extent, pads: [begin, end], .. } = self.window_along(i, spatial)?;
            let whole = (count - 1) * stride + self.entry("output_padding", i, 0)? + extent;
            Some(match self.node.string("auto_pad", "NOTSET") {
                b"SAME_UPPER" | b"SAME_LOWER" => whole.min(count * stride),
                b"VALID" => whole,
                _ => whole - begin - end,
            })
        };
        let channels = channels.map_or(Dim::Unknown, Dim::Known);
        let sizes = (0..spatial).map(|i| known(size(i)));
        Some([input[0].clone(), channels].into_iter().chain(sizes).collect())
    }

    pub(super) fn col2im(&self) -> Shape {
        let input = self.shape(0)?;
        let (image, block) = (self.sizes(1)?, self.list("block_shape", 2)?);
        let elements = block.iter().try_fold(1, |all: i64, size| all.checked_mul(*size));
        let elements = elements.and_then(|all| u64::try_from(all).ok()).filter(|&all| all > 0);
        let channels = input.get(1)?.known().zip(elements).map(|(channels, elements)| channels / elements);
        let front = [input[0].clone(), channels.map_or(Dim::Unknown, Dim::Known)];
        Some(front.into_iter().chain(image).collect())
    }

    pub(super) fn pad(&self) -> Shape {
        let mut shape = self.shape(0)?.to_vec();
        let axes = if self.input(3).is_some() { self.list("axes", 3) } else { Some((0..shape.len() as i64).collect()) };
        let Some((pads, axes)) = self.list("pads", 1).zip(axes) else { return Some(vec![Dim::Unknown; shape.len()]) };
        for (i, &axis) in axes.iter().enumerate() {
            let axis = from_front(axis, shape.len())?;
            let (begin, end) = (*pads.get(i)?, *pads.get(axes.len() + i)?);
            if (begin, end) != (0, 0) {
                let size = shape[axis].known().and_then(|size| size.checked_add_signed(begin)?.checked_add_signed(end));
                shape[axis] = size.map_or(Dim::Unknown, Dim::Known);
            }
        }
        Some(shape)
    }

    /// By sizes, or by scales; where neither is known or the region matters, only the rank is.
    pub(super) fn resize(&self) -> Shape {
        let mut shape = self.shape(0)?.to_vec();
        let axes = self.node.ints("axes").map_or_else(|| (0..shape.len() as i64).collect(), <[i64]>::to_vec);
        let is_stretched = self.node.string("keep_aspect_ratio_policy", "stretch") == b"stretch";
        let is_cropped = self.node.string("coordinate_transformation_mode", "half_pixel") == b"tf_crop_and_resize";
        let sizes = self.sizes(3).filter(|_| is_stretched);
        let scales = self.input(2).and_then(|scales| self.graph.constant(self.index, scales)?.float_elements());
        let scales = scales.filter(|_| self.input(3).is_none() && !is_cropped);
        for (i, &axis) in axes.iter().enumerate() {
            let axis = from_front(axis, shape.len())?;
            let scaled = |size: u64, scale: f32| Some((size as f32 * scale) as u64).filter(|&size| size < 1 << 31);
            shape[axis] = match (&sizes, &scales) {
                (Some(sizes), _) => sizes.get(i)?.clone(),
                (None, Some(scales)) if scales.get(i) == Some(&1.0) => continue,
                (None, Some(scales)) => {
                    let size = shape[axis].known().zip(scales.get(i)).and_then(|(size, &scale)| scaled(size, scale));
                    size.map_or(Dim::Unknown, Dim::Known)
                }
                (None, None) => Dim::Unknown,
            };
        }
        Some(shape)
    }

    /// Batch and channels of the image, places of the grid.
    pub(super) fn grid_sample(&self) -> Shape {
        let (image, grid) = (self.shape(0)?, self.shape(1)?);
        Some([image.get(..2)?, grid.get(1..grid.len().checked_sub(1)?)?].concat())
    }

    /// DepthToSpace; the other way round, SpaceToDepth.
    pub(super) fn blocks(&self, to_space: bool) -> Shape {
        let [n, channels, rows, columns] = self.shape(0)? else { return None };
        let size = u64::try_from(self.node.int("blocksize", 0)).ok().filter(|size| (1..1 << 16).contains(size))?;
        let scaled = |dim: &Dim, factor: u64, up: bool| {
            let size = dim.known().and_then(|dim| if up { dim.checked_mul(factor) } else { Some(dim / factor) });
            size.map_or(Dim::Unknown, Dim::Known)
        };
        let [rows, columns] = [rows, columns].map(|dim| scaled(dim, size, to_space));
        Some(vec![n.clone(), scaled(channels, size * size, !to_space), rows, columns])
    }
}

fn known(size: Option<i64>) -> Dim {
    size.and_then(|size| u64::try_from(size).ok()).map_or(Dim::Unknown, Dim::Known)
}
