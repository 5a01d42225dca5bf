//! What a plot shows of a run: points against steps and against seconds.

use super::super::record::{EpochRecord, StepRecord};
use super::Run;

/// Points are finite and smaller than this, so that differences of theirs are.
const LARGEST: f64 = 1e300;
/// The longest window of the running mean.
const LONGEST_WINDOW: usize = 100;
/// The points of a curve, at most.
const POINTS: usize = 500;

/// What a point is drawn against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Against {
    Steps,
    Seconds,
}

/// A place of a curve. Without a value, the curve has a gap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) step: f64,
    pub(super) seconds: f64,
    pub(super) value: Option<f64>,
}

impl Point {
    fn new(step: u64, seconds: f64, value: f64) -> Self {
        Self { step: step as f64, seconds, value: drawable(value).then_some(value) }
    }

    /// Its coordinates, if it has them.
    pub(super) fn at(&self, against: Against) -> Option<(f64, f64)> {
        let x = match against {
            Against::Steps => self.step,
            Against::Seconds => self.seconds,
        };
        self.value.filter(|_| drawable(x)).map(|value| (x, value))
    }
}

fn drawable(number: f64) -> bool {
    number.abs() < LARGEST
}

/// The window of the running mean for such runs.
pub(super) fn window(runs: &[Run<'_>]) -> usize {
    let longest = runs.iter().map(|run| run.steps.len()).max().unwrap_or(0);
    (longest / 50).clamp(1, LONGEST_WINDOW)
}

/// The running mean of the loss: of the last steps at each point, without those that have none.
pub(super) fn training_loss(steps: &[StepRecord], window: usize) -> Vec<Point> {
    let stride = steps.len().div_ceil(POINTS).max(1);
    let last = steps.len().checked_sub(1);
    let ends = (0..steps.len()).step_by(stride).chain(last.filter(|last| last % stride != 0));
    ends.map(|end| {
        let losses = &steps[(end + 1).saturating_sub(window)..=end];
        let losses: Vec<f64> = losses.iter().map(|record| record.loss).filter(|&loss| drawable(loss)).collect();
        let mean = losses.iter().map(|loss| loss / losses.len() as f64).sum::<f64>();
        let mean = if losses.is_empty() { f64::NAN } else { mean };
        Point::new(steps[end].step, steps[end].seconds, mean)
    })
    .collect()
}

/// The values of this name of the evaluations.
pub(super) fn scores(epochs: &[EpochRecord], name: &str) -> Vec<Point> {
    let point = |epoch: &EpochRecord| {
        let value = epoch.eval.as_ref()?.get(name)?;
        Some(Point::new(epoch.step, epoch.seconds, value))
    };
    epochs.iter().filter_map(point).collect()
}

/// The first metric that any evaluation of the runs gives.
pub(super) fn metric<'a>(runs: &[Run<'a>]) -> Option<&'a str> {
    let epochs = runs.iter().flat_map(|run| run.epochs);
    let mut names = epochs.filter_map(|epoch| epoch.eval.as_ref()).flat_map(|scores| scores.iter());
    names.find(|(name, _)| *name != "loss").map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::{epoch, step};
    use super::*;

    fn run(steps: &[StepRecord]) -> Run<'_> {
        Run { name: "run", steps, epochs: &[] }
    }

    #[test]
    fn windows_grow_with_the_run() {
        let steps: Vec<StepRecord> = (1..=20_000).map(step).collect();
        let windows =
            [0, 99, 100, 1000, 20_000].map(|count| window(&[run(&steps[..10.min(count)]), run(&steps[..count])]));
        assert_eq!(windows, [1, 1, 2, 20, 100]);
        assert_eq!(window(&[]), 1);
    }

    #[test]
    fn means_over_the_last_steps() {
        let steps: Vec<StepRecord> = (1..=4).map(|n| StepRecord { loss: n as f64, ..step(n) }).collect();
        let values: Vec<_> = training_loss(&steps, 2).iter().map(|point| point.at(Against::Steps)).collect();
        assert_eq!(values, [Some((1.0, 1.0)), Some((2.0, 1.5)), Some((3.0, 2.5)), Some((4.0, 3.5))]);
        assert_eq!(training_loss(&steps, 2)[3].at(Against::Seconds), Some((1.0, 3.5)));
        assert!(training_loss(&[], 2).is_empty());
    }

    #[test]
    fn long_curves_are_thinned_out_and_keep_their_ends() {
        for count in [1, 500, 501, 1234, 4999, 100_000] {
            let steps: Vec<StepRecord> = (1..=count).map(step).collect();
            let points = training_loss(&steps, 1);
            assert!(points.len() <= POINTS + 1 && points.len() > (count as usize).min(POINTS) / 2, "{}", points.len());
            assert_eq!((points[0].step, points[points.len() - 1].step), (1.0, count as f64));
        }
    }

    #[test]
    fn losses_that_are_not_finite_are_left_out_of_means_and_leave_gaps() {
        let losses = [1.0, f64::NAN, 3.0, f64::INFINITY, f64::NAN, f64::MAX];
        let steps: Vec<StepRecord> =
            losses.into_iter().zip(1..).map(|(loss, n)| StepRecord { loss, ..step(n) }).collect();
        let values: Vec<_> = training_loss(&steps, 2).iter().map(|point| point.value).collect();
        assert_eq!(values, [Some(1.0), Some(1.0), Some(3.0), Some(3.0), None, None]);
    }

    #[test]
    fn the_metric_is_the_first_one() {
        let with = epoch(1);
        let without = EpochRecord { eval: None, ..epoch(1) };
        let only_loss = EpochRecord { eval: Some([("loss", 1.0)].into_iter().collect()), ..epoch(1) };
        let epochs = [without, only_loss.clone(), with];
        assert_eq!(metric(&[Run { name: "run", steps: &[], epochs: &epochs }]), Some("accuracy"));
        assert_eq!(metric(&[Run { name: "run", steps: &[], epochs: &[only_loss] }]), None);
        let points = scores(&epochs, "accuracy");
        assert_eq!(points, [Point { step: 2.0, seconds: 0.5, value: Some(0.5) }]);
    }
}
