use super::{Moments, Optimizer, Update};
use crate::model::{Builder, TensorType, working_type};
use crate::proto::TensorProto;
use crate::proto::tensor_proto::DataType;

/// A tensor that an optimizer carries from step to step.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    /// Its name, which is also its input's.
    pub(crate) name: String,
    /// Its value before the first step.
    pub(crate) start: TensorProto,
    /// The value after the step.
    pub(crate) updated: String,
}

/// Writes the updates of one graph's parameters.
#[derive(Debug)]
pub(crate) struct Updates<'a> {
    update: &'a Update,
    learning_rate: String,
    /// Of Adam: what both mean values are corrected by after so many steps.
    corrections: Option<[String; 2]>,
    carried: Vec<Carried>,
}

impl<'a> Updates<'a> {
    /// With the learning rate in the scalar `learning_rate`, a float.
    pub(crate) fn new(b: &mut Builder<'_>, update: &'a Update, learning_rate: &str) -> Self {
        let mut updates =
            Self { update, learning_rate: learning_rate.to_owned(), corrections: None, carried: Vec::new() };
        if let Optimizer::Adam(moments) | Optimizer::AdamW(moments) = &update.optimizer {
            updates.corrections = Some(updates.count_step(b, moments));
        }
        updates
    }

    /// What is carried from step to step.
    pub(crate) fn into_carried(self) -> Vec<Carried> {
        self.carried
    }

    /// The parameter after the step. `gradient` has its type.
    pub(crate) fn parameter(&mut self, b: &mut Builder<'_>, name: &str, tensor: &TensorType, gradient: &str) -> String {
        let working = working_type(tensor.elem);
        let Update { optimizer, weight_decay, .. } = self.update;
        let rate = b.converted(&self.learning_rate, DataType::Float as i32, working);
        let mut parameter = b.converted(name, tensor.elem, working);
        let mut gradient = b.converted(gradient, tensor.elem, working);
        if let Optimizer::AdamW(_) = optimizer {
            parameter = decayed(b, &parameter, &rate, *weight_decay, working);
        } else if *weight_decay != 0.0 {
            let decay = scaled(b, &parameter, *weight_decay, working);
            gradient = b.op("Add", &[&gradient, &decay]);
        }
        let direction = match optimizer {
            Optimizer::Sgd => gradient,
            Optimizer::Momentum { momentum, nesterov } => {
                let velocity = self.carry(b, name, "momentum", tensor, *momentum, &gradient);
                if *nesterov {
                    let ahead = scaled(b, &velocity, *momentum, working);
                    b.op("Add", &[&gradient, &ahead])
                } else {
                    velocity
                }
            }
            Optimizer::Adam(moments) | Optimizer::AdamW(moments) => self.adam(b, name, tensor, moments, &gradient),
        };
        let change = b.op("Mul", &[&rate, &direction]);
        let updated = b.op("Sub", &[&parameter, &change]);
        b.converted(&updated, working, tensor.elem)
    }

    /// m̂ / (√v̂ + ε), with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ).
    fn adam(
        &mut self,
        b: &mut Builder<'_>,
        name: &str,
        tensor: &TensorType,
        moments: &Moments,
        gradient: &str,
    ) -> String {
        let working = working_type(tensor.elem);
        let share = scaled(b, gradient, 1.0 - moments.beta1, working);
        let mean = self.carry(b, name, "mean", tensor, moments.beta1, &share);
        let square = b.op("Mul", &[gradient, gradient]);
        let share = scaled(b, &square, 1.0 - moments.beta2, working);
        let mean_square = self.carry(b, name, "mean_square", tensor, moments.beta2, &share);
        let corrections = self.corrections.clone().unwrap_or_default();
        let [mean_correction, root_correction] =
            corrections.map(|correction| b.converted(&correction, DataType::Double as i32, working));
        let root = b.op("Sqrt", &[&mean_square]);
        let root = b.op("Div", &[&root, &root_correction]);
        let epsilon = b.scalar(moments.epsilon, working);
        let root = b.op("Add", &[&root, &epsilon]);
        let direction = b.op("Div", &[&mean, &root]);
        b.op("Div", &[&direction, &mean_correction])
    }

    /// Counts the steps; 1 - β₁ᵗ and √(1 - β₂ᵗ) in double, where 1 - 0.999 is not yet rounded away.
    fn count_step(&mut self, b: &mut Builder<'_>, moments: &Moments) -> [String; 2] {
        let one = b.int(1);
        let input = b.named("step");
        let step = b.op("Add", &[&input, &one]);
        self.carried.push(Carried { name: input, start: TensorProto::of_int(0), updated: step.clone() });
        let double = DataType::Double as i32;
        let step = b.cast(&step, double);
        let one = b.scalar(1.0, double);
        let mut left = |beta: f64| {
            let beta = b.scalar(beta, double);
            let power = b.op("Pow", &[&beta, &step]);
            b.op("Sub", &[&one, &power])
        };
        let [mean, mean_square] = [left(moments.beta1), left(moments.beta2)];
        [mean, b.op("Sqrt", &[&mean_square])]
    }

    /// `rate` · the carried tensor + `value`, which is carried on.
    fn carry(
        &mut self,
        b: &mut Builder<'_>,
        name: &str,
        what: &str,
        tensor: &TensorType,
        rate: f64,
        value: &str,
    ) -> String {
        let working = working_type(tensor.elem);
        let input = b.named(&format!("{name}.{what}"));
        let kept = scaled(b, &input, rate, working);
        let updated = b.op("Add", &[&kept, value]);
        let start = TensorProto::zeros(tensor, working);
        self.carried.push(Carried { name: input, start, updated: updated.clone() });
        updated
    }
}

/// p · (1 - lr · decay).
fn decayed(b: &mut Builder<'_>, parameter: &str, rate: &str, decay: f64, elem: i32) -> String {
    if decay == 0.0 {
        return parameter.to_owned();
    }
    let share = scaled(b, rate, decay, elem);
    let one = b.scalar(1.0, elem);
    let factor = b.op("Sub", &[&one, &share]);
    b.op("Mul", &[parameter, &factor])
}

/// value · factor.
pub(super) fn scaled(b: &mut Builder<'_>, value: &str, factor: f64, elem: i32) -> String {
    let factor = b.scalar(factor, elem);
    b.op("Mul", &[value, &factor])
}
