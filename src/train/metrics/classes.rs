//! Counts of classes, predicted and actual.

use super::{MetricError, require_same_shape};
use crate::proto::tensor_proto::DataType;
use crate::tensors::{Element, Tensor, with_element};

/// What was predicted of which class.
#[derive(Debug, Clone, Default)]
pub(super) struct ClassCounts {
    right: Vec<u64>,
    predicted: Vec<u64>,
    actual: Vec<u64>,
    /// Whether a prediction was NaN.
    unknown: bool,
}

impl ClassCounts {
    /// Adds predictions with a class axis and labels without it.
    pub(super) fn add_indices(
        &mut self,
        prediction: &Tensor,
        labels: &Tensor,
        class_axis: Option<i64>,
        ignore_index: Option<i64>,
    ) -> Result<(), MetricError> {
        let mismatch = |what: String| MetricError::shape(prediction, labels, what);
        if !is_whole(labels.elem()) {
            return Err(mismatch("class indices are whole numbers".to_owned()));
        }
        let axis = ClassAxis::of(prediction, class_axis).map_err(mismatch)?;
        let expected = axis.removed(prediction.shape());
        if labels.shape() != expected {
            return Err(mismatch(format!("their shape is to be {expected:?}")));
        }
        self.reserve(axis.classes);
        for (position, (predicted, label)) in axis.largest(prediction).into_iter().zip(labels.to_f64s()).enumerate() {
            if ignore_index.is_some_and(|ignored| label == ignored as f64) {
                continue;
            }
            if !(0.0..axis.classes as f64).contains(&label) {
                let expected = format!("one of the {} classes", axis.classes);
                return Err(MetricError::Label { label, position, expected });
            }
            self.add(predicted, label as usize);
        }
        Ok(())
    }

    /// Adds predictions and labels with a class axis.
    pub(super) fn add_probabilities(
        &mut self,
        prediction: &Tensor,
        labels: &Tensor,
        class_axis: Option<i64>,
    ) -> Result<(), MetricError> {
        require_same_shape(prediction, labels)?;
        let axis =
            ClassAxis::of(prediction, class_axis).map_err(|what| MetricError::shape(prediction, labels, what))?;
        self.reserve(axis.classes);
        let pairs = axis.largest(prediction).into_iter().zip(axis.largest(labels));
        for (position, (predicted, actual)) in pairs.enumerate() {
            let Some(actual) = actual else {
                return Err(MetricError::Label { label: f64::NAN, position, expected: "a probability".to_owned() });
            };
            self.add(predicted, actual);
        }
        Ok(())
    }

    /// Adds logits and zeros and ones.
    pub(super) fn add_binary(&mut self, prediction: &Tensor, labels: &Tensor) -> Result<(), MetricError> {
        require_same_shape(prediction, labels)?;
        self.reserve(2);
        for (position, (logit, label)) in prediction.to_f64s().into_iter().zip(labels.to_f64s()).enumerate() {
            if label != 0.0 && label != 1.0 {
                return Err(MetricError::Label { label, position, expected: "zero or one".to_owned() });
            }
            let predicted = (!logit.is_nan()).then_some(usize::from(logit > 0.0));
            self.add(predicted, usize::from(label == 1.0));
        }
        Ok(())
    }

    fn reserve(&mut self, classes: usize) {
        for counts in [&mut self.right, &mut self.predicted, &mut self.actual] {
            counts.resize(classes.max(counts.len()), 0);
        }
    }

    fn add(&mut self, predicted: Option<usize>, actual: usize) {
        self.actual[actual] += 1;
        match predicted {
            Some(predicted) => {
                self.predicted[predicted] += 1;
                self.right[actual] += u64::from(predicted == actual);
            }
            None => self.unknown = true,
        }
    }

    pub(super) fn accuracy(&self) -> f64 {
        self.unless_unknown(self.right.iter().sum::<u64>() as f64 / self.actual.iter().sum::<u64>() as f64)
    }

    pub(super) fn f1(&self) -> f64 {
        let of_class = |k: usize| 2.0 * self.right[k] as f64 / (self.predicted[k] + self.actual[k]) as f64;
        if self.right.len() == 2 {
            return self.unless_unknown(of_class(1));
        }
        let occurring: Vec<usize> = (0..self.right.len()).filter(|&k| self.predicted[k] + self.actual[k] > 0).collect();
        self.unless_unknown(occurring.iter().map(|&k| of_class(k)).sum::<f64>() / occurring.len() as f64)
    }

    pub(super) fn mcc(&self) -> f64 {
        let dot = |a: &[u64], b: &[u64]| -> f64 { a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum() };
        let total = self.actual.iter().sum::<u64>() as f64;
        let right = self.right.iter().sum::<u64>() as f64;
        let covariance = total * right - dot(&self.predicted, &self.actual);
        let [predicted, actual] = [&self.predicted, &self.actual].map(|counts| total * total - dot(counts, counts));
        self.unless_unknown(covariance / (predicted.sqrt() * actual.sqrt()))
    }

    fn unless_unknown(&self, value: f64) -> f64 {
        if self.unknown { f64::NAN } else { value }
    }
}

/// The axis along which classes lie.
struct ClassAxis {
    axis: usize,
    classes: usize,
    /// The elements from one class to the next.
    stride: usize,
}

impl ClassAxis {
    fn of(tensor: &Tensor, axis: Option<i64>) -> Result<Self, String> {
        let rank = tensor.shape().len() as i64;
        let axis = axis.unwrap_or(-1);
        if !(-rank..rank).contains(&axis) {
            return Err(format!("there is no class axis {axis}"));
        }
        let axis = axis.rem_euclid(rank) as usize;
        Ok(Self { axis, classes: tensor.shape()[axis], stride: tensor.shape()[axis + 1..].iter().product() })
    }

    fn removed(&self, shape: &[usize]) -> Vec<usize> {
        [&shape[..self.axis], &shape[self.axis + 1..]].concat()
    }

    /// The class of the largest element at each place; `None` where an element is NaN.
    fn largest(&self, tensor: &Tensor) -> Vec<Option<usize>> {
        with_element!(tensor.elem(), E => self.largest_of::<E>(tensor.data()), Vec::new())
    }

    fn largest_of<E: Element>(&self, data: &[u8]) -> Vec<Option<usize>> {
        let element = |index: usize| E::read(&data[index * size_of::<E>()..(index + 1) * size_of::<E>()]).number();
        let largest = |first: usize| {
            let mut largest = (f64::NEG_INFINITY, 0);
            for class in 0..self.classes {
                let element = element(first + class * self.stride);
                if element.is_nan() {
                    return None;
                }
                if element > largest.0 {
                    largest = (element, class);
                }
            }
            Some(largest.1)
        };
        let block = self.classes * self.stride;
        let blocks = (data.len() / size_of::<E>()).checked_div(block).unwrap_or(0);
        (0..blocks).flat_map(|i| (0..self.stride).map(move |place| i * block + place)).map(largest).collect()
    }
}

fn is_whole(elem: DataType) -> bool {
    use DataType::*;
    matches!(elem, Int64 | Int32 | Int16 | Int8 | Uint64 | Uint32 | Uint16 | Uint8 | Bool)
}
