//! What a loss says of labels: their distribution, and gradients for labels that are drawn from it.

use super::random::Random;
use crate::model::{Builder, TensorType};
use crate::proto::tensor_proto::DataType;

const INT64: i32 = DataType::Int64 as i32;

/// The distribution of labels whose negative logarithm a loss is.
#[derive(Debug)]
pub(super) struct Distribution {
    pub(super) kind: Kind,
    pub(super) prediction: String,
    pub(super) tensor: TensorType,
    pub(super) working: i32,
    /// One where a label counts, zero elsewhere.
    pub(super) mask: Option<String>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// With these probabilities along the axis `axis`.
    Categorical { probabilities: String, classes: Classes },
    /// Of ones and zeros, with these probabilities of one.
    Bernoulli { probabilities: String },
    /// Around the prediction.
    Normal,
}

/// The classes of a cross-entropy.
#[derive(Debug)]
pub(super) struct Classes {
    pub(super) axis: i64,
    pub(super) count: Option<u64>,
    /// Their numbers, in a shape that broadcasts against the prediction.
    pub(super) numbers: String,
}

impl Distribution {
    /// How many classes there are, where labels are of classes and the model says it.
    pub(super) fn classes(&self) -> Option<u64> {
        match &self.kind {
            Kind::Categorical { classes, .. } => classes.count,
            Kind::Bernoulli { .. } | Kind::Normal => None,
        }
    }

    /// Draws labels, and writes the gradient of each example's loss with respect to the prediction, not divided by the batch. The
    /// expectation of its outer products is the Hessian of the loss (ISAAC Newton, section 3).
    pub(super) fn sampled_gradient(&self, b: &mut Builder<'_>, random: &mut Random) -> String {
        let elem = self.working;
        let gradient = match &self.kind {
            Kind::Categorical { probabilities, classes } => {
                let axis = b.int(classes.axis);
                let distribution = b.op("CumSum", &[probabilities, &axis]);
                let total = b.over_axes("ReduceMax", 18, &distribution, &[classes.axis], |node| node);
                let uniform = random.uniform(b, &total, elem);
                let threshold = b.op("Mul", &[&uniform, &total]);
                let is_below = b.op("LessOrEqual", &[&distribution, &threshold]);
                let is_below = b.cast(&is_below, INT64);
                let index = b.sum(&is_below, &[classes.axis], true);
                distance_from_class(b, probabilities, &index, classes, elem)
            }
            Kind::Bernoulli { probabilities } => {
                let uniform = random.uniform(b, probabilities, elem);
                let label = b.op("Less", &[&uniform, probabilities]);
                let label = b.cast(&label, elem);
                let difference = b.op("Sub", &[probabilities, &label]);
                self.over_root_of_size(b, &difference, 1.0)
            }
            Kind::Normal => {
                let noise = random.normal(b, &self.prediction, elem);
                self.over_root_of_size(b, &noise, std::f64::consts::SQRT_2)
            }
        };
        let gradient = match (&self.mask, &self.kind) {
            (Some(mask), Kind::Categorical { classes, .. }) => {
                let mask = b.unsqueeze(mask, &[classes.axis]);
                b.op("Mul", &[&gradient, &mask])
            }
            _ => gradient,
        };
        b.converted(&gradient, elem, self.tensor.elem)
    }

    /// `value` · factor / √(elements of one example).
    fn over_root_of_size(&self, b: &mut Builder<'_>, value: &str, factor: f64) -> String {
        let sizes = self.tensor.shape.as_deref().and_then(|shape| shape.get(1..));
        let known = sizes.and_then(|sizes| sizes.iter().try_fold(1.0, |size, dim| Some(size * dim.known()? as f64)));
        match known {
            Some(size) => {
                let factor = b.scalar(factor / size.sqrt(), self.working);
                b.op("Mul", &[value, &factor])
            }
            None => {
                let size = b.op("Size", &[&self.prediction]);
                let examples = b.size(&self.prediction, 0);
                let size = b.op("Div", &[&size, &examples]);
                let size = b.cast(&size, self.working);
                let root = b.op("Sqrt", &[&size]);
                let factor = b.scalar(factor, self.working);
                let factor = b.op("Div", &[&factor, &root]);
                b.op("Mul", &[value, &factor])
            }
        }
    }
}

/// probabilities - (1 for the class `index`, 0 for others), with `index` of size one along the class axis.
pub(super) fn distance_from_class(
    b: &mut Builder<'_>,
    probabilities: &str,
    index: &str,
    classes: &Classes,
    elem: i32,
) -> String {
    let is_class = b.op("Equal", &[index, &classes.numbers]);
    let one_hot = b.cast(&is_class, elem);
    b.op("Sub", &[probabilities, &one_hot])
}
