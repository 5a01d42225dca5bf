//! The layout of a plot, and its drawing.

use std::error::Error;
use std::io;

use plotters::backend::DrawingBackend;
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Text};
use plotters::prelude::{BitMapBackend, Color, RGBColor, SVGBackend, WHITE};
use plotters::series::LineSeries;
use plotters::style::{FontError, ShapeStyle, TextStyle};

use super::Run;
use super::axis::Axis;
use super::curves::{Against, Point, metric, scores, training_loss, window};
use super::font::font;

/// Colours that people who confuse colours can tell apart (Okabe and Ito 2008), without the yellow one, which is faint on white.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];
const INK: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(228, 228, 228);

const WIDTH: u32 = 1100;
const PANEL_HEIGHT: u32 = 330;
const TITLE_HEIGHT: u32 = 46;
const LEGEND_LINE: u32 = 24;
const MARGIN: u32 = 24;
const TITLE_SIZE: u32 = 22;
const CAPTION_SIZE: u32 = 17;
const TEXT_SIZE: u32 = 15;
/// The line before a name in the legend.
const SAMPLE: u32 = 26;

type Area<Backend> = DrawingArea<Backend, Shift>;
type Drawn<Backend> = Result<(), DrawingAreaErrorKind<<Backend as DrawingBackend>::ErrorType>>;

/// A plot of some runs.
pub(super) struct Figure<'a> {
    title: &'a str,
    rows: Vec<Row>,
    legend: Vec<Entry<'a>>,
    /// The height of title and legend.
    head: u32,
}

/// A run in the legend.
struct Entry<'a> {
    name: &'a str,
    x: u32,
    y: u32,
    color: RGBColor,
}

/// Two panels beside each other: the same curves against steps and against seconds.
struct Row {
    caption: String,
    name: String,
    is_loss: bool,
    curves: Vec<Curve>,
}

struct Curve {
    points: Vec<Point>,
    color: RGBColor,
    /// Whether each point has a dot.
    dots: bool,
}

impl<'a> Figure<'a> {
    pub(super) fn new(title: &'a str, runs: &[Run<'a>]) -> io::Result<Self> {
        let legend = legend(runs).map_err(failed)?;
        let head = legend.last().map_or(TITLE_HEIGHT, |last| last.y + LEGEND_LINE);
        let metric = metric(runs).map(|name| metric_row(runs, name));
        Ok(Self { title, rows: std::iter::once(loss_row(runs)).chain(metric).collect(), legend, head })
    }

    /// As SVG.
    pub(super) fn svg(&self) -> io::Result<Vec<u8>> {
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, self.size()).into_drawing_area()).map_err(failed)?;
        Ok(svg.into_bytes())
    }

    /// As PNG.
    pub(super) fn png(&self) -> io::Result<Vec<u8>> {
        let (width, height) = self.size();
        let mut pixels = vec![0; 3 * width as usize * height as usize];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area()).map_err(failed)?;
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(png)
    }

    fn size(&self) -> (u32, u32) {
        (WIDTH, self.head + PANEL_HEIGHT * self.rows.len() as u32)
    }

    fn draw<Backend: DrawingBackend>(&self, root: &Area<Backend>) -> Drawn<Backend> {
        let at = |x: u32, y: u32| (x as i32, y as i32);
        root.fill(&WHITE)?;
        root.draw(&Text::new(self.title, at(MARGIN, 16), text(TITLE_SIZE)))?;
        for Entry { name, x, y, color } in &self.legend {
            let middle = y + TEXT_SIZE / 2;
            let sample = [at(*x, middle), at(x + SAMPLE, middle)];
            root.draw(&PathElement::new(sample, color.stroke_width(3)))?;
            root.draw(&Text::new(*name, at(x + SAMPLE + 8, *y), text(TEXT_SIZE)))?;
        }
        let (_, panels) = root.split_vertically(self.head);
        for (panels, row) in panels.split_evenly((self.rows.len(), 2)).chunks(2).zip(&self.rows) {
            row.draw(&panels[0], Against::Steps)?;
            row.draw(&panels[1], Against::Seconds)?;
        }
        root.present()
    }
}

/// Places the names of runs, in as many lines as they need.
fn legend<'a>(runs: &[Run<'a>]) -> Result<Vec<Entry<'a>>, FontError> {
    let (mut x, mut y) = (MARGIN, TITLE_HEIGHT);
    let mut legend = Vec::new();
    for (run, color) in runs.iter().zip(COLORS.into_iter().cycle()) {
        let ((left, _), (right, _)) = text(TEXT_SIZE).font.layout_box(run.name)?;
        let width = SAMPLE + 8 + (right - left).unsigned_abs() + 28;
        if x + width > WIDTH && x > MARGIN {
            (x, y) = (MARGIN, y + LEGEND_LINE);
        }
        legend.push(Entry { name: run.name, x, y, color });
        x += width;
    }
    Ok(legend)
}

fn loss_row(runs: &[Run<'_>]) -> Row {
    let window = window(runs);
    let mut curves = Vec::new();
    for (run, color) in runs.iter().zip(COLORS.into_iter().cycle()) {
        curves.push(Curve { points: training_loss(run.steps, window), color, dots: false });
    }
    let mut caption = match window {
        1 => "Training loss".to_owned(),
        _ => format!("Training loss, mean of {window} steps"),
    };
    let evaluations = dotted(runs, "loss");
    if evaluations.iter().any(|curve| !curve.points.is_empty()) {
        caption += "; dots: evaluation";
        curves.extend(evaluations);
    }
    Row { caption, name: "loss".to_owned(), is_loss: true, curves }
}

fn metric_row(runs: &[Run<'_>], name: &str) -> Row {
    let caption = format!("Evaluation: {name}");
    Row { caption, name: name.to_owned(), is_loss: false, curves: dotted(runs, name) }
}

fn dotted(runs: &[Run<'_>], name: &str) -> Vec<Curve> {
    let curve = |(run, color): (&Run<'_>, RGBColor)| Curve { points: scores(run.epochs, name), color, dots: true };
    runs.iter().zip(COLORS.into_iter().cycle()).map(curve).collect()
}

impl Row {
    fn draw<Backend: DrawingBackend>(&self, panel: &Area<Backend>, against: Against) -> Drawn<Backend> {
        let points = || self.curves.iter().flat_map(|curve| &curve.points).filter_map(|point| point.at(against));
        let x_axis = Axis::tight(points().map(|(x, _)| x).chain(points().next().map(|_| 0.0)));
        let y_values = points().map(|(_, y)| y);
        let y_axis = if self.is_loss { Axis::loss(y_values) } else { Axis::roomy(y_values) };
        let mut chart = ChartBuilder::on(panel)
            .margin(10)
            .margin_right(MARGIN)
            .caption(&self.caption, text(CAPTION_SIZE))
            .x_label_area_size(46)
            .y_label_area_size(72)
            .build_cartesian_2d(x_axis, y_axis)?;
        chart
            .configure_mesh()
            .x_labels(6)
            .y_labels(6)
            .set_all_tick_mark_size(4)
            .bold_line_style(GRID.stroke_width(1))
            .axis_style(INK.stroke_width(1))
            .label_style(text(TEXT_SIZE))
            .axis_desc_style(text(TEXT_SIZE))
            .x_desc(match against {
                Against::Steps => "step",
                Against::Seconds => "training time in seconds",
            })
            .y_desc(&self.name)
            .draw()?;
        for curve in &self.curves {
            let line = if curve.dots { curve.color.mix(0.5).stroke_width(1) } else { curve.color.stroke_width(2) };
            for part in curve.points.split(|point| point.at(against).is_none()) {
                chart.draw_series(LineSeries::new(part.iter().filter_map(|point| point.at(against)), line))?;
            }
            if curve.dots {
                let places = curve.points.iter().filter_map(|point| point.at(against));
                let (inner, ring) = (WHITE.filled(), ShapeStyle::from(curve.color).stroke_width(2));
                let dot = |place| [Circle::new(place, 4, inner), Circle::new(place, 4, ring)];
                chart.draw_series(places.flat_map(dot))?;
            }
        }
        Ok(())
    }
}

fn text(size: u32) -> TextStyle<'static> {
    font(size).color(&INK)
}

fn failed(error: impl Error) -> io::Error {
    io::Error::other(format!("the plot cannot be drawn: {error}"))
}
