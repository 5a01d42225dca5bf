//! Losses of class scores against labels.

use super::{Rule, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;
use crate::proto::tensor_proto::DataType;

pub(super) const RULES: &[(&str, Rule)] =
    &[("NegativeLogLikelihoodLoss", first(1, likelihood)), ("SoftmaxCrossEntropyLoss", first(1, cross_entropy))];

type Done = Result<(), Refusal>;

/// The loss of a label t is -w_t · x_t: its gradient is at the label alone.
fn likelihood(s: &mut Step<'_, '_>) -> Done {
    let labels = Labels::read(s)?;
    let [_, at_labels] = labels.factors(s);
    let gradient = s.b.op("Neg", &[&at_labels]);
    s.give(0, gradient);
    Ok(())
}

/// The same of x = log softmax of the scores, which may be a result as well: dscores = dx - softmax · Σ dx.
fn cross_entropy(s: &mut Step<'_, '_>) -> Done {
    let rank = s.need_rank(0)?;
    if s.b.opset() < 13 && rank != 2 {
        return Err("before opset 13, over several axes".into());
    }
    let probabilities = match s.y(1) {
        "" => s.b.with("Softmax", &[s.x(0)], |node| node.with_int("axis", 1)),
        logarithms => s.b.op("Exp", &[logarithms]),
    };
    let mut gradient = None;
    if s.dy_at(0).is_some() {
        let labels = Labels::read(s)?;
        let [factors, at_labels] = labels.factors(s);
        let scaled = s.b.op("Mul", &[&probabilities, &factors]);
        gradient = Some(s.b.op("Sub", &[&scaled, &at_labels]));
    }
    if let Some(dx) = s.dy_at(1) {
        let sum = s.b.sum(&dx, &[1], true);
        let common = s.b.op("Mul", &[&probabilities, &sum]);
        let rest = s.b.op("Sub", &[&dx, &common]);
        gradient = Some(match gradient {
            Some(gradient) => s.b.op("Add", &[&gradient, &rest]),
            None => rest,
        });
    }
    s.made[0] = gradient;
    Ok(())
}

/// The labels of a loss, [batch, d₁, …] for scores [batch, classes, d₁, …].
struct Labels {
    rank: usize,
    /// As int64, with 0 for those that do not count.
    labels: String,
    /// Whether a label counts; `None` if all do.
    counts: Option<String>,
}

impl Labels {
    fn read(s: &mut Step<'_, '_>) -> Result<Self, Refusal> {
        let rank = s.need_rank(0)?;
        if rank < 2 {
            return Err(format!("scores with {rank} axes"));
        }
        let mut labels = s.b.cast(s.x(1), DataType::Int64 as i32);
        let mut counts = None;
        if let Some(ignored) = NodeExt::attribute(s.node, "ignore_index").and_then(|attribute| attribute.i) {
            let [ignored, zero] = [ignored, 0].map(|value| s.b.int(value));
            let is_ignored = s.b.op("Equal", &[&labels, &ignored]);
            labels = s.b.op("Where", &[&is_ignored, &zero, &labels]);
            counts = Some(s.b.op("Not", &[&is_ignored]));
        }
        Ok(Self { rank, labels, counts })
    }

    /// By how much the loss falls with each label's score: [batch, 1, d₁, …]; and the same at the class of the label, 0 at the
    /// others: [batch, classes, d₁, …].
    fn factors(&self, s: &mut Step<'_, '_>) -> [String; 2] {
        let weights = self.weights(s);
        let share = match s.node.string("reduction", "mean") {
            b"mean" => {
                let total = s.b.total(&weights);
                s.b.op("Div", &[&s.dy(), &total])
            }
            _ => s.dy(),
        };
        let factors = s.b.op("Mul", &[&weights, &share]);
        let factors = s.b.unsqueeze(&factors, &[1]);
        let labels = s.b.unsqueeze(&self.labels, &[1]);
        let classes = self.classes(s);
        let is_label = s.b.op("Equal", &[&labels, &classes]);
        let zero = s.scalar(0.0);
        let at_labels = s.b.op("Where", &[&is_label, &factors, &zero]);
        [factors, at_labels]
    }

    /// The weight of each label: that of its class, 0 if it does not count.
    fn weights(&self, s: &mut Step<'_, '_>) -> String {
        let elem = s.elem(0);
        let weights =
            if s.has(2) { s.b.op("Gather", &[s.x(2), &self.labels]) } else { s.b.filled_like(&self.labels, 1.0, elem) };
        match &self.counts {
            Some(counts) => {
                let zero = s.scalar(0.0);
                s.b.op("Where", &[counts, &weights, &zero])
            }
            None => weights,
        }
    }

    /// 0, 1, 2, … along the axis of classes: [classes, 1, …].
    fn classes(&self, s: &mut Step<'_, '_>) -> String {
        let count = s.b.size(s.x(0), 1);
        let classes = s.b.count_up(&count);
        let others: Vec<i64> = (1..self.rank as i64 - 1).collect();
        if others.is_empty() { classes } else { s.b.unsqueeze(&classes, &others) }
    }
}
