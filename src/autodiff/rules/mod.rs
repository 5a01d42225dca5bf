//! The gradient of each operator: a file per family.
//!
//! A rule is a function of one node (see [`Step`]). It gives the gradient of every input that is wanted, in operators of the model's opset (12 or later), and
//! returns why it cannot, where an attribute or an unknown rank stands in the way. Formulas in the rules write dy for the gradient that
//! arrives, and · for the element-wise product.

mod arithmetic;
mod convolution;
mod einsum;
mod elementwise;
mod gate;
mod gather;
mod layout;
mod linear;
mod loss;
mod matmul;
mod normalization;
mod pooling;
mod reduce;
mod rotary;
mod sampling;
mod scatter;
mod softmax;
mod window;

pub(super) use gate::Gates;
pub(crate) use pooling::telling_places;

use super::step::{Refusal, Step};
use crate::model::NodeExt;
use crate::proto::NodeProto;

/// Which inputs a rule gives gradients for.
#[derive(Clone, Copy)]
pub(super) enum Inputs {
    /// Every one.
    All,
    /// The first so many.
    First(usize),
}

impl Inputs {
    pub(super) fn contains(self, slot: usize) -> bool {
        match self {
            Self::All => true,
            Self::First(count) => slot < count,
        }
    }
}

type Apply = fn(&mut Step<'_, '_>) -> Result<(), Refusal>;

/// The gradient of an operator.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) inputs: Inputs,
    pub(super) apply: Apply,
}

const fn all(apply: Apply) -> Rule {
    Rule { inputs: Inputs::All, apply }
}

const fn first(count: usize, apply: Apply) -> Rule {
    Rule { inputs: Inputs::First(count), apply }
}

/// Operators of the default domain, with their rules.
const RULES: &[&[(&str, Rule)]] = &[
    arithmetic::RULES,
    convolution::RULES,
    einsum::RULES,
    elementwise::RULES,
    gather::RULES,
    layout::RULES,
    linear::RULES,
    loss::RULES,
    matmul::RULES,
    normalization::RULES,
    pooling::RULES,
    reduce::RULES,
    rotary::RULES,
    sampling::RULES,
    scatter::RULES,
    softmax::RULES,
];

/// Operators whose results do not change when an input changes a little, or are no floating-point numbers.
const FLAT: &str = "Shape Size Equal Less LessOrEqual Greater GreaterOrEqual Not And Or Xor IsNaN IsInf ArgMax ArgMin NonZero \
                    Floor Ceil Round Sign ConstantOfShape EyeLike RandomNormalLike RandomUniformLike Bernoulli Multinomial OneHot Hardmax";

/// The rule of a node's operator.
pub(super) fn find(node: &NodeProto) -> Option<Rule> {
    if !node.is_standard() {
        return None;
    }
    RULES.iter().copied().flatten().find(|(op_type, _)| *op_type == node.op_type()).map(|(_, rule)| *rule)
}

/// Whether no gradient goes through a node.
pub(super) fn is_flat(node: &NodeProto) -> bool {
    node.is_standard() && FLAT.split_whitespace().any(|flat| flat == node.op_type())
}
