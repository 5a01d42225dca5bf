//! Heat maps as SVG.

const CELL: usize = 46;
const LEFT: usize = 64;
const TOP: usize = 40;
const GAP: usize = 40;
/// From low to high: five colours of viridis.
const COLORS: [[f64; 3]; 5] =
    [[68.0, 1.0, 84.0], [59.0, 82.0, 139.0], [33.0, 145.0, 140.0], [94.0, 201.0, 98.0], [253.0, 231.0, 37.0]];
/// The colour of what is not finite: a run that diverged.
const NOTHING: &str = "rgb(200,200,200)";

/// How values are told apart.
#[derive(Clone, Copy)]
pub(crate) enum Scale {
    Linear,
    Logarithmic,
}

impl Scale {
    fn of(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
        }
    }

    /// A value in a cell.
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            _ if !value.is_finite() => "×".to_owned(),
            Self::Linear => format!("{value:.1}"),
            Self::Logarithmic => format!("{value:.3}"),
        }
    }
}

/// A value for each row and column.
pub(crate) struct Map {
    pub(crate) caption: String,
    pub(crate) values: Vec<Vec<f64>>,
    pub(crate) scale: Scale,
}

/// A picture of maps, a row of them above the other: the first of each pair above. `names` are of their rows, λg, and columns, λa.
pub(crate) fn draw(title: &str, names: &[String], maps: &[[Map; 2]]) -> String {
    let side = names.len() * CELL;
    let (width, height) = (maps.len() * (LEFT + side + GAP), 2 * (TOP + side + GAP) + TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"16\" y=\"26\" font-size=\"17\">{title}</text>\n"
    );
    for above in 0..2 {
        let values = maps.iter().flat_map(|pair| pair[above].values.iter().flatten().map(|&v| pair[above].scale.of(v)));
        let range = range(values);
        for (column, pair) in maps.iter().enumerate() {
            let corner = (LEFT + column * (LEFT + side + GAP), 2 * TOP + above * (TOP + side + GAP));
            svg += &panel(&pair[above], names, corner, range);
        }
    }
    svg + "</svg>\n"
}

/// The smallest and the largest finite one.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

fn panel(map: &Map, names: &[String], (left, top): (usize, usize), range: (f64, f64)) -> String {
    let side = names.len() * CELL;
    let middle = CELL / 2 + 4;
    let mut svg = format!("<text x=\"{left}\" y=\"{}\" font-size=\"14\">{}</text>\n", top - 10, map.caption);
    for (row, (name, values)) in names.iter().zip(&map.values).enumerate() {
        let y = top + row * CELL;
        svg += &format!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\n", left - 6, y + middle);
        for (column, &value) in values.iter().enumerate() {
            let x = left + column * CELL;
            let (color, ink) = color(map.scale.of(value), range);
            svg += &format!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\" fill=\"{color}\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"{ink}\">{}</text>\n",
                x + CELL / 2,
                y + middle,
                map.scale.text(value)
            );
        }
    }
    for (column, name) in names.iter().enumerate() {
        let x = left + column * CELL + CELL / 2;
        svg += &format!("<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{name}</text>\n", top + side + 14);
    }
    svg += &format!("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">λa</text>\n", left + side / 2, top + side + 30);
    svg + &format!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">λg</text>\n", left - 44, top + side / 2)
}

/// The colour of a cell, and of the text on it.
fn color(value: f64, (low, high): (f64, f64)) -> (String, &'static str) {
    if !value.is_finite() {
        return (NOTHING.to_owned(), "black");
    }
    let share = if high > low { (value - low) / (high - low) } else { 0.5 };
    let place = share * (COLORS.len() - 1) as f64;
    let at = (place as usize).min(COLORS.len() - 2);
    let part = place - at as f64;
    let [red, green, blue] = [0, 1, 2].map(|c| (COLORS[at][c] + part * (COLORS[at + 1][c] - COLORS[at][c])) as u8);
    (format!("rgb({red},{green},{blue})"), if share > 0.6 { "black" } else { "white" })
}
