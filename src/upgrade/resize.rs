//! Upsample and the first Resize: they scale, as today's Resize does with asymmetric coordinates.

use super::step::{Change, Done, Step};
use crate::model::NodeExt;
use crate::proto::tensor_proto::DataType;
use crate::proto::{NodeProto, TensorProto};

pub(super) const CHANGES: &[Change] = &[
    Change { op_type: "Upsample", since: 10, apply: upsample },
    Change { op_type: "Resize", since: 11, apply: resize },
];

/// An element comes from the one at the rounded down coordinate.
fn upsample(s: &mut Step<'_, '_>) -> Done {
    let scales = match NodeExt::attribute(s.node, "scales") {
        Some(attribute) => {
            let scales: Vec<f64> = attribute.floats.iter().map(|&scale| scale.into()).collect();
            s.b.constant(TensorProto::of_floats(&scales, &[scales.len() as i64], DataType::Float as i32))
        }
        None if s.x(1).is_empty() => return Err("it has no scales".into()),
        None => s.x(1).to_owned(),
    };
    put(s, &scales, "floor");
    Ok(())
}

/// The nearest element is the one below where an axis grows, and the one above where it shrinks; today, that is the same for all axes.
fn resize(s: &mut Step<'_, '_>) -> Done {
    let is_nearest = mode(s) == "nearest";
    let rounding = match s.constant_floats(1) {
        _ if !is_nearest => "floor",
        Some(scales) if scales.iter().all(|&scale| scale >= 1.0) => "floor",
        Some(scales) if scales.iter().all(|&scale| scale <= 1.0) => "ceil",
        Some(_) => return Err("some axes grow and others shrink".into()),
        None => return Err("its scales are not constant".into()),
    };
    put(s, s.x(1), rounding);
    Ok(())
}

fn mode(s: &Step<'_, '_>) -> String {
    // The first versions of Upsample wrote bilinear.
    match s.node.string("mode", "nearest") {
        b"bilinear" => "linear".into(),
        mode => String::from_utf8_lossy(mode).into_owned(),
    }
}

fn put(s: &mut Step<'_, '_>, scales: &str, rounding: &str) {
    let node = NodeProto::build("", "Resize", &[s.x(0), "", scales], &[s.y()])
        .with_string("mode", &mode(s))
        .with_string("coordinate_transformation_mode", "asymmetric")
        .with_string("nearest_mode", rounding);
    s.b.push(node.named(s.node.name()));
}
