//! Shapes of operators that work along some axes: joining, cutting, reducing, windows.

use super::{Call, Shape, normal};
use crate::model::{Dim, NodeExt};

impl Call<'_> {
    pub(super) fn concat(&self) -> Shape {
        let shapes: Vec<&[Dim]> = (0..self.node.input.len()).map(|slot| self.shape(slot)).collect::<Option<_>>()?;
        let mut shape = shapes.first()?.to_vec();
        let axis = normal(self.node.int("axis", 0), shape.len())?;
        shape[axis] = shapes
            .iter()
            .try_fold(0, |sum, shape| Some(sum + shape.get(axis)?.known()?))
            .map_or(Dim::Unknown, Dim::Known);
        Some(shape)
    }

    pub(super) fn slice(&self) -> Shape {
        let mut shape = self.shape(0)?.to_vec();
        let starts = self.list("starts", 1);
        let axes = self.list("axes", 3).or_else(|| Some((0..starts.as_ref()?.len() as i64).collect()));
        let Some(axes) = axes else { return Some(vec![Dim::Unknown; shape.len()]) };
        let ends = self.list("ends", 2);
        let steps = self.list("steps", 4);
        for (i, &axis) in axes.iter().enumerate() {
            let axis = normal(axis, shape.len())?;
            let step = steps.as_ref().map_or(1, |steps| steps[i]);
            let size = shape[axis]
                .known()
                .and_then(|size| slice_size(size as i64, starts.as_ref()?[i], ends.as_ref()?[i], step));
            shape[axis] = size.map_or(Dim::Unknown, Dim::Known);
        }
        Some(shape)
    }

    pub(super) fn split(&self) -> Vec<Shape> {
        let count = self.node.output.len();
        let unknown = vec![None; count];
        let Some(shape) = self.shape(0) else { return unknown };
        let Some(axis) = normal(self.node.int("axis", 0), shape.len()) else { return unknown };
        let sizes = self.list("split", 1);
        (0..count)
            .map(|i| {
                let size = match (&sizes, shape[axis].known()) {
                    (Some(sizes), _) => sizes.get(i).map(|&size| size as u64),
                    (None, Some(total)) if self.node.input.len() < 2 => {
                        let chunk = total.div_ceil(count as u64);
                        Some(chunk.min(total.saturating_sub(chunk * i as u64)))
                    }
                    _ => None,
                };
                let mut shape = shape.to_vec();
                shape[axis] = size.map_or(Dim::Unknown, Dim::Known);
                Some(shape)
            })
            .collect()
    }

    pub(super) fn reduce(&self) -> Shape {
        let shape = self.shape(0)?;
        let keep = self.node.int("keepdims", 1) != 0;
        let axes = match self.node.op_type() {
            "ArgMax" | "ArgMin" => Some(vec![self.node.int("axis", 0)]),
            _ => self.list("axes", 1),
        };
        let axes: Vec<usize> = match axes {
            Some(axes) if !axes.is_empty() => {
                axes.iter().map(|&axis| normal(axis, shape.len())).collect::<Option<_>>()?
            }
            _ if self.input(1).is_some() && self.list("axes", 1).is_none() => return None,
            _ if self.node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
            _ => (0..shape.len()).collect(),
        };
        Some(
            (0..shape.len())
                .filter(|axis| keep || !axes.contains(axis))
                .map(|axis| if axes.contains(&axis) { Dim::Known(1) } else { shape[axis].clone() })
                .collect(),
        )
    }

    /// Convolution and pooling: batch and channels are known, the rest where all attributes and sizes are.
    pub(super) fn window(&self) -> Shape {
        let input = self.shape(0)?;
        let spatial = input.len().checked_sub(2)?;
        let weight = if self.node.op_type() == "Conv" { Some(self.shape(1)?) } else { None };
        let kernel: Vec<Option<i64>> = match (self.node.ints("kernel_shape"), weight) {
            (Some(kernel), _) => kernel.iter().map(|&size| Some(size)).collect(),
            (None, Some(weight)) => weight[2..].iter().map(|dim| dim.known().map(|size| size as i64)).collect(),
            _ => return None,
        };
        let attribute = |name: &str, default: i64| -> Vec<i64> {
            self.node.ints(name).filter(|ints| !ints.is_empty()).map_or(vec![default; spatial], <[i64]>::to_vec)
        };
        let (strides, dilations) = (attribute("strides", 1), attribute("dilations", 1));
        let pads = self.node.ints("pads").map_or(vec![0; 2 * spatial], <[i64]>::to_vec);
        let auto_pad = NodeExt::attribute(self.node, "auto_pad").map(|attribute| attribute.s());
        let ceil = self.node.int("ceil_mode", 0) != 0;
        let size = |i: usize| -> Option<u64> {
            let (size, kernel) = (input[2 + i].known()? as i64, (*kernel.get(i)?)?);
            let extent = (kernel - 1) * dilations[i] + 1;
            match auto_pad {
                Some(b"SAME_UPPER" | b"SAME_LOWER") => u64::try_from((size + strides[i] - 1) / strides[i]).ok(),
                Some(b"VALID") => u64::try_from((size - extent) / strides[i] + 1).ok(),
                _ if ceil => None,
                _ => u64::try_from((size + pads[i] + pads[spatial + i] - extent) / strides[i] + 1).ok(),
            }
        };
        let channels = weight.map_or(input[1].clone(), |weight| weight[0].clone());
        let sizes = (0..spatial).map(|i| size(i).map_or(Dim::Unknown, Dim::Known));
        Some([input[0].clone(), channels].into_iter().chain(sizes).collect())
    }
}

fn slice_size(size: i64, start: i64, end: i64, step: i64) -> Option<u64> {
    let wrap = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let count = if step > 0 {
        (wrap(end).clamp(0, size) - wrap(start).clamp(0, size) + step - 1) / step
    } else if step < 0 {
        (wrap(start).clamp(0, size - 1) - wrap(end).clamp(-1, size - 1) - step - 1) / -step
    } else {
        return None;
    };
    u64::try_from(count.max(0)).ok()
}
