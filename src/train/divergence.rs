//! Why training came to numbers that are not finite.

use std::fmt;

use crate::tensors::Tensor;

/// Where a run left the finite numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Divergence {
    /// The step, counted from 1.
    pub step: u64,
    /// Its loss.
    pub loss: f64,
    /// Its learning rate.
    pub lr: f64,
    /// Its damping; infinite, where the graph has none.
    pub lambda: f64,
    /// What is at fault.
    pub fault: Fault,
}

/// What is at fault.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The update of the step before made this parameter not finite.
    Update {
        /// The first such parameter.
        parameter: String,
    },
    /// The step started from finite parameters; its forward pass overflowed.
    Forward {
        /// The parameter with the largest element.
        largest: String,
        /// The size of that element.
        size: f64,
    },
    /// The activations of a layer, or their gradients, have grown so large that their curvature is no positive definite matrix.
    Layer {
        /// What the operator says, with its node and its damping.
        what: String,
    },
}

impl Divergence {
    /// Of a step in which a layer's curvature broke down.
    pub(super) fn in_layer(what: String, step: u64, lr: f64, lambda: f64) -> Self {
        Self { step, loss: f64::NAN, lr, lambda, fault: Fault::Layer { what } }
    }

    /// Of a step that came to this loss from these parameters and states.
    pub(super) fn of<'a>(
        carried: impl Iterator<Item = (&'a str, &'a Tensor)>,
        step: u64,
        loss: f64,
        lr: f64,
        lambda: f64,
    ) -> Self {
        let (mut largest, mut size) = (String::new(), 0.0);
        let mut fault = None;
        for (name, tensor) in carried {
            let elements = tensor.to_f64s();
            if elements.iter().any(|element| !element.is_finite()) {
                fault = Some(Fault::Update { parameter: name.to_owned() });
                break;
            }
            let peak = elements.into_iter().map(f64::abs).fold(0.0, f64::max);
            if peak >= size {
                (largest, size) = (name.to_owned(), peak);
            }
        }
        let fault = fault.unwrap_or(Fault::Forward { largest, size });
        Self { step, loss, lr, lambda, fault }
    }
}

impl std::error::Error for Divergence {}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::Update { parameter } => {
                write!(f, "the update of step {} made '{parameter}' not finite", self.step - 1)?;
            }
            Fault::Forward { largest, size } => {
                let Self { step, loss, .. } = self;
                write!(
                    f,
                    "step {step}: the loss is {loss}: the parameters before it are finite, the largest element is {size:e} in '{largest}'"
                )?;
            }
            Fault::Layer { what } => write!(f, "step {}: {what}", self.step)?,
        }
        write!(f, "; the learning rate is {}", self.lr)?;
        if self.lambda.is_finite() {
            write!(f, ", lambda {}", self.lambda)?;
        }
        f.write_str("; smaller steps, or a larger lambda, may help")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tensors: &[(&str, &[f32])]) -> Fault {
        let tensors: Vec<(&str, Tensor)> =
            tensors.iter().map(|&(name, values)| (name, Tensor::of(&[values.len()], values))).collect();
        Divergence::of(tensors.iter().map(|(name, tensor)| (*name, tensor)), 2, f64::NAN, 1.0, 1.0).fault
    }

    #[test]
    fn the_first_parameter_that_is_not_finite_is_named() {
        let fault = of(&[("a", &[1.0]), ("b", &[f32::NAN, 2.0]), ("c", &[f32::INFINITY])]);
        assert_eq!(fault, Fault::Update { parameter: "b".into() });
        let fault = of(&[("a", &[1.0]), ("c", &[f32::INFINITY])]);
        assert_eq!(fault, Fault::Update { parameter: "c".into() });
    }

    #[test]
    fn else_the_largest_one_is() {
        let fault = of(&[("a", &[1.0]), ("b", &[-8.0, 2.0]), ("c", &[3.0]), ("empty", &[])]);
        assert_eq!(fault, Fault::Forward { largest: "b".into(), size: 8.0 });
    }
}
