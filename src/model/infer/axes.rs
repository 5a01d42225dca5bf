//! Shapes of operators that work along some axes: joining, cutting, reducing.

use super::{Call, Shape, from_front};
use crate::model::{Dim, NodeExt};

impl Call<'_> {
    pub(super) fn concat(&self) -> Shape {
        let shapes: Vec<&[Dim]> = (0..self.node.input.len()).map(|slot| self.shape(slot)).collect::<Option<_>>()?;
        let mut shape = shapes.first()?.to_vec();
        let axis = from_front(self.node.int("axis", 0), shape.len())?;
        shape[axis] = shapes
            .iter()
            .try_fold(0, |sum: u64, shape| sum.checked_add(shape.get(axis)?.known()?))
            .map_or(Dim::Unknown, Dim::Known);
        Some(shape)
    }

    /// The shape of a layer normalization's statistics: the axes that it goes over have become ones.
    pub(super) fn normalized_away(&self) -> Shape {
        let mut shape = self.shape(0)?.to_vec();
        let axis = from_front(self.node.int("axis", -1), shape.len())?;
        shape[axis..].fill(Dim::Known(1));
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
            let axis = from_front(axis, shape.len())?;
            let at = |list: &Option<Vec<i64>>| list.as_ref()?.get(i).copied();
            let step = if steps.is_some() { at(&steps) } else { Some(1) };
            if (at(&starts), at(&ends), step) == (Some(0), Some(i64::MAX), Some(1)) {
                continue;
            }
            let size = shape[axis].known().and_then(|size| slice_size(size, at(&starts)?, at(&ends)?, step?));
            shape[axis] = size.map_or(Dim::Unknown, Dim::Known);
        }
        Some(shape)
    }

    pub(super) fn split(&self) -> Vec<Shape> {
        let count = self.node.output.len();
        let unknown = vec![None; count];
        let Some(shape) = self.shape(0) else { return unknown };
        let Some(axis) = from_front(self.node.int("axis", 0), shape.len()) else { return unknown };
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
                axes.iter().map(|&axis| from_front(axis, shape.len())).collect::<Option<_>>()?
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
}

/// How many elements of `size` a slice takes; in 128 bits, where no sum of the four overflows.
pub(super) fn slice_size(size: u64, start: i64, end: i64, step: i64) -> Option<u64> {
    let size = i128::from(size);
    let wrap = |at: i64| i128::from(at) + if at < 0 { size } else { 0 };
    let (start, end, step) = (wrap(start), wrap(end), i128::from(step));
    let count = match step {
        0 => return None,
        _ if size == 0 => 0,
        1.. => (end.clamp(0, size) - start.clamp(0, size) + step - 1) / step,
        _ => (start.clamp(0, size - 1) - end.clamp(-1, size - 1) - step - 1) / -step,
    };
    u64::try_from(count.max(0)).ok()
}
