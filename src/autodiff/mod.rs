//! Reverse-mode differentiation of ONNX graphs, in standard ONNX operators.
//!
//! [`lower_gradients`] replaces ONNX's symbolic `ai.onnx.preview.training::Gradient` by the nodes that compute it. Each operator
//! has a rule (`rules/`); a rule sees one node, the gradients of its outputs, and which gradients of its inputs are wanted, and
//! appends nodes. What has no rule of its own, because it is made of other operators (function calls, recurrent networks, sequences, …), is
//! written out before ([`expanded`]); an If whose condition is not known becomes an If of gradients. Contributions to one value are summed in one place, nothing is computed that no wanted gradient needs, and
//! all operators without a rule are reported at once.

mod backward;
mod branches;
mod error;
mod expand;
mod gradient;
mod rules;
mod step;

pub use backward::Backward;
pub use error::{AutodiffError, Blocked};
pub use expand::expanded;
pub use gradient::{has_gradient_operator, lower_gradients};
pub(crate) use rules::telling_places;

use crate::proto::NodeProto;

/// Whether there is a rule for the derivative of a node's results with respect to its input `slot`.
pub fn is_differentiable(node: &NodeProto, slot: usize) -> bool {
    !rules::is_flat(node) && rules::find(node).is_none_or(|rule| rule.inputs.contains(slot))
}
