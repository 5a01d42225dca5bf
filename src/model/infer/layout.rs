//! Shapes of the same elements in another order or number.

use super::size::{product, quotient};
use super::{Call, Element, MAX_CONTENT, Shape, from_front};
use crate::model::{Dim, NodeExt, TensorType};

impl Call<'_> {
    pub(super) fn constant_shape(&self) -> Shape {
        let attribute = |name: &str| NodeExt::attribute(self.node, name);
        if let Some(tensor) = attribute("value").and_then(|attribute| attribute.t.as_ref()) {
            return TensorType::known(&tensor.dims);
        }
        if ["value_float", "value_int", "value_string"].iter().any(|name| attribute(name).is_some()) {
            return Some(Vec::new());
        }
        let ints = attribute("value_ints").map(|attribute| attribute.ints.len());
        let count = ints.or_else(|| attribute("value_floats").map(|attribute| attribute.floats.len()))?;
        Some(vec![Dim::Known(count as u64)])
    }

    pub(super) fn transpose(&self) -> Shape {
        let shape = self.shape(0);
        match self.node.ints("perm") {
            Some(perm) => {
                let at = |&axis: &i64| shape.and_then(|shape| shape.get(usize::try_from(axis).ok()?).cloned());
                Some(perm.iter().map(|axis| at(axis).unwrap_or(Dim::Unknown)).collect())
            }
            None => shape.map(|shape| shape.iter().rev().cloned().collect()),
        }
    }

    pub(super) fn flatten(&self) -> Vec<Dim> {
        self.shape(0).map_or(vec![Dim::Unknown; 2], |shape| {
            let axis = from_front(self.node.int("axis", 1), shape.len()).unwrap_or(shape.len());
            vec![product(&shape[..axis]), product(&shape[axis..])]
        })
    }

    /// The elements of an input that is a shape; where they cannot be told, their number may be.
    fn elements(&self, slot: usize) -> Option<Vec<Element>> {
        if let Some(content) = self.content_at(slot) {
            return Some(content.to_vec());
        }
        match self.shape(slot)? {
            [Dim::Known(rank)] if *rank <= MAX_CONTENT as u64 => Some(vec![Element::Unknown; *rank as usize]),
            _ => None,
        }
    }

    /// The same as sizes of axes.
    pub(super) fn sizes(&self, slot: usize) -> Shape {
        Some(self.elements(slot)?.iter().map(Element::size).collect())
    }

    pub(super) fn reshape(&self) -> Shape {
        let attribute = self.node.ints("shape").map(|shape| shape.iter().copied().map(Element::Known).collect());
        let target = attribute.or_else(|| self.elements(1))?;
        let input = self.shape(0);
        let allow_zero = self.node.int("allowzero", 0) != 0;
        let size = |(axis, element): (usize, &Element)| match element {
            Element::Known(0) if !allow_zero => {
                input.and_then(|input| input.get(axis).cloned()).unwrap_or(Dim::Unknown)
            }
            element => element.size(),
        };
        let mut shape: Vec<Dim> = target.iter().enumerate().map(size).collect();
        // One size may follow from the number of elements.
        let (open, others): (Vec<usize>, Vec<usize>) = (0..shape.len()).partition(|&axis| shape[axis] == Dim::Unknown);
        if let ([axis], Some(input)) = (open.as_slice(), input) {
            let others: Vec<Dim> = others.iter().map(|&axis| shape[axis].clone()).collect();
            shape[*axis] = quotient(input, &others).unwrap_or(Dim::Unknown);
        }
        Some(shape)
    }

    pub(super) fn squeeze(&self) -> Shape {
        let shape = self.shape(0)?;
        let gone: Vec<usize> = match self.list("axes", 1) {
            Some(axes) => axes.iter().map(|&axis| from_front(axis, shape.len())).collect::<Option<_>>()?,
            None if self.node.input.len() < 2 && shape.iter().all(|dim| dim.known().is_some()) => {
                (0..shape.len()).filter(|&axis| shape[axis] == Dim::Known(1)).collect()
            }
            None => return None,
        };
        Some((0..shape.len()).filter(|axis| !gone.contains(axis)).map(|axis| shape[axis].clone()).collect())
    }

    pub(super) fn unsqueeze(&self) -> Shape {
        let mut rest = self.shape(0)?.iter().cloned();
        let axes = self.list("axes", 1)?;
        let rank = rest.len() + axes.len();
        let new: Vec<usize> = axes.iter().map(|&axis| from_front(axis, rank)).collect::<Option<_>>()?;
        (0..rank).map(|axis| if new.contains(&axis) { Some(Dim::Known(1)) } else { rest.next() }).collect()
    }

    pub(super) fn tile(&self) -> Shape {
        let shape = self.shape(0)?;
        let repeats = self.sizes(1).filter(|repeats| repeats.len() == shape.len());
        let repeats = repeats.unwrap_or(vec![Dim::Unknown; shape.len()]);
        Some(shape.iter().zip(repeats).map(|(size, times)| product(&[size.clone(), times])).collect())
    }

    pub(super) fn range_length(&self) -> Dim {
        let element = |slot| self.content_at(slot).and_then(<[Element]>::first);
        match (element(0), element(1), element(2)) {
            (Some(start), Some(limit), Some(Element::Known(1))) => Element::combined("Sub", limit, start).size(),
            (Some(Element::Known(start)), Some(Element::Known(limit)), Some(Element::Known(step))) => {
                range_size(*start, *limit, *step).map_or(Dim::Unknown, Dim::Known)
            }
            _ => Dim::Unknown,
        }
    }
}

/// How many numbers there are from `start` to `limit`, which is not one of them; in 128 bits, where nothing overflows.
pub(super) fn range_size(start: i64, limit: i64, step: i64) -> Option<u64> {
    let (distance, step) = (i128::from(limit) - i128::from(start), i128::from(step));
    let count = match step {
        0 => return None,
        1.. => (distance + step - 1) / step,
        _ => (distance + step + 1) / step,
    };
    u64::try_from(count.max(0)).ok()
}
