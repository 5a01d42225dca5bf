//! What of an array's elements cannot be trained with.

use std::path::Path;

use super::DataError;
use super::dataset::Array;
use crate::model::Classes;
use crate::tensors::Tensor;

impl Classes {
    fn has(&self, label: f64) -> bool {
        let is_class = label >= 0.0 && self.count.is_none_or(|count| label < count as f64);
        is_class || self.ignored.is_some_and(|ignored| label == ignored as f64)
    }

    /// As a message says it.
    fn describe(&self) -> String {
        let classes = match self.count {
            Some(count) => format!("from 0 to {}", count.saturating_sub(1)),
            None => "from 0 on".to_owned(),
        };
        let ignored = self.ignored.map(|ignored| format!(", or {ignored}, which does not count"));
        format!("labels of classes are {classes}{}", ignored.unwrap_or_default())
    }
}

/// Refuses an array with NaN or infinity in it: every step with that would come to no number.
pub(super) fn finite(array: &Array) -> Result<(), DataError> {
    match array.tensor.find(|number| !number.is_finite()) {
        Some((at, number)) => {
            let place = place_in_row(at, &array.tensor).map_or(String::new(), |place| format!(" at {place:?}"));
            let what = format!("{number}{place} is no finite number");
            Err(misfit(&array.path, &array.name, &array.tensor, at, what))
        }
        None => Ok(()),
    }
}

/// Refuses labels that are none of the classes.
pub(super) fn labels(path: &Path, array: &str, tensor: &Tensor, classes: Classes) -> Result<(), DataError> {
    match tensor.find(|label| !classes.has(label)) {
        Some((at, label)) => {
            Err(misfit(path, array, tensor, at, format!("the label is {label}, and {}", classes.describe())))
        }
        None => Ok(()),
    }
}

fn misfit(path: &Path, array: &str, tensor: &Tensor, at: usize, what: String) -> DataError {
    DataError::Element { path: path.to_owned(), array: array.to_owned(), row: at / row_size(tensor), what }
}

/// Where in its row the element at this position is; `None` if the row is one element.
fn place_in_row(at: usize, tensor: &Tensor) -> Option<Vec<usize>> {
    let mut rest = at % row_size(tensor);
    let sizes = tensor.shape().get(1..).unwrap_or_default();
    let mut place: Vec<usize> = sizes
        .iter()
        .rev()
        .map(|size| {
            let index = rest % size;
            rest /= size;
            index
        })
        .collect();
    place.reverse();
    (!place.is_empty()).then_some(place)
}

fn row_size(tensor: &Tensor) -> usize {
    tensor.shape().iter().skip(1).product::<usize>().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_found_where_they_are() {
        for (bad, says) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let mut numbers = [0.5; 24];
            assert!(finite(&Array::whole("x", Path::new("d.npz"), Tensor::of(&[2, 3, 4], &numbers))).is_ok());
            numbers[18] = bad;
            let of_shape = |shape: &[usize]| {
                let array = Array::whole("x", Path::new("d.npz"), Tensor::of(shape, &numbers));
                finite(&array).expect_err("a bad number").to_string()
            };
            assert_eq!(
                of_shape(&[2, 3, 4]),
                format!("d.npz: 'x', row 1, counted from 0: {says} at [1, 2] is no finite number")
            );
            assert_eq!(of_shape(&[24]), format!("d.npz: 'x', row 18, counted from 0: {says} is no finite number"));
        }
    }

    #[test]
    fn labels_are_classes_or_what_does_not_count() {
        let classes = |count, ignored| Classes { count, ignored };
        let check =
            |label: i64, classes| labels(Path::new("d.npz"), "y", &Tensor::of(&[2, 2], &[0, 1, 2, label]), classes);
        for (label, of) in
            [(0, classes(Some(3), None)), (-100, classes(Some(3), Some(-100))), (99, classes(None, None))]
        {
            assert!(check(label, of).is_ok(), "{label}");
        }
        for (label, of, says) in [
            (3, classes(Some(3), None), "the label is 3, and labels of classes are from 0 to 2"),
            (-1, classes(Some(3), None), "the label is -1, and labels of classes are from 0 to 2"),
            (
                -1,
                classes(Some(3), Some(-100)),
                "the label is -1, and labels of classes are from 0 to 2, or -100, which does not count",
            ),
            (-1, classes(None, None), "the label is -1, and labels of classes are from 0 on"),
        ] {
            let error = check(label, of).expect_err(says).to_string();
            assert_eq!(error, format!("d.npz: 'y', row 1, counted from 0: {says}"));
        }
    }
}
