//! Swish and SwiGLU, as products with a logistic function.

use super::scene::Scene;
use crate::autodiff::step::Refusal;
use crate::model::{Builder, NodeExt};
use crate::proto::NodeProto;

/// Y = swish X; of SwiGLU, Y = swish A · B.
pub(super) fn written_out(scene: &Scene<'_>, node: &NodeProto) -> Result<Vec<NodeProto>, Refusal> {
    let [x, gated @ ..] = &node.input[..] else { return Err("it has no input".into()) };
    let mut b = scene.builder(node);
    let mut y = swish(&mut b, x, node.float("alpha", 1.0), scene.elem(node, 0));
    if let Some(gated) = gated.first() {
        y = b.op("Mul", &[&y, gated]);
    }
    b.name(&y, node.output.first().ok_or("it has no output")?);
    Ok(b.into_nodes())
}

/// x · sigmoid(α x).
pub(super) fn swish(b: &mut Builder<'_>, x: &str, alpha: f32, elem: i32) -> String {
    let scaled = if alpha == 1.0 {
        x.to_owned()
    } else {
        let alpha = b.scalar(alpha.into(), elem);
        b.op("Mul", &[x, &alpha])
    };
    let gate = b.op("Sigmoid", &[&scaled]);
    b.op("Mul", &[x, &gate])
}
