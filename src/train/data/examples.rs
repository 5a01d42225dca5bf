use super::dataset::{Array, Dataset};
use super::pairing::{pair, same_length};
use super::shuffle::permutation;
use super::{DataError, Input, convert};
use crate::tensors::Tensor;

/// What a model is fed with: a tensor for each input, in the type and shape that it takes, and in each the same number of examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    fed: Vec<Fed>,
    count: usize,
    fixed_batch: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
struct Fed {
    input: String,
    array: String,
    tensor: Tensor,
}

/// The stream of random numbers that splits; those of epochs are counted from 0.
const SPLIT: u64 = u64::MAX;

impl Examples {
    /// Finds an array for each input, and makes of it what the input takes.
    ///
    /// An input is fed the array that is bound to it (pairs of an input and an array; an array may be bound to several inputs), or
    /// else the one of its name. A single input that is left takes the one array whose name is usual for it (`x`, `images`,
    /// `features`, …; `y`, `labels`, `targets`, …), or else the one array that is left. Columns of tables that are neither bound nor
    /// named like an input, nor labels by name, are stacked in the order of the file to the array `features`.
    ///
    /// # Errors
    /// An input with no array or several that it could take, an array that cannot become what its input takes, and arrays with
    /// different numbers of examples.
    pub fn new(dataset: &Dataset, inputs: &[Input], bindings: &[(String, String)]) -> Result<Self, DataError> {
        let arrays = pair(dataset, inputs, bindings)?;
        let fed = inputs.iter().zip(&arrays).map(|(input, array)| feed(input, array)).collect::<Result<Vec<_>, _>>()?;
        same_length(&arrays)?;
        let count = fed.first().map_or(0, |fed| fed.tensor.shape()[0]);
        Ok(Self { fed, count, fixed_batch: fixed_batch(inputs)? })
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each input, and the array that it is fed.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fed.iter().map(|fed| (fed.input.as_str(), fed.array.as_str()))
    }

    /// The size of the batches, if the model's inputs are declared for one.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.fixed_batch
    }

    /// Splits into examples to train with and a fraction to evaluate on. Which are which depends on the number of examples, the
    /// fraction and the seed only; both keep their order.
    ///
    /// # Errors
    /// If either would be empty.
    pub fn split(self, fraction: f64, seed: u64) -> Result<(Self, Self), DataError> {
        let evaluated = (fraction * self.count as f64).round();
        if !(evaluated >= 1.0 && evaluated < self.count as f64) {
            return Err(DataError::Fraction { fraction, count: self.count });
        }
        let mut order = permutation(self.count, seed, SPLIT);
        let mut trained = order.split_off(evaluated as usize);
        order.sort_unstable();
        trained.sort_unstable();
        Ok((self.choose(&trained), self.choose(&order)))
    }

    fn choose(&self, rows: &[usize]) -> Self {
        let fed = self.fed.iter().map(|fed| Fed { tensor: fed.tensor.rows(rows), ..fed.clone() }).collect();
        Self { fed, count: rows.len(), fixed_batch: self.fixed_batch }
    }

    /// What the inputs are fed for these examples.
    pub(super) fn feeds(&self, rows: &[usize]) -> Vec<(&str, Tensor)> {
        self.fed.iter().map(|fed| (fed.input.as_str(), fed.tensor.rows(rows))).collect()
    }
}

fn feed(input: &Input, array: &Array) -> Result<Fed, DataError> {
    let unfit = |what| DataError::Unfit {
        path: array.path.clone(),
        array: array.name.clone(),
        input: input.name.clone(),
        what,
    };
    let tensor = convert::convert(&array.tensor, &input.tensor_type).map_err(unfit)?;
    Ok(Fed { input: input.name.clone(), array: array.name.clone(), tensor })
}

/// The size of the first axis, where inputs declare one.
fn fixed_batch(inputs: &[Input]) -> Result<Option<usize>, DataError> {
    let size = |input: &Input| {
        let size = input.tensor_type.shape.as_ref()?.first()?.known()?;
        usize::try_from(size).ok()
    };
    let mut sizes = inputs.iter().filter_map(|input| Some((input, size(input)?)));
    let Some((first, wanted)) = sizes.next() else { return Ok(None) };
    match sizes.find(|&(_, size)| size != wanted) {
        None => Ok(Some(wanted)),
        Some((other, _)) => Err(DataError::BatchSize(format!(
            "the inputs are declared for batches of different sizes: '{}' is {}, and '{}' is {}",
            first.name, first.tensor_type, other.name, other.tensor_type
        ))),
    }
}
