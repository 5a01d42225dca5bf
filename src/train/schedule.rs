//! The grammar of `--lr` and `--lambda`: `[warmup:STEPS,] RATE | linear:FROM:TO | cosine:FROM:TO | exponential:FROM:TO |
//! step:FROM:FACTOR:EPOCHS`.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

/// What a schedule with a warm-up begins with.
const WARM_UP: &str = "warmup:";

const GRAMMAR: &str = "RATE, linear:FROM:TO, cosine:FROM:TO, exponential:FROM:TO or step:FROM:FACTOR:EPOCHS, each also behind warmup:STEPS,";

/// A number that changes over a run.
///
/// ```
/// use isaac::train::schedule::Schedule;
/// # fn main() -> Result<(), isaac::train::schedule::ScheduleError> {
/// let lr: Schedule = "warmup:10,cosine:0.1:0".parse()?;
/// assert_eq!(lr.at(4, 110, 50), 0.05);
/// assert_eq!(lr.at(10, 110, 50), 0.1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The number of first steps over which the value rises from nothing, in equal parts.
    warm_up: u64,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Constant(f64),
    /// On a line from the end of the warm-up to the end of the run.
    Linear {
        from: f64,
        to: f64,
    },
    /// On half a period of the cosine from the end of the warm-up to the end of the run.
    Cosine {
        from: f64,
        to: f64,
    },
    /// On a line of the logarithms from the end of the warm-up to the end of the run.
    Exponential {
        from: f64,
        to: f64,
    },
    /// Times a factor every so many epochs, which count from the start of the run.
    Step {
        from: f64,
        factor: f64,
        epochs: u64,
    },
}

/// A schedule that cannot be understood or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// It is not of the grammar.
    #[error("'{text}': {what}; a schedule is {GRAMMAR}")]
    Grammar {
        /// The schedule.
        text: String,
        /// Where it departs from the grammar.
        what: String,
    },
    /// It is no schedule of a learning rate.
    #[error("'{text}': a learning rate is finite")]
    LearningRate {
        /// The schedule.
        text: String,
    },
    /// It is no schedule of a damping.
    #[error("'{text}': damping stays above 0")]
    Damping {
        /// The schedule.
        text: String,
    },
}

impl Schedule {
    /// The same value at every step.
    ///
    /// # Panics
    /// If the value is negative or NaN.
    pub fn constant(value: f64) -> Self {
        assert!(value >= 0.0, "a schedule is of numbers from 0 on");
        Self { warm_up: 0, shape: Shape::Constant(value) }
    }

    /// The schedule of a learning rate: one without infinity.
    ///
    /// # Errors
    /// What is not of the grammar, or infinite.
    pub fn learning_rate(text: &str) -> Result<Self, ScheduleError> {
        let schedule: Self = text.parse()?;
        match schedule.shape {
            Shape::Constant(rate) if rate.is_infinite() => Err(ScheduleError::LearningRate { text: text.to_owned() }),
            _ => Ok(schedule),
        }
    }

    /// The schedule of the damping λ: one without zero. `inf` stands for the plain gradient.
    ///
    /// # Errors
    /// What is not of the grammar, or zero somewhere.
    pub fn damping(text: &str) -> Result<Self, ScheduleError> {
        let schedule: Self = text.parse()?;
        let positive = match schedule.shape {
            Shape::Constant(value) => value > 0.0,
            Shape::Linear { from, to } | Shape::Cosine { from, to } | Shape::Exponential { from, to } => {
                from > 0.0 && to > 0.0
            }
            Shape::Step { from, factor, .. } => from > 0.0 && factor > 0.0,
        };
        if positive { Ok(schedule) } else { Err(ScheduleError::Damping { text: text.to_owned() }) }
    }

    /// The value for the step that `step` steps came before, of `total_steps`.
    ///
    /// The first of `linear`, `cosine` and `exponential` is FROM; TO is where the step after the last one would be. A warm-up of n steps
    /// multiplies the first n by 1/n, 2/n, …, 1.
    pub fn at(&self, step: u64, total_steps: u64, steps_per_epoch: u64) -> f64 {
        let warm_up = (step.saturating_add(1) as f64 / self.warm_up as f64).min(1.0);
        let length = total_steps.saturating_sub(self.warm_up).max(1);
        let progress = (step.saturating_sub(self.warm_up) as f64 / length as f64).min(1.0);
        warm_up
            * match self.shape {
                Shape::Constant(value) => value,
                Shape::Linear { from, to } => from * (1.0 - progress) + to * progress,
                Shape::Cosine { from, to } => to + (from - to) * (1.0 + (PI * progress).cos()) / 2.0,
                Shape::Exponential { from, to } => from * (to / from).powf(progress),
                Shape::Step { from, factor, epochs } => {
                    let times = step / steps_per_epoch.max(1) / epochs;
                    from * factor.powf(times as f64)
                }
            }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        parse(text).map_err(|what| ScheduleError::Grammar { text: text.to_owned(), what })
    }
}

/// The schedules of a list with commas between them. The comma behind a warm-up is none of those.
pub(super) fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest?;
        let ends = if list.starts_with(WARM_UP) { 2 } else { 1 };
        let end = list.match_indices(',').nth(ends - 1).map_or(list.len(), |(at, _)| at);
        rest = list.get(end + 1..);
        Some(&list[..end])
    })
}

fn parse(text: &str) -> Result<Schedule, String> {
    let (warm_up, shape) = match text.strip_prefix(WARM_UP) {
        Some(rest) => {
            let (steps, shape) = rest.split_once(',').ok_or("no ',' follows the warm-up")?;
            (count("STEPS", steps)?, shape)
        }
        None => (0, text),
    };
    let parts: Vec<&str> = shape.split(':').collect();
    let shape = match parts[..] {
        [value] => Shape::Constant(number(value)?),
        ["linear", from, to] => Shape::Linear { from: finite(from)?, to: finite(to)? },
        ["cosine", from, to] => Shape::Cosine { from: finite(from)?, to: finite(to)? },
        ["exponential", from, to] => Shape::Exponential { from: positive(from)?, to: positive(to)? },
        ["step", from, factor, epochs] => {
            Shape::Step { from: finite(from)?, factor: finite(factor)?, epochs: count("EPOCHS", epochs)? }
        }
        [name @ ("linear" | "cosine" | "exponential" | "step"), ..] => {
            let wanted = if name == "step" { 3 } else { 2 };
            return Err(format!("{name} has {} numbers, not {wanted}", parts.len() - 1));
        }
        _ => return Err(format!("there is no '{}'", parts[0])),
    };
    Ok(Schedule { warm_up, shape })
}

fn number(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(number) if number >= 0.0 => Ok(number),
        Ok(_) => Err(format!("'{text}' is not a number from 0 on")),
        Err(_) => Err(format!("'{text}' is not a number")),
    }
}

fn finite(text: &str) -> Result<f64, String> {
    number(text).and_then(|number| if number.is_finite() { Ok(number) } else { Err(format!("'{text}' is not finite")) })
}

fn positive(text: &str) -> Result<f64, String> {
    finite(text).and_then(|number| if number > 0.0 { Ok(number) } else { Err(format!("'{text}' is not above 0")) })
}

fn count(what: &str, text: &str) -> Result<u64, String> {
    match text.trim().parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("{what} is '{text}', not a whole number from 1")),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.warm_up > 0 {
            write!(f, "warmup:{},", self.warm_up)?;
        }
        match self.shape {
            Shape::Constant(value) => write!(f, "{value}"),
            Shape::Linear { from, to } => write!(f, "linear:{from}:{to}"),
            Shape::Cosine { from, to } => write!(f, "cosine:{from}:{to}"),
            Shape::Exponential { from, to } => write!(f, "exponential:{from}:{to}"),
            Shape::Step { from, factor, epochs } => write!(f, "step:{from}:{factor}:{epochs}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of all steps of a run of 8 steps, 2 in an epoch.
    fn run(text: &str) -> Vec<f64> {
        let schedule: Schedule = text.parse().unwrap();
        (0..8).map(|step| schedule.at(step, 8, 2)).collect()
    }

    fn assert_close(text: &str, expected: [f64; 8]) {
        let values = run(text);
        let close = values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close, "{text}: {values:?} is not {expected:?}");
    }

    #[test]
    fn values_over_a_run() {
        assert_close("0.3", [0.3; 8]);
        assert_close("linear:1:0", [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]);
        assert_close("linear:0:8", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_close("exponential:256:1", [256.0, 128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0]);
        assert_close("step:1:0.5:1", [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]);
        assert_close("step:2:10:3", [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 20.0, 20.0]);
        assert_close("warmup:4,2", [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]);
        assert_close("warmup:4,linear:2:0", [0.5, 1.0, 1.5, 2.0, 2.0, 1.5, 1.0, 0.5]);
        assert_close("warmup:2,step:1:0.5:2", [0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]);
        // A quarter of the way, cos(π/4) = √½; half of it, 0.
        let half = 0.5_f64.sqrt() / 2.0;
        let quarter_points = run("cosine:3:1");
        assert_eq!(quarter_points[0], 3.0);
        assert!((quarter_points[2] - (2.0 + 2.0 * half)).abs() < 1e-12);
        assert!((quarter_points[4] - 2.0).abs() < 1e-12);
        assert!((quarter_points[6] - (2.0 - 2.0 * half)).abs() < 1e-12);
        assert_eq!(run("inf"), [f64::INFINITY; 8]);
    }

    #[test]
    fn a_run_of_no_length() {
        let schedule: Schedule = "warmup:3,linear:1:0.5".parse().unwrap();
        assert_eq!(schedule.at(0, 0, 0), 1.0 / 3.0);
        assert_eq!(schedule.at(u64::MAX, 2, 0), 0.5);
        assert_eq!("step:1:0.5:1".parse::<Schedule>().unwrap().at(5, 8, 0), 0.5_f64.powi(5));
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in [
            "0.3",
            "inf",
            "linear:1:0",
            "cosine:0.1:0.001",
            "exponential:0.000001:10",
            "step:1:0.5:30",
            "warmup:100,cosine:0.1:0",
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), text);
        }
        assert_eq!("0.3".parse(), Ok(Schedule::constant(0.3)));
    }

    #[test]
    fn what_is_not_of_the_grammar() {
        for (text, what) in [
            ("", "'' is not a number"),
            ("fast", "'fast' is not a number"),
            ("-0.1", "'-0.1' is not a number from 0 on"),
            ("nan", "'nan' is not a number from 0 on"),
            ("linear:1", "linear has 1 numbers, not 2"),
            ("linear:1:inf", "'inf' is not finite"),
            ("cosine:1:0:3", "cosine has 3 numbers, not 2"),
            ("step:1:0.5", "step has 2 numbers, not 3"),
            ("step:1:0.5:0", "EPOCHS is '0', not a whole number from 1"),
            ("exponential:1:0", "'0' is not above 0"),
            ("polynomial:1:2", "there is no 'polynomial'"),
            ("warmup:10", "no ',' follows the warm-up"),
            ("warmup:ten,0.1", "STEPS is 'ten', not a whole number from 1"),
            ("warmup:10,warmup:10,0.1", "there is no 'warmup'"),
        ] {
            let message = text.parse::<Schedule>().unwrap_err().to_string();
            assert_eq!(message, format!("'{text}': {what}; a schedule is {GRAMMAR}"));
        }
    }

    #[test]
    fn rates_and_dampings() {
        assert!(Schedule::learning_rate("linear:1:0").is_ok());
        assert_eq!(Schedule::learning_rate("inf").unwrap_err().to_string(), "'inf': a learning rate is finite");
        for text in ["inf", "1", "linear:1:0.1", "step:1:10:1", "warmup:9,1"] {
            assert!(Schedule::damping(text).is_ok(), "{text}");
        }
        for text in ["0", "linear:1:0", "cosine:0:1", "step:0:1:1", "step:1:0:1"] {
            assert_eq!(Schedule::damping(text).unwrap_err().to_string(), format!("'{text}': damping stays above 0"));
        }
    }
}
