//! The columns of tables that are no inputs of their own: together they are one array.

use super::check::finite;
use super::dataset::{Array, Kind, same_length};
use super::{DataError, Input, Role};
use crate::tensors::{Tensor, TensorsError};

/// The array that the columns of a table make which are nothing else.
pub(super) const FEATURES: &str = "features";

/// The arrays, with a table's columns that are nobody's stacked to one.
pub(super) fn with_features(
    arrays: &[Array],
    inputs: &[Input],
    bindings: &[(String, String)],
) -> Result<Vec<Array>, DataError> {
    let is_bound = |input: &Input| bindings.iter().any(|(name, _)| *name == input.name);
    let has_array = |input: &Input| is_bound(input) || arrays.iter().any(|array| array.name == input.name);
    let lacks = |role| inputs.iter().any(|input| input.role == role && !has_array(input));
    let is_wanted = lacks(Role::Data) || bindings.iter().any(|(_, array)| array == FEATURES);
    let is_own = |array: &Array| {
        array.kind == Kind::Whole
            || inputs.iter().any(|input| input.name == array.name && !is_bound(input))
            || bindings.iter().any(|(_, name)| *name == array.name)
            || [Role::Labels, Role::Weights].iter().any(|&role| role.is_usual(array) && lacks(role))
    };
    if !is_wanted || arrays.iter().any(|array| array.name == FEATURES) {
        return Ok(arrays.to_vec());
    }
    let (mut own, columns): (Vec<Array>, Vec<Array>) = arrays.iter().cloned().partition(is_own);
    columns.iter().try_for_each(numeric)?;
    columns.iter().try_for_each(finite)?;
    own.extend(stacked(&columns)?);
    Ok(own)
}

/// Refuses a column of words.
pub(super) fn numeric(array: &Array) -> Result<(), DataError> {
    match &array.kind {
        Kind::Whole | Kind::Column => Ok(()),
        Kind::Classes { word, .. } => {
            let what = format!(
                "line {}, column '{}': '{}' is no number, and the column is not that of the labels",
                word.line, array.name, word.text
            );
            Err(TensorsError::Format { path: array.path.clone(), what }.into())
        }
    }
}

/// Columns side by side; `None` without any.
fn stacked(columns: &[Array]) -> Result<Option<Array>, DataError> {
    let Some(first) = columns.first() else { return Ok(None) };
    same_length(columns)?;
    let count = first.tensor.shape()[0];
    let width = columns.len();
    let mut numbers = vec![0.0; count * width];
    for (at, column) in columns.iter().enumerate() {
        let target = numbers.iter_mut().skip(at).step_by(width);
        target.zip(column.tensor.to_f64s()).for_each(|(target, number)| *target = number);
    }
    Ok(Some(Array::whole(FEATURES, &first.path, Tensor::of(&[count, width], &numbers))))
}
