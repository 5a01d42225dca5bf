//! Axes that are linear or logarithmic, with round numbers on them.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// The values from `low` to `high`, which are not equal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    /// From the least of these finite values to the largest.
    pub(super) fn tight(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values);
        Self { low, high, logarithmic: false }
    }

    /// From a little below the least of these finite values to a little above the largest.
    pub(super) fn roomy(values: impl Iterator<Item = f64>) -> Self {
        Self::tight(values).with_room()
    }

    /// As [`Self::roomy`], but logarithmic where the values are positive and of more than a decade.
    pub(super) fn loss(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values);
        Self { low, high, logarithmic: low > 0.0 && high / low > 10.0 }.with_room()
    }

    fn with_room(self) -> Self {
        let (low, high) = (self.scaled(self.low), self.scaled(self.high));
        let room = 0.05 * (high - low);
        let unscaled = |scaled: f64| {
            if self.logarithmic { 10_f64.powf(scaled).clamp(f64::MIN_POSITIVE, f64::MAX) } else { scaled }
        };
        Self { low: unscaled(low - room), high: unscaled(high + room), ..self }
    }

    fn scaled(&self, value: f64) -> f64 {
        if self.logarithmic { value.log10() } else { value }
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    match low.partial_cmp(&high) {
        Some(std::cmp::Ordering::Less) => (low, high),
        Some(std::cmp::Ordering::Equal) => (low - 0.5 * low.abs().max(1e-3), low + 0.5 * low.abs().max(1e-3)),
        _ => (0.0, 1.0),
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let [low, high, value] = [self.low, self.high, *value].map(|value| self.scaled(value));
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        (f64::from(from) + share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if !hint.weight().allow_light_points() {
            return if self.logarithmic { self.decades() } else { self.multiples(hint.max_num_points()) };
        }
        Vec::new()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl Axis {
    /// The multiples of 1, 2 or 5 times a power of ten, at most so many.
    fn multiples(&self, most: usize) -> Vec<f64> {
        let least_step = (self.high - self.low) / most.max(2) as f64;
        let power = 10_f64.powf(least_step.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|&step| step >= least_step);
        let Some(step) = step else { return Vec::new() };
        let first = (self.low / step).ceil();
        (0..=most).map(|i| (first + i as f64) * step).take_while(|&point| point <= self.high).collect()
    }

    /// Powers of ten, with numbers between if they are few, and not all if they are many.
    fn decades(&self) -> Vec<f64> {
        let exponents = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let decades = (self.high.log10() - self.low.log10()).ceil() as i32;
        let factors: &[f64] = if decades <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let stride = (decades / 6 + 1).max(1);
        let powers = exponents.filter(|exponent| exponent.rem_euclid(stride) == 0);
        let points = powers.flat_map(|exponent| factors.iter().map(move |factor| factor * 10_f64.powi(exponent)));
        points.filter(|point| self.range().contains(point)).collect()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        if *value == 0.0 || (1e-3..1e6).contains(&value.abs()) {
            let digits = format!("{value:.6}");
            return digits.trim_end_matches('0').trim_end_matches('.').to_owned();
        }
        format!("{value:.1e}").replace(".0e", "e")
    }
}

#[cfg(test)]
mod tests {
    use plotters::coord::ranged1d::BoldPoints;

    use super::*;

    fn labels(axis: &Axis, most: usize) -> Vec<String> {
        axis.key_points(BoldPoints(most)).iter().map(|point| axis.format_ext(point)).collect()
    }

    #[test]
    fn round_numbers() {
        assert_eq!(labels(&Axis::tight([0.0, 2814.0].into_iter()), 6), ["0", "500", "1000", "1500", "2000", "2500"]);
        assert_eq!(labels(&Axis::tight([0.13, 0.88].into_iter()), 5), ["0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(labels(&Axis::tight([-2e-7, 3e-7].into_iter()), 6), ["-2e-7", "-1e-7", "0", "1e-7", "2e-7", "3e-7"]);
        assert_eq!(labels(&Axis::tight([0.0, 3e6].into_iter()), 3), ["0", "1e6", "2e6", "3e6"]);
    }

    #[test]
    fn losses_of_more_than_a_decade_are_logarithmic() {
        assert_eq!(labels(&Axis::loss([0.09, 0.5, 2.0].into_iter()), 6), ["0.1", "0.2", "0.5", "1", "2"]);
        assert_eq!(labels(&Axis::loss([1e-4, 3.0].into_iter()), 6), ["1e-4", "0.001", "0.01", "0.1", "1"]);
        assert!(labels(&Axis::loss([1e-290, 1e290].into_iter()), 6).len() <= 7);
        assert_eq!(labels(&Axis::loss([-1.0, 30.0].into_iter()), 4), ["0", "10", "20", "30"]);
        let axis = Axis::loss([0.1, 10.0].into_iter());
        assert_eq!(axis.map(&1.0, (0, 100)), 50);
    }

    #[test]
    fn axes_of_few_values() {
        assert_eq!(Axis::roomy(std::iter::empty()).range(), -0.05..1.05);
        for value in [0.0, 1.0, -3.0, 1e299] {
            let axis = Axis::roomy(std::iter::once(value));
            assert_eq!(axis.map(&value, (0, 100)), 50);
            assert!(!labels(&axis, 5).is_empty());
        }
    }

    #[test]
    fn what_lies_beyond_is_drawn_at_the_edge() {
        let axis = Axis::tight([0.0, 1.0].into_iter());
        assert_eq!([-9.0, 9.0].map(|value| axis.map(&value, (10, 20))), [10, 20]);
    }
}
