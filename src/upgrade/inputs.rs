//! What was an attribute and became an input.

use super::step::{Change, Done, Step};
use crate::model::NodeExt;
use crate::proto::NodeProto;
use crate::proto::tensor_proto::DataType;

pub(super) const CHANGES: &[Change] = &[
    Change { op_type: "Squeeze", since: 13, apply: axes },
    Change { op_type: "Unsqueeze", since: 13, apply: axes },
    Change { op_type: "ReduceSum", since: 13, apply: axes },
    Change { op_type: "Split", since: 13, apply: split },
    Change { op_type: "Slice", since: 10, apply: slice },
    Change { op_type: "Pad", since: 11, apply: pad },
    Change { op_type: "Clip", since: 11, apply: clip },
    Change { op_type: "TopK", since: 10, apply: top_k },
    Change { op_type: "Dropout", since: 12, apply: dropout },
];

fn axes(s: &mut Step<'_, '_>) -> Done {
    let axes = s.ints("axes").unwrap_or_default();
    s.put(&[s.x(0), &axes], &["axes"]);
    Ok(())
}

fn split(s: &mut Step<'_, '_>) -> Done {
    let sizes = s.ints("split").unwrap_or_default();
    s.put(&[s.x(0), &sizes], &["split"]);
    Ok(())
}

fn slice(s: &mut Step<'_, '_>) -> Done {
    let [starts, ends, axes] = ["starts", "ends", "axes"].map(|name| s.ints(name).unwrap_or_default());
    if starts.is_empty() || ends.is_empty() {
        return Err("it has no starts or no ends".into());
    }
    s.put(&[s.x(0), &starts, &ends, &axes], &["starts", "ends", "axes"]);
    Ok(())
}

/// Absent, the new input `constant_value` means zero, as the attribute did.
fn pad(s: &mut Step<'_, '_>) -> Done {
    let pads = s.ints("pads").ok_or("it has no pads")?;
    let value = s.scalar("value").unwrap_or_default();
    s.put(&[s.x(0), &pads, &value], &["pads", "value"]);
    Ok(())
}

/// Absent, the attributes meant the ends of the type's range, and the inputs mean none.
fn clip(s: &mut Step<'_, '_>) -> Done {
    let [min, max] = ["min", "max"].map(|name| s.scalar(name).unwrap_or_default());
    s.put(&[s.x(0), &min, &max], &["min", "max"]);
    Ok(())
}

fn top_k(s: &mut Step<'_, '_>) -> Done {
    let k = s.node.int("k", 0);
    if k <= 0 {
        return Err(format!("its k is {k}"));
    }
    let k = s.b.ints(&[k]);
    s.put(&[s.x(0), &k], &["k"]);
    Ok(())
}

/// The mask was of the type of the data before opset 10, and is boolean since.
fn dropout(s: &mut Step<'_, '_>) -> Done {
    let ratio = s.b.scalar(s.node.float("ratio", 0.5).into(), DataType::Float as i32);
    let mut node = s.old(&[s.x(0), &ratio], &["ratio", "is_test"]);
    let mask = node.output.get(1).filter(|_| s.is_read(1)).cloned();
    node.output.truncate(1);
    match mask {
        Some(mask) if s.from < 10 => {
            let kept = s.b.fresh("mask");
            node.output.push(kept.clone());
            let elem = s.elem().into();
            s.b.push(node);
            s.b.push(NodeProto::build("", "Cast", &[&kept], &[&mask]).with_int("to", elem));
        }
        mask => {
            node.output.extend(mask);
            s.b.push(node);
        }
    }
    Ok(())
}
