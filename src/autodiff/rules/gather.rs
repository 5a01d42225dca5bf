//! Elements taken by index, and the other way round.

use super::{Rule, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;
use crate::proto::{NodeProto, TensorProto};

pub(super) const RULES: &[(&str, Rule)] =
    &[("Gather", first(1, gather)), ("GatherElements", first(1, gather_elements)), ("GatherND", first(1, gather_nd))];

/// Zeros in the shape of the first input.
fn zeros(s: &mut Step<'_, '_>) -> String {
    let shape = s.b.op("Shape", &[s.x(0)]);
    let zero = TensorProto { dims: vec![1], ..TensorProto::of_float(0.0, s.elem(0)) };
    s.b.with("ConstantOfShape", &[&shape], |node| node.with_tensor("value", zero))
}

/// The same node with the attribute that adds where indices meet.
fn adding(node: NodeProto) -> NodeProto {
    use crate::proto::AttributeProto;
    use crate::proto::attribute_proto::AttributeType;
    let mut node = node;
    node.attribute.push(AttributeProto {
        name: Some("reduction".into()),
        r#type: Some(AttributeType::String as i32),
        s: Some(b"add".as_slice().into()),
        ..AttributeProto::default()
    });
    node
}

/// The rows of dy added at their indices (ScatterND with reduction, opset 16): the axis goes first, and comes back.
fn gather(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let rank = s.need_rank(0)? as i64;
    let axis = s.node.int("axis", 0);
    let axis = if axis < 0 { axis + rank } else { axis };
    let index_rank = s.need_rank(1)? as i64;
    let dy = if axis == 0 {
        s.dy()
    } else {
        // dy is [before, indices, after].
        let order: Vec<i64> =
            (axis..axis + index_rank).chain(0..axis).chain(axis + index_rank..rank - 1 + index_rank).collect();
        s.b.with("Transpose", &[&s.dy()], |node| node.with_ints("perm", &order))
    };
    let to_front: Vec<i64> = std::iter::once(axis).chain((0..rank).filter(|&a| a != axis)).collect();
    let zeros = zeros(s);
    let zeros = if axis == 0 { zeros } else { s.b.with("Transpose", &[&zeros], |node| node.with_ints("perm", &to_front)) };
    let indices = s.b.unsqueeze(s.x(1), &[-1]);
    let added = s.b.with("ScatterND", &[&zeros, &indices, &dy], adding);
    let gradient = if axis == 0 {
        added
    } else {
        let back: Vec<i64> = (1..=axis).chain([0]).chain(axis + 1..rank).collect();
        s.b.with("Transpose", &[&added], |node| node.with_ints("perm", &back))
    };
    s.give(0, gradient);
    Ok(())
}

fn gather_elements(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let axis = s.node.int("axis", 0);
    let zeros = zeros(s);
    let gradient =
        s.b.with("ScatterElements", &[&zeros, s.x(1), &s.dy()], |node| adding(node.with_int("axis", axis)));
    s.give(0, gradient);
    Ok(())
}

fn gather_nd(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    if s.node.int("batch_dims", 0) != 0 {
        return Err("batch_dims".into());
    }
    let zeros = zeros(s);
    let gradient = s.b.with("ScatterND", &[&zeros, s.x(1), &s.dy()], adding);
    s.give(0, gradient);
    Ok(())
}
