//! Broadcasting of opset 6, which said where the second operand's axes are.

use super::step::{Change, Done, Refusal, Step};
use crate::model::NodeExt;

pub(super) const CHANGES: &[Change] = &[
    Change { op_type: "Add", since: 7, apply: at_axis },
    Change { op_type: "Sub", since: 7, apply: at_axis },
    Change { op_type: "Mul", since: 7, apply: at_axis },
    Change { op_type: "Div", since: 7, apply: at_axis },
    Change { op_type: "Pow", since: 7, apply: at_axis },
    Change { op_type: "And", since: 7, apply: at_axis },
    Change { op_type: "Or", since: 7, apply: at_axis },
    Change { op_type: "Xor", since: 7, apply: at_axis },
    Change { op_type: "Equal", since: 7, apply: at_axis },
    Change { op_type: "Greater", since: 7, apply: at_axis },
    Change { op_type: "Less", since: 7, apply: at_axis },
    Change { op_type: "PRelu", since: 7, apply: slope_of_channel },
    Change { op_type: "Gemm", since: 7, apply: gemm },
];

/// The axes of the second operand are those of the first from `axis` on; without it, the last ones, as in numpy.
fn at_axis(s: &mut Step<'_, '_>) -> Done {
    let second = match NodeExt::attribute(s.node, "axis").and_then(|attribute| attribute.i) {
        Some(axis) if axis >= 0 => {
            let behind = s.need_rank(0)? as i64 - axis - s.need_rank(1)? as i64;
            with_axes_behind(s, behind)?
        }
        _ => s.x(1).to_owned(),
    };
    s.put(&[s.x(0), &second], &["axis", "broadcast"]);
    Ok(())
}

/// A vector of slopes has one for each channel, axis 1; one slope alone is for all.
fn slope_of_channel(s: &mut Step<'_, '_>) -> Done {
    let behind = match s.need_rank(1)? {
        1 => s.need_rank(0)? as i64 - 2,
        _ => 0,
    };
    let slope = with_axes_behind(s, behind.max(0))?;
    s.put(&[s.x(0), &slope], &[]);
    Ok(())
}

/// The second operand with so many axes of size one behind its own.
fn with_axes_behind(s: &mut Step<'_, '_>, count: i64) -> Result<String, Refusal> {
    let axes: Vec<i64> = match count {
        ..0 => return Err("the axes of its second operand are not among those of the first".into()),
        _ => (-count..0).collect(),
    };
    Ok(if axes.is_empty() { s.x(1).to_owned() } else { s.b.unsqueeze(s.x(1), &axes) })
}

fn gemm(s: &mut Step<'_, '_>) -> Done {
    s.put(&[s.x(0), s.x(1), s.x(2)], &["broadcast"]);
    Ok(())
}
