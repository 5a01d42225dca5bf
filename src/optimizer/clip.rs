use crate::model::{Builder, NodeExt, working_type};
use crate::proto::tensor_proto::DataType;

/// Keeps the quotient finite where all gradients are zero; as in `torch.nn.utils.clip_grad_norm_`.
const EPSILON: f64 = 1e-6;

/// Gradients, each with its element type, times min(1, `limit` / their common 2-norm).
pub(crate) fn clipped(b: &mut Builder<'_>, gradients: Vec<(String, i32)>, limit: f64) -> Vec<String> {
    let norm_type = DataType::Float as i32;
    let squares: Vec<String> = gradients
        .iter()
        .map(|(gradient, elem)| {
            let gradient = b.converted(gradient, *elem, working_type(*elem));
            let square = b.with("ReduceSumSquare", &[&gradient], |node| node.with_int("keepdims", 0));
            b.converted(&square, working_type(*elem), norm_type)
        })
        .collect();
    let squares: Vec<&str> = squares.iter().map(String::as_str).collect();
    let sum = b.op("Sum", &squares);
    let norm = b.op("Sqrt", &[&sum]);
    let epsilon = b.scalar(EPSILON, norm_type);
    let norm = b.op("Add", &[&norm, &epsilon]);
    let limit = b.scalar(limit, norm_type);
    let ratio = b.op("Div", &[&limit, &norm]);
    let one = b.scalar(1.0, norm_type);
    let factor = b.op("Min", &[&ratio, &one]);
    gradients
        .iter()
        .map(|(gradient, elem)| {
            let factor = b.converted(&factor, norm_type, *elem);
            b.op("Mul", &[gradient, &factor])
        })
        .collect()
}
