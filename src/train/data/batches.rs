use super::shuffle::permutation;
use super::{DataError, Examples};
use crate::tensors::Tensor;

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
    pub fn from(&self, first: usize) -> impl Iterator<Item = Vec<(&'a str, Tensor)>> {
        (first..self.batches.per_epoch()).map(|at| self.batch(at))
    }
}
