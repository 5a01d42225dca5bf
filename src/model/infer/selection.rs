//! Shapes of sums of products, of losses, and of elements chosen at run time.

use super::{Call, Element, Shape, from_front};
use crate::model::{Dim, Equation, NodeExt, broadcast};

impl Call<'_> {
    pub(super) fn einsum(&self) -> Shape {
        let shapes: Vec<&[Dim]> = (0..self.node.input.len()).map(|slot| self.shape(slot)).collect::<Option<_>>()?;
        let ranks: Vec<usize> = shapes.iter().map(|shape| shape.len()).collect();
        let text = String::from_utf8_lossy(NodeExt::attribute(self.node, "equation")?.s());
        let equation = Equation::parse(&text, &ranks).ok()?;
        let size = |letter: &char| {
            let of_operands = equation.inputs.iter().zip(&shapes).flat_map(|(letters, shape)| {
                letters.iter().zip(*shape).filter(|(l, _)| *l == letter).map(|(_, dim)| dim)
            });
            of_operands.fold(Dim::Known(1), |all, dim| broadcast(&[all], std::slice::from_ref(dim)).remove(0))
        };
        Some(equation.output.iter().map(size).collect())
    }

    /// The loss of each label or of all, and logarithms of probabilities in the shape of the scores.
    pub(super) fn loss(&self) -> Vec<Shape> {
        let reduction = self.node.string("reduction", "mean");
        let of = |slot| self.shape(slot).map(<[Dim]>::to_vec);
        vec![if reduction == b"none" { of(1) } else { Some(Vec::new()) }, of(0)]
    }

    /// Each row of indices is a place in the data's first axes (after the batch's), of which what is behind them is taken.
    pub(super) fn gather_nd(&self) -> Shape {
        let (data, indices) = (self.shape(0)?, self.shape(1)?);
        let (depth, rows) = indices.split_last()?;
        let batch = usize::try_from(self.node.int("batch_dims", 0)).ok()?;
        let behind = data.get(batch.checked_add(usize::try_from(depth.known()?).ok()?)?..)?;
        Some([rows, behind].concat())
    }

    pub(super) fn one_hot(&self) -> Shape {
        let mut shape = self.shape(0)?.to_vec();
        let axis = from_front(self.node.int("axis", -1), shape.len() + 1)?;
        let depth = self.content_at(1).and_then(|depth| depth.first()).map_or(Dim::Unknown, Element::size);
        shape.insert(axis, depth);
        Some(shape)
    }

    /// TopK and Compress: along an axis there are some of the elements.
    pub(super) fn chosen(&self, axis: i64, count: Option<u64>) -> Shape {
        let mut shape = self.shape(0)?.to_vec();
        let axis = from_front(axis, shape.len())?;
        shape[axis] = count.map_or(Dim::Unknown, Dim::Known);
        Some(shape)
    }

    /// Along an axis, or of the flat input where none is given.
    pub(super) fn compress(&self) -> Shape {
        match NodeExt::attribute(self.node, "axis").and_then(|attribute| attribute.i) {
            Some(axis) => self.chosen(axis, None),
            None => Some(vec![Dim::Unknown]),
        }
    }

    pub(super) fn top_k(&self) -> Vec<Shape> {
        let count = self.list("k", 1).and_then(|k| u64::try_from(*k.first()?).ok());
        vec![self.chosen(self.node.int("axis", -1), count); 2]
    }
}
