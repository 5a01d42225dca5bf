//! Pairs of numbers: a prediction and its label.

use super::{MetricError, require_same_shape};
use crate::tensors::Tensor;

/// Sums over pairs, and the pairs themselves where ranks are wanted.
#[derive(Debug, Clone)]
pub(super) struct Pairs {
    squared: f64,
    absolute: f64,
    moments: Moments,
    kept: Option<Vec<[f64; 2]>>,
}

/// Means and central moments of second order, updated pair by pair (Welford 1962), which loses no digits where the mean is large.
#[derive(Debug, Clone, Default)]
struct Moments {
    count: f64,
    means: [f64; 2],
    squares: [f64; 2],
    product: f64,
}

impl Pairs {
    /// None yet. Only with `ranks` are they kept.
    pub(super) fn new(ranks: bool) -> Self {
        Self { squared: 0.0, absolute: 0.0, moments: Moments::default(), kept: ranks.then(Vec::new) }
    }

    pub(super) fn add(&mut self, prediction: &Tensor, labels: &Tensor) -> Result<(), MetricError> {
        require_same_shape(prediction, labels)?;
        for (x, y) in prediction.to_f64s().into_iter().zip(labels.to_f64s()) {
            self.squared += (x - y) * (x - y);
            self.absolute += (x - y).abs();
            self.moments.add([x, y]);
            if let Some(kept) = &mut self.kept {
                kept.push([x, y]);
            }
        }
        Ok(())
    }

    pub(super) fn mean_squared_error(&self) -> f64 {
        self.squared / self.moments.count
    }

    pub(super) fn mean_absolute_error(&self) -> f64 {
        self.absolute / self.moments.count
    }

    pub(super) fn pearson(&self) -> f64 {
        self.moments.correlation()
    }

    pub(super) fn spearman(&self) -> f64 {
        let kept = self.kept.as_deref().unwrap_or_default();
        if kept.iter().flatten().any(|x| x.is_nan()) {
            return f64::NAN;
        }
        let [x, y] = [0, 1].map(|side| ranks(&kept.iter().map(|pair| pair[side]).collect::<Vec<_>>()));
        let mut moments = Moments::default();
        x.into_iter().zip(y).for_each(|(x, y)| moments.add([x, y]));
        moments.correlation()
    }
}

impl Moments {
    fn add(&mut self, pair: [f64; 2]) {
        self.count += 1.0;
        let before = [0, 1].map(|side| pair[side] - self.means[side]);
        for side in 0..2 {
            self.means[side] += before[side] / self.count;
            self.squares[side] += before[side] * (pair[side] - self.means[side]);
        }
        self.product += before[0] * (pair[1] - self.means[1]);
    }

    fn correlation(&self) -> f64 {
        (self.product / (self.squares[0].sqrt() * self.squares[1].sqrt())).clamp(-1.0, 1.0)
    }
}

/// The rank of each number, from 1; equal ones have the mean of their ranks.
fn ranks(numbers: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    let mut ranks = vec![0.0; numbers.len()];
    let mut below = 0;
    for equal in order.chunk_by(|&a, &b| numbers[a] == numbers[b]) {
        let rank = below as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&index| ranks[index] = rank);
        below += equal.len();
    }
    ranks
}
