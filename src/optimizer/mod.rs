//! Update rules as graphs: how a parameter, its gradient and what is carried from step to step make the next parameter.
//!
//! The formulas are those of PyTorch's `torch.optim` of the same names. A conditioned gradient (ζ\*, ζ) takes the gradient's
//! place in each of them (ISAAC Newton, section 4). [`lower_optimizers`] is apart: it writes out the operators that ONNX has for
//! updates, in ONNX's formulas.

mod clip;
mod error;
mod preview;
mod rules;

pub(crate) use clip::clipped;
pub use error::OptimizerError;
pub use preview::lower_optimizers;
pub(crate) use rules::Updates;

/// An update rule and its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// p ← p - lr·g.
    Sgd,
    /// v ← momentum·v + g; p ← p - lr·v, or with Nesterov's p ← p - lr·(g + momentum·v).
    Momentum {
        /// How much of the last change is kept.
        momentum: f64,
        /// Whether it is Nesterov's momentum.
        nesterov: bool,
    },
    /// Adam (Kingma and Ba, 2015), with weight decay as a part of the gradient.
    Adam(Moments),
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
    AdamW(Moments),
}

/// The constants of Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// The rate at which the mean of gradients decays.
    pub beta1: f64,
    /// The rate at which the mean of their squares decays.
    pub beta2: f64,
    /// What is added to the root of the latter.
    pub epsilon: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// Everything that is done with gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// The rule.
    pub optimizer: Optimizer,
    /// The factor of the parameter that is added to its gradient; of AdamW, the rate at which parameters decay.
    pub weight_decay: f64,
    /// The largest 2-norm of all gradients together: longer ones are shortened to it.
    pub clip_norm: Option<f64>,
}

impl Update {
    /// Whether it changes each parameter by a multiple of its gradient alone: p ← p - lr·g.
    pub(crate) fn is_plain(&self) -> bool {
        self.optimizer == Optimizer::Sgd && self.weight_decay == 0.0 && self.clip_norm.is_none()
    }
}
