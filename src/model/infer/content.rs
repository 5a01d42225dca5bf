//! The elements of small integer and boolean tensors: shapes that a graph computes.

use super::axes::slice_size;
use super::layout::range_size;
use super::size::product;
use super::{Call, Element, MAX_CONTENT, from_front};
use crate::model::NodeExt;
use crate::proto::TensorProto;
use crate::proto::tensor_proto::DataType;

type Content = Option<Vec<Element>>;

impl Call<'_> {
    /// The elements of the result, where it is a small tensor.
    pub(super) fn content(&self) -> Content {
        let own = || self.content_at(0).map(<[Element]>::to_vec);
        match self.node.op_type() {
            "Constant" => of_tensor(&self.graph.constant(self.index, self.index.output(self.node, 0)?)?),
            "Shape" => {
                let shape = self.shape(0)?;
                let at = |name: &str, default: i64| {
                    let value = self.node.int(name, default);
                    (if value < 0 { value + shape.len() as i64 } else { value }).clamp(0, shape.len() as i64) as usize
                };
                let part = shape.get(at("start", 0)..at("end", shape.len() as i64))?;
                Some(part.iter().map(Element::from).collect())
            }
            "Size" => Some(vec![Element::from(&product(self.shape(0)?))]),
            "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" => own(),
            "Cast" | "CastLike" => match DataType::try_from(self.elem()?) {
                Ok(DataType::Int64 | DataType::Int32) => own(),
                Ok(DataType::Bool) => Some(own()?.iter().map(Element::to_bool).collect()),
                _ => None,
            },
            "Concat" if self.axis_of(self.node.int("axis", 0))? == 0 => {
                let parts = (0..self.node.input.len()).map(|slot| self.content_at(slot));
                Some(parts.collect::<Option<Vec<_>>>()?.concat())
            }
            "Gather" if self.shape(0)?.len() == 1 => {
                let (data, indices) = (self.content_at(0)?, self.types.ints(self.input(1)?)?);
                indices.iter().map(|&index| data.get(from_front(index, data.len())?).cloned()).collect()
            }
            "Slice" => self.sliced(),
            "Transpose" => self.transposed(),
            "Expand" => self.expanded(),
            "ConstantOfShape" => {
                let value = NodeExt::attribute(self.node, "value").and_then(|attribute| attribute.t.as_ref());
                Some(vec![of_tensor(value?)?.first()?.clone(); count(self.content_at(0)?)?])
            }
            "Range" => self.range(),
            "ReduceProd" => {
                let sizes: Vec<_> = self.content_at(0)?.iter().map(Element::size).collect();
                Some(vec![Element::from(&product(&sizes))])
            }
            "Where" => {
                let [truth, yes, no] = [0, 1, 2].map(|slot| self.content_at(slot));
                let (truth, yes, no) = (truth?, yes?, no?);
                self.are_aligned().then_some(())?;
                let choose = |i| match at(truth, i).known() {
                    Some(0) => at(no, i).clone(),
                    Some(_) => at(yes, i).clone(),
                    None => Element::Unknown,
                };
                Some((0..common(&[truth, yes, no])?).map(choose).collect())
            }
            op @ ("Abs" | "Neg" | "Not") => Some(own()?.iter().map(|a| Element::mapped(op, a)).collect()),
            op @ ("Add" | "Sub" | "Mul" | "Div" | "Mod" | "Max" | "Min" | "And" | "Or" | "Equal" | "Less"
            | "LessOrEqual" | "Greater" | "GreaterOrEqual") => {
                let (a, b) = (self.content_at(0)?, self.content_at(1)?);
                let count = common(&[a, b]).filter(|_| self.node.input.len() == 2 && self.are_aligned())?;
                Some((0..count).map(|i| Element::combined(op, at(a, i), at(b, i))).collect())
            }
            _ => None,
        }
    }

    fn axis_of(&self, axis: i64) -> Option<usize> {
        from_front(axis, self.shape(0)?.len())
    }

    /// The sizes of the first input.
    fn known_sizes(&self) -> Option<Vec<usize>> {
        // Of a list, the number of elements tells more than the declared shape.
        match self.shape(0)? {
            [_] => Some(vec![self.content_at(0)?.len()]),
            shape => shape.iter().map(|dim| usize::try_from(dim.known()?).ok()).collect(),
        }
    }

    /// Whether elements of the inputs meet by their places: they are of the same shape, but for those of one element.
    fn are_aligned(&self) -> bool {
        let lists =
            (0..self.node.input.len()).filter(|&slot| self.content_at(slot).is_some_and(|list| list.len() != 1));
        let mut shapes = lists.map(|slot| self.shape(slot));
        let first = shapes.next().flatten();
        shapes.all(|shape| shape == first || [shape, first].iter().all(|shape| shape.is_some_and(|s| s.len() == 1)))
    }

    fn sliced(&self) -> Content {
        let mut data = self.content_at(0)?.to_vec();
        let mut sizes = self.known_sizes()?;
        let (starts, ends) = (self.list("starts", 1)?, self.list("ends", 2)?);
        let axes = if self.input(3).is_some() || self.node.ints("axes").is_some() {
            self.list("axes", 3)?
        } else {
            (0..starts.len() as i64).collect()
        };
        let steps = if self.input(4).is_some() { self.list("steps", 4)? } else { vec![1; axes.len()] };
        for (i, &axis) in axes.iter().enumerate() {
            let axis = from_front(axis, sizes.len())?;
            let places = slice_places(sizes[axis], *starts.get(i)?, *ends.get(i)?, *steps.get(i)?)?;
            let behind: usize = sizes[axis + 1..].iter().product();
            let rows = data
                .chunks((sizes[axis] * behind).max(1))
                .flat_map(|row| places.iter().flat_map(move |&place| &row[place * behind..(place + 1) * behind]));
            data = rows.cloned().collect();
            sizes[axis] = places.len();
        }
        Some(data)
    }

    fn transposed(&self) -> Content {
        let (data, sizes) = (self.content_at(0)?, self.known_sizes()?);
        let permutation = match self.node.ints("perm") {
            Some(perm) => perm.iter().map(|&axis| from_front(axis, sizes.len())).collect::<Option<Vec<_>>>()?,
            None => (0..sizes.len()).rev().collect(),
        };
        let strides: Vec<usize> = (0..sizes.len()).map(|axis| sizes[axis + 1..].iter().product()).collect();
        let mut places = vec![0];
        for axis in permutation {
            let (size, stride) = (sizes[axis], strides[axis]);
            places = places.iter().flat_map(|from| (0..size).map(move |i| from + i * stride)).collect();
        }
        places.iter().map(|&place| data.get(place).cloned()).collect()
    }

    /// One element is repeated; more stay as they are.
    fn expanded(&self) -> Content {
        match self.content_at(0)? {
            [single] => Some(vec![single.clone(); count(self.content_at(1)?)?]),
            data => Some(data.to_vec()),
        }
    }

    fn range(&self) -> Content {
        let number = |slot| self.content_at(slot)?.first()?.known();
        let (start, limit, step) = (number(0)?, number(1)?, number(2)?);
        let count = range_size(start, limit, step).filter(|&count| count <= MAX_CONTENT as u64)?;
        (0..count as i64).map(|i| Some(Element::Known(start.checked_add(step.checked_mul(i)?)?))).collect()
    }
}

/// The element at `i` of a list that one element alone stands for.
fn at(list: &[Element], i: usize) -> &Element {
    &list[if list.len() == 1 { 0 } else { i }]
}

/// How many elements lists give together, where those of one element are repeated.
fn common(lists: &[&[Element]]) -> Option<usize> {
    let count = lists.iter().map(|list| list.len()).find(|&length| length != 1).unwrap_or(1);
    lists.iter().all(|list| [1, count].contains(&list.len())).then_some(count)
}

/// The number of elements of a small tensor of that shape.
fn count(shape: &[Element]) -> Option<usize> {
    let count = shape.iter().try_fold(1_usize, |count, size| count.checked_mul(usize::try_from(size.known()?).ok()?));
    count.filter(|&count| count <= MAX_CONTENT)
}

/// Where the elements that a slice takes of an axis are.
fn slice_places(size: usize, start: i64, end: i64, step: i64) -> Option<Vec<usize>> {
    let count = slice_size(size as u64, start, end, step)? as i64;
    let size = size as i64;
    let start = if start < 0 { start.saturating_add(size) } else { start };
    let first = if step < 0 { start.clamp(0, size - 1) } else { start.clamp(0, size) };
    (0..count).map(|i| usize::try_from(first.checked_add(step.checked_mul(i)?)?).ok()).collect()
}

/// The elements of a small tensor of integers or booleans.
pub(super) fn of_tensor(tensor: &TensorProto) -> Content {
    count(&tensor.dims.iter().copied().map(Element::Known).collect::<Vec<_>>())?;
    let ints = tensor.int64_elements().or_else(|| tensor.int32_elements());
    let ints = ints.or_else(|| Some(tensor.bool_elements()?.into_iter().map(i64::from).collect()))?;
    Some(ints.into_iter().map(Element::Known).collect())
}
