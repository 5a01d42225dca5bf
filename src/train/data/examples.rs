use std::path::PathBuf;

use super::check;
use super::dataset::{Array, Dataset, same_length};
use super::pairing::pair;
use super::{DataError, Input, convert};
use crate::digest::Digest;
use crate::model::Classes;
use crate::tensors::Tensor;
use crate::train::random::permutation;

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
    path: PathBuf,
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
    /// An input with no array or several that it could take, an array that cannot become what its input takes or that holds NaN or
    /// infinity, and arrays with different numbers of examples.
    pub fn new(dataset: &Dataset, inputs: &[Input], bindings: &[(String, String)]) -> Result<Self, DataError> {
        let arrays = pair(dataset, inputs, bindings)?;
        same_length(&arrays)?;
        arrays.iter().try_for_each(check::finite)?;
        let fed = inputs.iter().zip(&arrays).map(|(input, array)| feed(input, array)).collect::<Result<Vec<_>, _>>()?;
        let count = fed.first().map_or(0, |fed| fed.tensor.shape()[0]);
        Ok(Self { fed, count, fixed_batch: fixed_batch(inputs)? })
    }

    /// Checks that the input `labels` is fed with labels of these classes.
    ///
    /// # Errors
    /// The first label that is none.
    pub fn check_classes(&self, labels: &str, classes: Classes) -> Result<(), DataError> {
        let mut fed = self.fed.iter().filter(|fed| fed.input == labels);
        fed.try_for_each(|fed| check::labels(&fed.path, &fed.array, &fed.tensor, classes))
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

    /// A digest of what the inputs are fed, in this order.
    pub(in crate::train) fn digest(&self) -> String {
        let mut digest = Digest::default();
        for Fed { input, tensor, .. } in &self.fed {
            [input.as_bytes(), tensor.describe().as_bytes(), tensor.data()]
                .into_iter()
                .for_each(|part| digest.add(part));
        }
        digest.finish()
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
    Ok(Fed { input: input.name.clone(), array: array.name.clone(), path: array.path.clone(), tensor })
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::{Dim, TensorType};
    use crate::proto::tensor_proto::DataType;
    use crate::train::data::Role;

    fn examples(counts: [usize; 2], batch: [Dim; 2]) -> Result<Examples, DataError> {
        let numbers = |count: usize| (0..count).map(|at| at as f32).collect::<Vec<f32>>();
        let arrays = ["x", "y"].into_iter().zip(counts);
        let arrays =
            arrays.map(|(name, count)| Array::whole(name, Path::new("d.npz"), Tensor::of(&[count], &numbers(count))));
        let dataset = Dataset::new(arrays.collect()).expect("two arrays");
        let input = |(name, dim, role): (&str, Dim, Role)| Input {
            name: name.to_owned(),
            tensor_type: TensorType { elem: DataType::Float as i32, shape: Some(vec![dim]) },
            role,
        };
        let [x, y] = batch;
        Examples::new(&dataset, &[input(("x", x, Role::Data)), input(("y", y, Role::Labels))], &[])
    }

    fn numbers(examples: &Examples) -> Vec<Vec<f64>> {
        examples.fed.iter().map(|fed| fed.tensor.to_f64s()).collect()
    }

    #[test]
    fn a_split_is_stable_and_loses_nothing() {
        let split = |seed| {
            let all = examples([10, 10], [Dim::Unknown, Dim::Unknown]).expect("examples");
            all.split(0.25, seed).expect("a fraction")
        };
        let (train, evaluated) = split(3);
        assert_eq!((train.len(), evaluated.len()), (7, 3));
        let (kept, chosen) = (numbers(&train), numbers(&evaluated));
        assert_eq!((&kept[0], &chosen[0]), (&kept[1], &chosen[1]), "rows stay together");
        assert!(kept[0].is_sorted() && chosen[0].is_sorted(), "the order stays");
        let mut all = [kept[0].clone(), chosen[0].clone()].concat();
        all.sort_by(f64::total_cmp);
        assert_eq!(all, (0..10).map(f64::from).collect::<Vec<f64>>());
        assert_eq!(split(3), (train, evaluated));
        assert!((0..5).any(|seed| split(seed) != split(3)));
    }

    #[test]
    fn a_fraction_that_leaves_nothing_is_refused() {
        for fraction in [0.0, 0.01, 1.0, 0.99, -1.0, 2.0, f64::NAN] {
            let all = examples([10, 10], [Dim::Unknown, Dim::Unknown]).expect("examples");
            assert!(matches!(all.split(fraction, 0), Err(DataError::Fraction { .. })), "{fraction}");
        }
    }

    #[test]
    fn arrays_and_batches_of_different_sizes_are_refused() {
        let error = examples([3, 4], [Dim::Unknown, Dim::Unknown]).expect_err("3 and 4").to_string();
        assert!(error.ends_with("counts:\n    x: float[3]\n    y: float[4]\n"), "{error}");
        let error = examples([4, 4], [Dim::Known(2), Dim::Known(4)]).expect_err("2 and 4").to_string();
        assert!(error.ends_with("'x' is float[2], and 'y' is float[4]"), "{error}");
        let found = examples([4, 4], [Dim::Unknown, Dim::Known(3)]).expect("one size");
        assert_eq!(found.fixed_batch(), Some(3));
        assert_eq!(found.pairs().collect::<Vec<_>>(), [("x", "x"), ("y", "y")]);
    }
}
