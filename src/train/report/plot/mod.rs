//! Pictures of runs: the loss and a metric, against steps and against training time.

mod axis;
mod curves;
mod figure;
mod font;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use self::figure::Figure;
use super::Observer;
use super::record::{EpochRecord, StepRecord};
use crate::replace::replace;

/// The training time between two drawings of a [`PlotFile`].
const SECONDS_BETWEEN_DRAWINGS: f64 = 10.0;

/// A run as a plot shows it.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// Its steps, in order.
    pub steps: &'a [StepRecord],
    /// Its epochs, in order.
    pub epochs: &'a [EpochRecord],
}

/// Draws runs over each other into an `.svg` or `.png` file. Above is the loss: lines for the running mean over steps, dots for
/// evaluations; logarithmic where it spans more than a decade. Below is the first metric, if there is one. What is not finite is left
/// out.
///
/// # Errors
/// A file of another kind, or one that cannot be written.
pub fn draw(path: &Path, title: &str, runs: &[Run<'_>]) -> io::Result<()> {
    let kind = Kind::of(path)?;
    let names: Vec<String> = runs.iter().map(|run| printable(run.name)).collect();
    let runs: Vec<Run<'_>> = runs.iter().zip(&names).map(|(run, name)| Run { name, ..*run }).collect();
    let title = printable(title);
    let figure = Figure::new(&title, &runs)?;
    let content = match kind {
        Kind::Svg => figure.svg()?,
        Kind::Png => figure.png()?,
    };
    replace(path, |file| file.write_all(&content))
}

/// What a picture can be.
enum Kind {
    Svg,
    Png,
}

impl Kind {
    /// The kind of a file, by its name.
    fn of(path: &Path) -> io::Result<Self> {
        match path.extension().and_then(OsStr::to_str) {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => {
                let what = format!("{}: a plot is a file named .svg or .png", path.display());
                Err(io::Error::new(io::ErrorKind::InvalidInput, what))
            }
        }
    }
}

/// The text with escapes for control characters, which XML does not allow.
fn printable(text: &str) -> String {
    let escaped = |character: char| {
        let is_allowed = !character.is_control() && !matches!(character, '\u{fffe}' | '\u{ffff}');
        if is_allowed { character.to_string() } else { character.escape_unicode().to_string() }
    };
    text.chars().map(escaped).collect()
}

/// Checks that a plot can have this name.
///
/// # Errors
/// A name that does not end in `.svg` or `.png`.
pub fn check(path: &Path) -> io::Result<()> {
    Kind::of(path).map(drop)
}

/// A picture of a run, drawn at the ends of epochs and of the run.
#[derive(Debug)]
pub struct PlotFile {
    path: PathBuf,
    title: String,
    name: String,
    steps: Vec<StepRecord>,
    epochs: Vec<EpochRecord>,
    drawn: f64,
}

impl PlotFile {
    /// A picture of the run `name`, which may have steps and epochs already.
    ///
    /// # Errors
    /// A file that is not called `.svg` or `.png`.
    pub fn new(
        path: &Path,
        title: &str,
        name: &str,
        steps: Vec<StepRecord>,
        epochs: Vec<EpochRecord>,
    ) -> io::Result<Self> {
        check(path)?;
        let (path, title, name) = (path.to_owned(), title.to_owned(), name.to_owned());
        Ok(Self { path, title, name, steps, epochs, drawn: f64::NEG_INFINITY })
    }
}

impl Observer for PlotFile {
    fn step(&mut self, record: &StepRecord) -> io::Result<()> {
        self.steps.push(record.clone());
        Ok(())
    }

    fn epoch(&mut self, record: &EpochRecord) -> io::Result<()> {
        self.epochs.push(record.clone());
        if record.seconds - self.drawn < SECONDS_BETWEEN_DRAWINGS {
            return Ok(());
        }
        self.drawn = record.seconds;
        self.finish()
    }

    fn finish(&mut self) -> io::Result<()> {
        draw(&self.path, &self.title, &[Run { name: &self.name, steps: &self.steps, epochs: &self.epochs }])
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{epoch, step};
    use std::fs;

    use super::*;

    const TITLE: &str = "MNIST <5 layers>";

    fn records() -> (Vec<StepRecord>, Vec<EpochRecord>) {
        ((1..=200).map(step).collect(), (1..=100).map(epoch).collect())
    }

    fn drawn_svg(runs: &[Run<'_>]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.svg");
        draw(&path, TITLE, runs).unwrap();
        fs::read_to_string(path).unwrap()
    }

    /// The texts of an SVG, in the order in which they are drawn.
    fn texts(svg: &str) -> Vec<&str> {
        svg.split("<text").skip(1).filter_map(|text| Some(text.split_once('>')?.1.split_once('<')?.0.trim())).collect()
    }

    fn count(svg: &str, what: &str) -> usize {
        svg.matches(what).count()
    }

    #[test]
    fn runs_over_each_other() {
        let (steps, epochs) = records();
        let runs = ["∇", "ζ*"].map(|name| Run { name, steps: &steps, epochs: &epochs });
        let svg = drawn_svg(&runs);
        assert_eq!(
            texts(&svg)[..4],
            ["MNIST &lt;5 layers&gt;", "∇", "ζ*", "Training loss, mean of 4 steps; dots: evaluation"]
        );
        for (text, times) in [("step", 2), ("training time in seconds", 2), ("loss", 2), ("accuracy", 2), ("0.1", 2)] {
            assert_eq!(texts(&svg).iter().filter(|&&found| found == text).count(), times, "{text}");
        }
        // Of two runs, in four panels: a dot for each evaluation, in two circles.
        assert_eq!(count(&svg, "<circle"), 2 * 4 * 100 * 2);
        // A line in each panel, and of the training loss in two; a sample in the legend.
        let lines_of = |color: &str| svg.split("<polyline").filter(|line| line.contains(color)).count();
        assert_eq!((lines_of("#0072B2"), lines_of("#D55E00")), (7, 7));
    }

    #[test]
    fn a_png_has_the_size_of_the_svg_and_letters_and_curves_in_it() {
        let (steps, epochs) = records();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.png");
        draw(&path, "∇ and ζ*", &[Run { name: "run", steps: &steps, epochs: &epochs }]).unwrap();
        let file = std::io::BufReader::new(fs::File::open(path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((frame.width, frame.height, frame.color_type), (1100, 46 + 24 + 2 * 330, png::ColorType::Rgb));
        let rows: Vec<&[u8]> = pixels.chunks(3 * 1100).collect();
        let count = |rows: &[&[u8]], is_wanted: fn(&[u8]) -> bool| {
            rows.iter().flat_map(|row| row.chunks(3)).filter(|pixel| is_wanted(pixel)).count()
        };
        let is_dark = |pixel: &[u8]| pixel.iter().all(|&channel| channel < 128);
        let is_blue = |pixel: &[u8]| pixel == [0, 114, 178];
        // The title, and nothing beside it.
        assert!(count(&rows[..46], is_dark) > 50);
        assert_eq!(count(&rows[..46], is_blue), 0);
        // The curves of four panels.
        assert!(count(&rows[70..], is_blue) > 2000);
    }

    #[test]
    fn without_a_metric_there_is_one_row() {
        let (steps, _) = records();
        let svg = drawn_svg(&[Run { name: "run", steps: &steps, epochs: &[] }]);
        assert!(svg.contains("height=\"400\""), "{}", &svg[..200]);
        assert!(!texts(&svg).contains(&"accuracy"));
    }

    #[test]
    fn what_is_not_finite_does_not_stop_the_drawing() {
        let strange =
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 1e299, -1e299, 0.0, f64::MIN_POSITIVE];
        for &loss in &strange {
            for &seconds in &strange {
                let (mut steps, mut epochs) = records();
                steps[7] = StepRecord { loss, seconds, ..step(8) };
                steps.iter_mut().skip(100).for_each(|step| step.loss = loss);
                let eval = Some([("loss", loss), ("accuracy", loss)].into_iter().collect());
                epochs[3] = EpochRecord { eval, seconds, ..epoch(4) };
                let svg = drawn_svg(&[Run { name: "run", steps: &steps, epochs: &epochs }]);
                assert!(!svg.contains("NaN") && !svg.contains("inf"));
            }
        }
    }

    #[test]
    fn characters_that_xml_lacks_are_escaped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.svg");
        draw(&path, "a\u{1}b\nc\u{ffff}é", &[Run { name: "\u{7f}ζ*", steps: &[], epochs: &[] }]).unwrap();
        let svg = fs::read_to_string(path).unwrap();
        assert_eq!(texts(&svg)[..2], ["a\\u{1}b\\u{a}c\\u{ffff}é", "\\u{7f}ζ*"]);
    }

    #[test]
    fn runs_without_records() {
        for runs in [&[][..], &[Run { name: "", steps: &[], epochs: &[] }]] {
            assert!(drawn_svg(runs).ends_with("</svg>\n"));
        }
    }

    #[test]
    fn many_names_take_several_lines() {
        let names: Vec<String> = (0..20).map(|number| format!("a run with a long name, number {number}")).collect();
        let runs: Vec<Run<'_>> = names.iter().map(|name| Run { name, steps: &[], epochs: &[] }).collect();
        let svg = drawn_svg(&runs);
        // Three in a line.
        assert!(svg.contains(&format!("height=\"{}\"", 46 + 7 * 24 + 330)), "{}", &svg[..200]);
    }

    #[test]
    fn a_plot_is_drawn_at_epochs_and_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.svg");
        let mut plot = PlotFile::new(&path, TITLE, "run", Vec::new(), Vec::new()).unwrap();
        let mut dots_after = |seconds| {
            plot.epoch(&EpochRecord { seconds, ..epoch(1) }).unwrap();
            count(&fs::read_to_string(&path).unwrap(), "<circle")
        };
        // A picture has eight circles for each epoch.
        assert_eq!([1.0, 2.0, 12.0, 13.0].map(&mut dots_after), [8, 8, 24, 24]);
        plot.finish().unwrap();
        assert_eq!(count(&fs::read_to_string(&path).unwrap(), "<circle"), 32);
    }

    #[test]
    fn other_kinds_of_files_are_refused() {
        for name in ["run.jpg", "run"] {
            let error = PlotFile::new(name.as_ref(), TITLE, "run", Vec::new(), Vec::new()).unwrap_err();
            assert_eq!(error.to_string(), format!("{name}: a plot is a file named .svg or .png"));
        }
        assert!(draw("/dev/null/run.svg".as_ref(), TITLE, &[]).is_err());
    }
}
