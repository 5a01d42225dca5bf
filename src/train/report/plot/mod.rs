//! Pictures of runs: the loss and a metric, against steps and against training time.

mod axis;
mod curves;
mod figure;

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use plotters::prelude::{BitMapBackend, IntoDrawingArea, SVGBackend};
use plotters::style::FontStyle;

use self::figure::Figure;
use super::Observer;
use super::record::{EpochRecord, StepRecord};

/// Each pixel of a PNG is the mean of this many drawn pixels, squared.
const SAMPLES: u32 = 2;
/// The pixels of a PNG for one of the SVG.
const DENSITY: u32 = 2;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

/// Draws runs over each other into an `.svg` or `.png` file. Above is the loss: lines for the running mean over steps, dots for
/// evaluations; logarithmic where it spans more than a decade. Below is the first metric, if there is one. What is not finite is left
/// out.
///
/// # Errors
/// A file of another kind, or one that cannot be written.
pub fn draw(path: &Path, title: &str, runs: &[Run<'_>]) -> io::Result<()> {
    let format = format_of(path)?;
    register_font();
    let figure = Figure::new(title, runs).map_err(failed)?;
    match format {
        Format::Svg => fs::write(path, svg(&figure)?),
        Format::Png => fs::write(path, png(&figure)?),
    }
}

fn format_of(path: &Path) -> io::Result<Format> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        _ => {
            let what = format!("{}: a plot is a file named .svg or .png", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    }
}

/// The font of PNG files, by which texts of SVG files are measured too.
fn register_font() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // It is part of the program; without it, drawing would say so.
        let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    });
}

fn failed(error: impl Error) -> io::Error {
    io::Error::other(format!("the plot cannot be drawn: {error}"))
}

fn svg(figure: &Figure<'_>) -> io::Result<String> {
    let mut text = String::new();
    let root = SVGBackend::with_string(&mut text, figure.size(1)).into_drawing_area();
    figure.draw(&root, 1).map_err(failed)?;
    drop(root);
    Ok(text)
}

fn png(figure: &Figure<'_>) -> io::Result<Vec<u8>> {
    let (width, height) = figure.size(SAMPLES * DENSITY);
    let mut pixels = vec![0; (width * height * 3) as usize];
    let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
    figure.draw(&root, SAMPLES * DENSITY).map_err(failed)?;
    drop(root);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width / SAMPLES, height / SAMPLES);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&averaged(&pixels, width as usize))?;
    Ok(bytes)
}

/// The means of squares of pixels, which smooth the edges of lines.
fn averaged(pixels: &[u8], width: usize) -> Vec<u8> {
    const SIDE: usize = SAMPLES as usize;
    let mut means = Vec::with_capacity(pixels.len() / (SIDE * SIDE));
    for rows in pixels.chunks_exact(width * 3 * SIDE) {
        for column in 0..width / SIDE {
            for channel in 0..3 {
                let samples = (0..SIDE * SIDE).map(|i| (i / SIDE * width + column * SIDE + i % SIDE) * 3 + channel);
                let sum: usize = samples.map(|index| usize::from(rows[index])).sum();
                means.push((sum / (SIDE * SIDE)) as u8);
            }
        }
    }
    means
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
    /// A file that is neither `.svg` nor `.png`.
    pub fn new(
        path: &Path,
        title: &str,
        name: &str,
        steps: Vec<StepRecord>,
        epochs: Vec<EpochRecord>,
    ) -> io::Result<Self> {
        format_of(path)?;
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
    fn png_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.png");
        let (steps, epochs) = records();
        draw(&path, TITLE, &[Run { name: "run", steps: &steps, epochs: &epochs }]).unwrap();
        let decoder = png::Decoder::new(io::BufReader::new(fs::File::open(path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (2200, 2 * (46 + 24 + 2 * 330)));
        let is = |color: [u8; 3]| pixels.chunks_exact(3).filter(|pixel| *pixel == color).count();
        let (white, blue, ink) = (is([255; 3]), is([0, 114, 178]), is([51; 3]));
        assert!(white > pixels.len() / 4 && blue > 5_000 && ink > 5_000, "{white} {blue} {ink}");
    }

    #[test]
    fn means_of_pixels() {
        let pixels = [[0, 0, 0], [40, 4, 0], [9, 9, 9], [9, 9, 9], [80, 0, 0], [40, 0, 8], [9, 9, 9], [9, 9, 9]];
        assert_eq!(averaged(pixels.as_flattened(), 4), [40, 1, 2, 9, 9, 9]);
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
        for name in ["run.pdf", "run"] {
            let error = PlotFile::new(name.as_ref(), TITLE, "run", Vec::new(), Vec::new()).unwrap_err();
            assert_eq!(error.to_string(), format!("{name}: a plot is a file named .svg or .png"));
        }
        assert!(draw("/dev/null/run.svg".as_ref(), TITLE, &[]).is_err());
    }
}
