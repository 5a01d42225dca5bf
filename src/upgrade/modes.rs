//! Attributes and outputs that were given up, and names that changed.

use super::step::{Change, Done, Step};
use crate::model::NodeExt;

pub(super) const CHANGES: &[Change] = &[
    Change { op_type: "BatchNormalization", since: 14, apply: batch_normalization },
    Change { op_type: "RoiAlign", since: 16, apply: roi_align },
    Change { op_type: "Scatter", since: 11, apply: scatter },
    Change { op_type: "Scan", since: 9, apply: scan },
    Change { op_type: "LSTM", since: 7, apply: recurrent },
    Change { op_type: "GRU", since: 7, apply: recurrent },
    Change { op_type: "RNN", since: 7, apply: recurrent },
];

/// Whether it trains was told by the number of outputs.
fn batch_normalization(s: &mut Step<'_, '_>) -> Done {
    if s.node.int("spatial", 1) == 0 {
        return Err("statistics of single elements (spatial = 0) are no longer possible".into());
    }
    if (1..s.node.output.len()).any(|slot| s.is_read(slot)) {
        return Err("its statistics are read, and are others since opset 14".into());
    }
    let inputs = [0, 1, 2, 3, 4].map(|slot| s.x(slot));
    let mut node = s.old(&inputs, &["spatial", "is_test"]);
    node.output.truncate(1);
    s.b.push(node);
    Ok(())
}

/// The half of a pixel was left out.
fn roi_align(s: &mut Step<'_, '_>) -> Done {
    let node = s.node.clone().with_string("coordinate_transformation_mode", "output_half_pixel");
    s.b.push(node);
    Ok(())
}

fn scatter(s: &mut Step<'_, '_>) -> Done {
    let mut node = s.node.clone();
    node.op_type = Some("ScatterElements".into());
    s.b.push(node);
    Ok(())
}

fn scan(_: &mut Step<'_, '_>) -> Done {
    Err("its first axis was the batch before opset 9".into())
}

/// Whether the sequence is an output is told by its name.
fn recurrent(s: &mut Step<'_, '_>) -> Done {
    let inputs: Vec<&str> = s.node.input.iter().map(String::as_str).collect();
    s.put(&inputs, &["output_sequence"]);
    Ok(())
}
