use super::{DataError, Examples};
use crate::tensors::Tensor;
use crate::train::random::permutation;

/// Examples in batches.
#[derive(Debug, Clone, Copy)]
pub struct Batches<'a> {
    examples: &'a Examples,
    size: usize,
}

impl<'a> Batches<'a> {
    /// Batches of `size` examples. The last one of an epoch has what is left, or is dropped if the model takes full batches only.
    ///
    /// # Errors
    /// A size of zero or another than the model takes, and fewer examples than make a batch.
    pub fn new(examples: &'a Examples, size: usize) -> Result<Self, DataError> {
        let what = match examples.fixed_batch() {
            _ if size == 0 => "a batch has at least one example".to_owned(),
            Some(fixed) if fixed != size => format!("the model takes batches of {fixed}, and not of {size}"),
            Some(fixed) if examples.len() < fixed => {
                format!("the model takes batches of {fixed}, and there are {} examples", examples.len())
            }
            None if examples.is_empty() => "there are no examples".to_owned(),
            _ => return Ok(Self { examples, size }),
        };
        Err(DataError::BatchSize(what))
    }

    /// The examples.
    pub fn examples(&self) -> &'a Examples {
        self.examples
    }

    /// The number of examples in each, but for a last one that has fewer.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The number of batches in an epoch.
    pub fn per_epoch(&self) -> usize {
        match self.examples.fixed_batch() {
            Some(_) => self.examples.len() / self.size,
            None => self.examples.len().div_ceil(self.size),
        }
    }

    /// How many examples of an epoch are in none of its batches.
    pub fn dropped(&self) -> usize {
        self.examples.len().saturating_sub(self.per_epoch() * self.size)
    }

    /// The batches in the order of the data.
    pub fn sequential(self) -> Epoch<'a> {
        Epoch { batches: self, order: (0..self.examples.len()).collect() }
    }

    /// The batches of an epoch in an order that depends on the number of examples, the seed and the epoch only.
    pub fn shuffled(self, seed: u64, epoch: u64) -> Epoch<'a> {
        Epoch { batches: self, order: permutation(self.examples.len(), seed, epoch) }
    }
}

/// The batches of one pass over the examples.
#[derive(Debug, Clone)]
pub struct Epoch<'a> {
    batches: Batches<'a>,
    order: Vec<usize>,
}

impl<'a> Epoch<'a> {
    /// What the inputs are fed in batch `at`, counted from 0.
    ///
    /// # Panics
    /// If the epoch has no such batch.
    pub fn batch(&self, at: usize) -> Vec<(&'a str, Tensor)> {
        assert!(at < self.batches.per_epoch(), "batch {at} of {}", self.batches.per_epoch());
        let start = at * self.batches.size;
        let end = self.order.len().min(start + self.batches.size);
        self.batches.examples.feeds(&self.order[start..end])
    }

    /// The batches from batch `first` on.
    pub fn starting_at(&self, first: usize) -> impl Iterator<Item = Vec<(&'a str, Tensor)>> {
        (first..self.batches.per_epoch()).map(|at| self.batch(at))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Dim, TensorType};
    use crate::proto::tensor_proto::DataType;
    use crate::train::data::dataset::{Array, Dataset};
    use crate::train::data::{Input, Role};

    /// The numbers from 0, as what an input `x` is fed.
    fn examples(count: usize, batch: Dim) -> Examples {
        let numbers: Vec<i64> = (0..count as i64).collect();
        let dataset = Dataset::new(vec![Array::whole("x", Path::new("x.npy"), Tensor::of(&[count], &numbers))]);
        let tensor_type = TensorType { elem: DataType::Int64 as i32, shape: Some(vec![batch]) };
        let input = Input { name: "x".to_owned(), tensor_type, role: Role::Data };
        Examples::new(&dataset.expect("one array"), &[input], &[]).expect("one input")
    }

    fn numbers(feeds: Vec<(&str, Tensor)>) -> Vec<i64> {
        let [("x", tensor)] = &feeds[..] else { panic!("one input: {feeds:?}") };
        tensor.elements().expect("integers")
    }

    fn epoch(epoch: &Epoch<'_>) -> Vec<Vec<i64>> {
        epoch.starting_at(0).map(numbers).collect()
    }

    #[test]
    fn the_order_of_the_data_is_kept_where_it_is_wanted() {
        let examples = examples(5, Dim::Unknown);
        let batches = Batches::new(&examples, 2).expect("batches");
        assert_eq!(epoch(&batches.sequential()), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!((batches.per_epoch(), batches.dropped()), (3, 0));
    }

    #[test]
    fn a_model_of_fixed_batches_gets_full_ones() {
        let examples = examples(5, Dim::Known(2));
        let batches = Batches::new(&examples, 2).expect("batches");
        assert_eq!(epoch(&batches.sequential()), [vec![0, 1], vec![2, 3]]);
        assert_eq!((batches.per_epoch(), batches.dropped()), (2, 1));
        assert!(Batches::new(&examples, 3).is_err());
    }

    #[test]
    fn epochs_without_batches_are_refused() {
        assert!(Batches::new(&examples(0, Dim::Unknown), 2).is_err());
        assert!(Batches::new(&examples(1, Dim::Known(2)), 2).is_err());
        assert!(Batches::new(&examples(1, Dim::Unknown), 0).is_err());
        assert_eq!(epoch(&Batches::new(&examples(1, Dim::Unknown), 2).expect("a small one").sequential()), [[0]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Each example is in one batch, and a run that is resumed at a batch goes on as it would have.
        #[test]
        fn epochs_are_permutations_and_can_be_resumed(
            count in 1_usize..60, size in 1_usize..20, seed in any::<u64>(), at in any::<u64>(), first in any::<prop::sample::Index>(),
        ) {
            let examples = examples(count, Dim::Unknown);
            let batches = Batches::new(&examples, size).expect("batches");
            let all = epoch(&batches.shuffled(seed, at));
            let mut sorted = all.concat();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..count as i64).collect::<Vec<_>>());
            let first = first.index(all.len());
            let resumed: Vec<Vec<i64>> = batches.shuffled(seed, at).starting_at(first).map(numbers).collect();
            prop_assert_eq!(&resumed[..], &all[first..]);
        }
    }
}
