//! How good predictions are.
//!
//! An [`Accumulator`] is fed the batches of an evaluation and gives the values of all of them together, as if they were one batch.
//! With right(k), predicted(k) and actual(k), the numbers of examples of class k that are predicted to be k, that are predicted to be
//! k, and that are of class k, and s examples:
//!
//! | metric | value |
//! |---|---|
//! | `accuracy` | Σₖ right(k) / s |
//! | `f1` | 2·right(k) / (predicted(k) + actual(k)): of class 1 if there are two classes, else the mean over the classes that occur |
//! | `mcc` | the correlation coefficient of Matthews, for any number of classes (Gorodkin 2004): (s·Σₖ right(k) - Σₖ predicted(k)·actual(k)) / √((s² - Σₖ predicted(k)²)·(s² - Σₖ actual(k)²)) |
//! | `pearson` | the linear correlation of predictions and labels, over all elements |
//! | `spearman` | the same of their ranks; equal elements have the mean of their ranks |
//! | `mse` | the mean of squared differences, over all elements |
//! | `mae` | the mean of absolute differences, over all elements |
//!
//! What is undefined is NaN: any metric of no examples, `f1` of a class 1 that does not occur, `mcc` where all labels or all predictions
//! are of one class, a correlation where all labels or all predictions are equal. (SciPy says so too; scikit-learn has 0 for `f1` and
//! `mcc`.) A prediction that is NaN makes every value NaN.

mod classes;
mod real;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use self::classes::ClassCounts;
use self::real::Pairs;
use crate::tensors::Tensor;
use crate::training_graph::Distance;

/// A measure of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The share of examples whose class is predicted.
    Accuracy,
    /// The harmonic mean of precision and recall.
    F1,
    /// The correlation coefficient of Matthews.
    Mcc,
    /// The linear correlation.
    Pearson,
    /// The correlation of ranks.
    Spearman,
    /// The mean squared error.
    Mse,
    /// The mean absolute error.
    Mae,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 7] =
        [Self::Accuracy, Self::F1, Self::Mcc, Self::Pearson, Self::Spearman, Self::Mse, Self::Mae];

    /// What it is called on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Mcc => "mcc",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
            Self::Mse => "mse",
            Self::Mae => "mae",
        }
    }

    /// Whether the metric is one of such labels.
    pub fn fits(self, labels: Labels) -> bool {
        matches!(self, Self::Accuracy | Self::F1 | Self::Mcc) != matches!(labels, Labels::Real)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = MetricError;

    fn from_str(text: &str) -> Result<Self, MetricError> {
        let metric = Self::ALL.into_iter().find(|metric| metric.name() == text);
        metric.ok_or_else(|| MetricError::Unknown { text: text.to_owned() })
    }
}

/// What labels say, and how a prediction says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// The index of a class. Of the prediction, the class with the largest element, the first of equal ones.
    Classes {
        /// The axis of the prediction along which classes lie; `None`: the last one. Labels lack it.
        class_axis: Option<i64>,
        /// A label that does not count.
        ignore_index: Option<i64>,
    },
    /// Probabilities of classes, in the shape of the prediction. The class with the largest element counts, of both.
    Probabilities {
        /// The axis along which classes lie; `None`: the last one.
        class_axis: Option<i64>,
    },
    /// Zero or one for each element of the prediction, which is one above zero: a logit.
    Binary,
    /// A number for each element of the prediction.
    Real,
}

impl From<Distance> for Labels {
    fn from(distance: Distance) -> Self {
        match distance {
            Distance::CrossEntropy { class_axis, ignore_index } => Self::Classes { class_axis, ignore_index },
            Distance::SoftCrossEntropy { class_axis } => Self::Probabilities { class_axis },
            Distance::BinaryCrossEntropy => Self::Binary,
            Distance::MeanSquaredError | Distance::L1 => Self::Real,
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classes { .. } => "class indices",
            Self::Probabilities { .. } => "probabilities of classes",
            Self::Binary => "zeros and ones",
            Self::Real => "real numbers",
        })
    }
}

/// Why there is no such metric, or none of these predictions and labels.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// There is no metric of this name.
    #[error("'{text}' is no metric; the metrics are: {}", Metric::ALL.map(Metric::name).join(", "))]
    Unknown {
        /// The name.
        text: String,
    },
    /// The metric is not for such labels.
    #[error("the metric {metric} does not fit labels that are {labels}; those that do are: {}", fitting(*labels))]
    Unfit {
        /// The metric.
        metric: Metric,
        /// What the labels are.
        labels: Labels,
    },
    /// The labels do not belong to the predictions.
    #[error("labels {labels} do not fit predictions {prediction}: {what}")]
    Shape {
        /// Type and shape of the labels.
        labels: String,
        /// Type and shape of the predictions.
        prediction: String,
        /// Why not.
        what: String,
    },
    /// A label is not one of those that there are.
    #[error("label {label}, number {position} of a batch counted from 0, is not {expected}")]
    Label {
        /// The label.
        label: f64,
        /// Its place in the labels of the batch.
        position: usize,
        /// What it should be.
        expected: String,
    },
}

impl MetricError {
    fn shape(prediction: &Tensor, labels: &Tensor, what: impl Into<String>) -> Self {
        Self::Shape { labels: labels.describe(), prediction: prediction.describe(), what: what.into() }
    }
}

fn require_same_shape(prediction: &Tensor, labels: &Tensor) -> Result<(), MetricError> {
    if labels.shape() == prediction.shape() {
        return Ok(());
    }
    Err(MetricError::shape(prediction, labels, "there is to be one for each element"))
}

fn fitting(labels: Labels) -> String {
    let fitting = Metric::ALL.into_iter().filter(|metric| metric.fits(labels)).map(Metric::name);
    fitting.collect::<Vec<_>>().join(", ")
}

/// Adds up the batches of an evaluation.
///
/// ```
/// use isaac::tensors::Tensor;
/// use isaac::train::metrics::{Accumulator, Labels, Metric};
/// # fn main() -> Result<(), isaac::train::metrics::MetricError> {
/// let labels = Labels::Classes { class_axis: None, ignore_index: None };
/// let mut evaluation = Accumulator::new(&[Metric::Accuracy], labels)?;
/// evaluation.add(&Tensor::of(&[2, 3], &[0.1_f32, 0.7, 0.2, 0.9, 0.0, 0.1]), &Tensor::of(&[2], &[1_i64, 2]))?;
/// assert_eq!(evaluation.values(), [(Metric::Accuracy, 0.5)]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Accumulator {
    metrics: Vec<Metric>,
    labels: Labels,
    counts: ClassCounts,
    pairs: Pairs,
}

impl Accumulator {
    /// Of no batch yet.
    ///
    /// # Errors
    /// A metric that is not for such labels.
    pub fn new(metrics: &[Metric], labels: Labels) -> Result<Self, MetricError> {
        if let Some(&metric) = metrics.iter().find(|metric| !metric.fits(labels)) {
            return Err(MetricError::Unfit { metric, labels });
        }
        let pairs = Pairs::new(metrics.contains(&Metric::Spearman));
        Ok(Self { metrics: metrics.to_vec(), labels, counts: ClassCounts::default(), pairs })
    }

    /// Adds a batch.
    ///
    /// # Errors
    /// Labels that do not belong to the predictions. The values are of no use then.
    pub fn add(&mut self, prediction: &Tensor, labels: &Tensor) -> Result<(), MetricError> {
        match self.labels {
            Labels::Classes { class_axis, ignore_index } => {
                self.counts.add_indices(prediction, labels, class_axis, ignore_index)?;
            }
            Labels::Probabilities { class_axis } => self.counts.add_probabilities(prediction, labels, class_axis)?,
            Labels::Binary => self.counts.add_binary(prediction, labels)?,
            Labels::Real => self.pairs.add(prediction, labels)?,
        }
        Ok(())
    }

    /// The values over all batches so far, in the order in which the metrics were asked for.
    pub fn values(&self) -> Vec<(Metric, f64)> {
        self.metrics.iter().map(|&metric| (metric, self.value(metric))).collect()
    }

    fn value(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Accuracy => self.counts.accuracy(),
            Metric::F1 => self.counts.f1(),
            Metric::Mcc => self.counts.mcc(),
            Metric::Pearson => self.pairs.pearson(),
            Metric::Spearman => self.pairs.spearman(),
            Metric::Mse => self.pairs.mean_squared_error(),
            Metric::Mae => self.pairs.mean_absolute_error(),
        }
    }
}
