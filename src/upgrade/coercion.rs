//! Operators that saw their input as a matrix, and now work along one axis.

use super::step::{Change, Done, Step};
use crate::model::NodeExt;
use crate::proto::NodeProto;

pub(super) const CHANGES: &[Change] = &[
    Change { op_type: "Softmax", since: 13, apply: over_rows },
    Change { op_type: "LogSoftmax", since: 13, apply: over_rows },
    Change { op_type: "Hardmax", since: 13, apply: over_rows },
];

/// The rows of the matrix hold all axes from `axis` on: where that is the last one, nothing has to be flattened.
fn over_rows(s: &mut Step<'_, '_>) -> Done {
    let axis = s.node.int("axis", 1);
    let is_last = axis == -1 || s.rank(0).is_some_and(|rank| axis == rank as i64 - 1);
    if is_last {
        let node = s.old(&[s.x(0)], &["axis"]).with_int("axis", -1);
        s.b.push(node);
        return Ok(());
    }
    let rows = s.b.with("Flatten", &[s.x(0)], |node| node.with_int("axis", axis));
    let made = s.b.with(s.node.op_type(), &[&rows], |node| node.with_int("axis", -1));
    let shape = s.b.op("Shape", &[s.x(0)]);
    s.b.push(NodeProto::build("", "Reshape", &[&made, &shape], &[s.y()]));
    Ok(())
}
