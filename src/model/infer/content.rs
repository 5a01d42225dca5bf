//! The elements of small integer and boolean tensors: shapes that a graph computes.

use super::layout::range_size;
use super::size::product;
use super::{Call, Element, MAX_CONTENT, normal};
use crate::model::NodeExt;
use crate::proto::TensorProto;
use crate::proto::tensor_proto::DataType;

type Content = Option<Vec<Element>>;

impl Call<'_> {
    /// The elements of the result, where it is a small tensor of at most one axis.
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
            "Cast" => match DataType::try_from(self.node.int("to", 0) as i32) {
                Ok(DataType::Int64 | DataType::Int32) => own(),
                Ok(DataType::Bool) => Some(own()?.iter().map(Element::to_bool).collect()),
                _ => None,
            },
            "Concat" => {
                let parts = (0..self.node.input.len()).map(|slot| self.content_at(slot));
                Some(parts.collect::<Option<Vec<_>>>()?.concat())
            }
            "Gather" => {
                let (data, indices) = (self.content_at(0)?, self.types.ints(self.input(1)?)?);
                indices.iter().map(|&index| data.get(normal(index, data.len())?).cloned()).collect()
            }
            "Slice" => self.sliced(),
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
                let count = common(&[a, b]).filter(|_| self.node.input.len() == 2)?;
                Some((0..count).map(|i| Element::combined(op, at(a, i), at(b, i))).collect())
            }
            _ => None,
        }
    }

    fn sliced(&self) -> Content {
        let data = self.content_at(0)?;
        let (start, end) = (*self.list("starts", 1)?.first()?, *self.list("ends", 2)?.first()?);
        if self.input(4).is_some() && self.list("steps", 4)? != [1] {
            return None;
        }
        let length = data.len() as i64;
        let clamp = |at: i64| (if at < 0 { at.saturating_add(length) } else { at }).clamp(0, length) as usize;
        data.get(clamp(start)..clamp(end)).map(<[Element]>::to_vec)
    }

    fn expanded(&self) -> Content {
        let (data, count) = (self.content_at(0)?, count(self.content_at(1)?)?);
        let count = common(&[data]).filter(|&own| own != 1).unwrap_or(count);
        Some((0..count).map(|i| at(data, i).clone()).collect())
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

/// The number of elements of a tensor of that shape with at most one axis.
fn count(shape: &[Element]) -> Option<usize> {
    match shape {
        [] => Some(1),
        [size] => usize::try_from(size.known()?).ok().filter(|&size| size <= MAX_CONTENT),
        _ => None,
    }
}

/// The elements of a tensor of integers or booleans with at most one axis.
pub(super) fn of_tensor(tensor: &TensorProto) -> Content {
    if tensor.dims.len() > 1 || tensor.dims.iter().any(|&size| size > MAX_CONTENT as i64) {
        return None;
    }
    let ints = tensor.int64_elements().or_else(|| tensor.int32_elements());
    let ints = ints.or_else(|| Some(tensor.bool_elements()?.into_iter().map(i64::from).collect()))?;
    Some(ints.into_iter().map(Element::Known).collect())
}
