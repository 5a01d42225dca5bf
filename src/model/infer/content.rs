//! The elements of small integer tensors: shapes that a graph computes.

use super::{Call, content_of_tensor, normal, product};
use crate::model::{Dim, NodeExt};
use crate::proto::tensor_proto::DataType;

impl Call<'_> {
    /// The elements of the result, where it is a small integer tensor.
    pub(super) fn content(&self) -> Option<Vec<Dim>> {
        let own = || self.content_at(0).map(<[Dim]>::to_vec);
        match self.node.op_type() {
            "Constant" => {
                let attribute = |name: &str| NodeExt::attribute(self.node, name);
                let dims =
                    |ints: &[i64]| ints.iter().map(|&e| u64::try_from(e).map_or(Dim::Unknown, Dim::Known)).collect();
                if let Some(tensor) = attribute("value").and_then(|attribute| attribute.t.as_ref()) {
                    return if tensor.dims.len() <= 1 { content_of_tensor(tensor) } else { None };
                }
                let ints = attribute("value_ints").map(|attribute| attribute.ints.clone());
                ints.or_else(|| attribute("value_int")?.i.map(|value| vec![value])).map(|ints| dims(&ints))
            }
            "Shape" => {
                let shape = self.shape(0)?;
                let at = |name: &str, default: i64| {
                    let value = self.node.int(name, default);
                    (if value < 0 { value + shape.len() as i64 } else { value }).clamp(0, shape.len() as i64) as usize
                };
                shape.get(at("start", 0)..at("end", shape.len() as i64)).map(<[Dim]>::to_vec)
            }
            "Size" => Some(vec![product(self.shape(0)?)]),
            "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" => own(),
            "Cast" if self.node.int("to", 0) as i32 == DataType::Int64 as i32 => own(),
            "Concat" => {
                let parts = (0..self.node.input.len()).map(|slot| self.content_at(slot));
                Some(parts.collect::<Option<Vec<_>>>()?.concat())
            }
            "Gather" => {
                let (data, indices) = (self.content_at(0)?, self.graph.constant_ints(self.index, self.input(1)?)?);
                indices.iter().map(|&index| data.get(normal(index, data.len())?).cloned()).collect()
            }
            "Slice" => {
                let data = self.content_at(0)?;
                let (start, end) = (*self.list("starts", 1)?.first()?, *self.list("ends", 2)?.first()?);
                if self.list("steps", 4).is_some_and(|steps| steps != [1]) {
                    return None;
                }
                let clamp =
                    |at: i64| (if at < 0 { at + data.len() as i64 } else { at }).clamp(0, data.len() as i64) as usize;
                data.get(clamp(start)..clamp(end)).map(<[Dim]>::to_vec)
            }
            "Mul" | "Add" | "Sub" | "Div" => {
                let (a, b) = (self.content_at(0)?, self.content_at(1)?);
                let at = |list: &[Dim], i: usize| list[if list.len() == 1 { 0 } else { i }].clone();
                (a.len() == b.len() || a.len() == 1 || b.len() == 1)
                    .then(|| (0..a.len().max(b.len())).map(|i| self.arithmetic(&at(a, i), &at(b, i))).collect())
            }
            _ => None,
        }
    }

    fn arithmetic(&self, a: &Dim, b: &Dim) -> Dim {
        match (self.node.op_type(), a, b) {
            ("Mul" | "Div", other, Dim::Known(1)) | ("Mul", Dim::Known(1), other) => other.clone(),
            (op, Dim::Known(a), Dim::Known(b)) => {
                let result = match op {
                    "Mul" => a.checked_mul(*b),
                    "Add" => a.checked_add(*b),
                    "Sub" => a.checked_sub(*b),
                    _ => a.checked_div(*b),
                };
                result.map_or(Dim::Unknown, Dim::Known)
            }
            _ => Dim::Unknown,
        }
    }
}
