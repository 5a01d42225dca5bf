//! How far a run is: a bar on a terminal, lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{FormattedDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Observer;
use super::record::{EpochRecord, StepRecord};

/// The training time between two lines within an epoch.
const SECONDS_BETWEEN_LINES: f64 = 10.0;

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// All its steps.
    pub steps: u64,
    /// Those that an earlier part of it has taken.
    pub resumed: u64,
    /// The examples of a step.
    pub batch: u64,
}

/// Tells of the run on stderr: with a bar if that is a terminal; else with a line for each epoch, and at most one for ten seconds of
/// training within.
pub fn progress(length: Length) -> Box<dyn Observer> {
    if io::stderr().is_terminal() {
        Box::new(Bar::new(length, ProgressDrawTarget::stderr()))
    } else {
        Box::new(Lines::new(length, io::stderr()))
    }
}

struct Bar {
    pace: Pace,
    bar: ProgressBar,
}

impl Bar {
    fn new(length: Length, target: ProgressDrawTarget) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}").expect("a template in its grammar");
        let bar = ProgressBar::with_draw_target(Some(length.steps), target).with_style(style.progress_chars("━╸ "));
        Self { pace: Pace { length, first: None }, bar: bar.with_position(length.resumed) }
    }
}

impl Observer for Bar {
    fn step(&mut self, record: &StepRecord) -> io::Result<()> {
        self.bar.set_message(self.pace.after(record));
        self.bar.set_position(record.step);
        Ok(())
    }

    fn epoch(&mut self, record: &EpochRecord) -> io::Result<()> {
        self.bar.println(line(record));
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.bar.finish_and_clear();
        Ok(())
    }
}

struct Lines<W> {
    pace: Pace,
    writer: W,
    /// The training time at the last line.
    written: Option<f64>,
}

impl<W: Write> Lines<W> {
    fn new(length: Length, writer: W) -> Self {
        Self { pace: Pace { length, first: None }, writer, written: None }
    }
}

impl<W: Write> Observer for Lines<W> {
    fn step(&mut self, record: &StepRecord) -> io::Result<()> {
        let state = self.pace.after(record);
        let written = *self.written.get_or_insert(record.seconds);
        if record.seconds - written < SECONDS_BETWEEN_LINES {
            return Ok(());
        }
        self.written = Some(record.seconds);
        writeln!(self.writer, "epoch {}, step {}/{}: {state}", record.epoch, record.step, self.pace.length.steps)
    }

    fn epoch(&mut self, record: &EpochRecord) -> io::Result<()> {
        self.written = Some(record.seconds);
        writeln!(self.writer, "{}", line(record))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// How fast a run goes.
struct Pace {
    length: Length,
    /// Step and training time of the first step that was told of.
    first: Option<(u64, f64)>,
}

impl Pace {
    /// What there is to say after a step.
    fn after(&mut self, record: &StepRecord) -> String {
        let (first_step, first_seconds) = *self.first.get_or_insert((record.step, record.seconds));
        let state = format!("loss {}, lr {}", short(record.loss), short(record.lr));
        let (steps, seconds) = (record.step.saturating_sub(first_step) as f64, record.seconds - first_seconds);
        if !(steps > 0.0 && seconds > 0.0) {
            return state;
        }
        let left = self.length.steps.saturating_sub(record.step) as f64 * seconds / steps;
        let left = FormattedDuration(Duration::try_from_secs_f64(left).unwrap_or_default());
        format!("{state}, {:.0} examples/s, {left} left", self.length.batch as f64 * steps / seconds)
    }
}

fn line(record: &EpochRecord) -> String {
    let mut line = format!("epoch {}, step {}: training loss {}", record.epoch, record.step, short(record.train_loss));
    if let Some(scores) = &record.eval {
        let scores: Vec<String> = scores.iter().map(|(name, value)| format!("{name} {}", short(value))).collect();
        line += &format!("; evaluation {}", scores.join(", "));
    }
    line + &format!("; {:.1} s", record.seconds)
}

fn short(number: f64) -> String {
    if number != 0.0 && number.is_finite() && !(1e-3..1e5).contains(&number.abs()) {
        format!("{number:.3e}")
    } else {
        format!("{number:.4}")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::super::record::tests::{epoch, step};
    use super::*;

    const LENGTH: Length = Length { steps: 400, resumed: 0, batch: 32 };

    /// The lines that are written of 400 steps of a quarter of a second each, 200 in an epoch.
    fn lines() -> Vec<String> {
        let mut written = Vec::new();
        let mut lines = Lines::new(LENGTH, &mut written);
        for number in 1..=400 {
            lines.step(&StepRecord { epoch: (number - 1) / 200 + 1, ..step(number) }).unwrap();
            if number % 200 == 0 {
                let seconds = number as f64 / 4.0;
                lines.epoch(&EpochRecord { step: number, seconds, ..epoch(number / 200) }).unwrap();
            }
        }
        lines.finish().unwrap();
        String::from_utf8(written).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_every_ten_seconds_and_at_epochs() {
        let lines = lines();
        let starts: Vec<&str> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
        let within = |epoch, steps: [u64; 4]| steps.map(|step| format!("epoch {epoch}, step {step}/400"));
        let expected =
            [&within(1, [41, 81, 121, 161])[..], &["epoch 1, step 200".to_owned()], &within(2, [240, 280, 320, 360])];
        let expected = [&expected.concat()[..], &["epoch 2, step 400/400".to_owned(), "epoch 2, step 400".to_owned()]];
        assert_eq!(starts, expected.concat());
        assert_eq!(lines[0], "epoch 1, step 41/400: loss 0.0244, lr 0.1000, 128 examples/s, 00:01:29 left");
        assert_eq!(
            lines[4],
            "epoch 1, step 200: training loss 1.0000; evaluation loss 0.5000, accuracy 0.5000; 50.0 s"
        );
    }

    #[test]
    fn the_pace_is_that_of_this_part_of_the_run() {
        let mut pace = Pace { length: LENGTH, first: None };
        let told = [(301, 1000.0), (302, 1000.0), (303, 1004.0)]
            .map(|(number, seconds)| pace.after(&StepRecord { loss: f64::NAN, lr: 1e-6, seconds, ..step(number) }));
        assert_eq!(told[0], "loss NaN, lr 1.000e-6");
        assert_eq!(told[1], told[0]);
        assert_eq!(told[2], "loss NaN, lr 1.000e-6, 16 examples/s, 00:03:14 left");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(Lines::new(LENGTH, full).epoch(&epoch(1)).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    /// A terminal that keeps what is written to it.
    #[derive(Debug, Clone, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            120
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.write_str("\r")
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_with_a_line_for_each_epoch() {
        let terminal = Terminal::default();
        let length = Length { steps: 4, resumed: 1, batch: 32 };
        let mut bar = Bar::new(length, ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        for number in 2..=4 {
            bar.step(&step(number)).unwrap();
        }
        bar.epoch(&epoch(2)).unwrap();
        bar.finish().unwrap();
        let written = terminal.0.lock().unwrap();
        assert!(written.contains("━━"), "{written}");
        assert!(written.contains("4/4  loss 0.2500, lr 0.1000, 128 examples/s, 00:00:00 left"), "{written}");
        let line = "epoch 2, step 4: training loss 0.5000; evaluation loss 0.2500, accuracy 0.7500; 1.0 s";
        assert!(written.contains(line), "{written}");
    }

    #[test]
    fn a_run_without_steps() {
        let mut lines = Lines::new(Length { steps: 0, resumed: 0, batch: 0 }, Vec::new());
        lines.finish().unwrap();
        assert!(lines.writer.is_empty());
    }
}
