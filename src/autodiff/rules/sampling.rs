//! GridSample: an image read at places between its elements.
//!
//! Along each spatial axis a place has some taps, the elements around it with their weights. The result is the sum of an image's elements at all
//! combinations of taps, each times the product of its weights. Values are [N, C, P] here, with a column for each of the P places.

use super::gather::adding;
use super::{Rule, all};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;
use crate::proto::tensor_proto::DataType;

pub(super) const RULES: &[(&str, Rule)] = &[("GridSample", all(grid_sample))];

/// The parameter of cubic interpolation.
const A: f64 = -0.75;

/// An element that a place reads along an axis.
struct Tap {
    /// Its position.
    at: String,
    weight: String,
    /// The derivative of the weight with respect to the place.
    slope: String,
}

/// A spatial axis of the image.
struct Axis {
    size: String,
    taps: Vec<Tap>,
    /// The derivative of a place with respect to what the grid gives for it.
    scale: String,
}

/// To each tap dy times its weight; to each place, along each axis, the sum of dy times element times slope over taps and channels.
fn grid_sample(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let spatial = s.need_rank(0)?.checked_sub(2).filter(|&axes| axes > 0).ok_or("an input without spatial axes")?;
    let names: Vec<String> = s.b.split(s.x(1), -1, &vec![1; spatial]);
    let columns = s.b.ints(&[0, 1, -1]);
    // The last axis of the image is the first coordinate.
    let places: Vec<String> = names.iter().rev().map(|name| s.b.op("Reshape", &[name, &columns])).collect();
    let flat = s.b.ints(&[0, 0, -1]);
    let [dy, image] = [s.dy().as_str(), s.x(0)].map(|value| s.b.op("Reshape", &[value, &flat]));
    let around = Around { grid: s.elem(1) };
    let axes: Vec<Axis> =
        places.iter().enumerate().map(|(i, place)| around.axis(s, i, place)).collect::<Result<_, _>>()?;
    let combinations = combinations(&axes);
    let ats: Vec<String> = combinations.iter().map(|taps| position(s, &axes, taps)).collect();
    if s.wants(0) {
        let gradient = of_image(s, &dy, &image, &combinations, &ats);
        s.give(0, gradient);
    }
    if s.wants(1) {
        let parts = of_places(s, &dy, &image, &axes, &combinations, &ats);
        let parts: Vec<String> =
            parts.iter().rev().zip(&names).map(|(part, name)| s.b.reshape_like(part, name)).collect();
        let gradient = s.b.concat(&parts, -1);
        s.give(1, gradient);
    }
    Ok(())
}

fn of_image(s: &mut Step<'_, '_>, dy: &str, image: &str, combinations: &[Vec<&Tap>], ats: &[String]) -> String {
    let parts: Vec<String> = combinations
        .iter()
        .map(|taps| {
            let weights: Vec<&str> = taps.iter().map(|tap| tap.weight.as_str()).collect();
            let factor = product(s, &weights);
            s.b.op("Mul", &[dy, &factor])
        })
        .collect();
    let (updates, at) = (s.b.concat(&parts, 2), s.b.concat(ats, 2));
    let at = s.b.expand_like(&at, &updates);
    let zeros = s.b.filled_like(image, 0.0, s.elem(0));
    let added = s.b.with("ScatterElements", &[&zeros, &at, &updates], |node| adding(node.with_int("axis", 2)));
    s.b.reshape_like(&added, s.x(0))
}

/// By axis: the gradient of the coordinates.
fn of_places(
    s: &mut Step<'_, '_>,
    dy: &str,
    image: &str,
    axes: &[Axis],
    combinations: &[Vec<&Tap>],
    ats: &[String],
) -> Vec<String> {
    let mut terms: Vec<Vec<String>> = vec![Vec::new(); axes.len()];
    for (taps, at) in combinations.iter().zip(ats) {
        let at = s.b.expand_like(at, dy);
        let elements = s.b.with("GatherElements", &[image, &at], |node| node.with_int("axis", 2));
        let along = s.b.op("Mul", &[&elements, dy]);
        let along = s.b.sum(&along, &[1], true);
        for (i, terms) in terms.iter_mut().enumerate() {
            let factors: Vec<&str> = taps
                .iter()
                .enumerate()
                .map(|(at, tap)| if at == i { tap.slope.as_str() } else { tap.weight.as_str() })
                .collect();
            let factor = product(s, &factors);
            terms.push(s.b.op("Mul", &[&along, &factor]));
        }
    }
    let (from, to) = (s.elem(0), s.elem(1));
    let sums = terms.iter().zip(axes).map(|(terms, axis)| {
        let terms: Vec<&str> = terms.iter().map(String::as_str).collect();
        let sum = s.b.op("Sum", &terms);
        let sum = s.b.converted(&sum, from, to);
        s.b.op("Mul", &[&sum, &axis.scale])
    });
    sums.collect()
}

/// One tap of each axis, in every way.
fn combinations(axes: &[Axis]) -> Vec<Vec<&Tap>> {
    axes.iter().fold(vec![Vec::new()], |all, axis| {
        let with = |taps: &Vec<_>| axis.taps.iter().map(|tap| [taps.as_slice(), &[tap]].concat()).collect::<Vec<_>>();
        all.iter().flat_map(with).collect()
    })
}

/// The position in the flat image.
fn position(s: &mut Step<'_, '_>, axes: &[Axis], taps: &[&Tap]) -> String {
    let mut at = taps[0].at.clone();
    for (axis, tap) in axes.iter().zip(taps).skip(1) {
        let rows = s.b.op("Mul", &[&at, &axis.size]);
        at = s.b.op("Add", &[&rows, &tap.at]);
    }
    at
}

fn product(s: &mut Step<'_, '_>, factors: &[&str]) -> String {
    let (first, rest) = factors.split_first().expect("an image has a spatial axis");
    rest.iter().fold((*first).to_owned(), |product, factor| s.b.op("Mul", &[&product, factor]))
}

/// What lies around places along an axis. Places and sizes are of the grid's type, weights of the image's.
struct Around {
    grid: i32,
}

impl Around {
    /// Spatial axis `i`, with the taps of the places that the grid gives.
    fn axis(&self, s: &mut Step<'_, '_>, i: usize, given: &str) -> Result<Axis, Refusal> {
        let size = s.b.size(s.x(0), 2 + i);
        let sizes = s.b.cast(&size, self.grid);
        let one = self.scalar(s, 1.0);
        let last = s.b.op("Sub", &[&sizes, &one]);
        let is_aligned = s.node.int("align_corners", 0) != 0;
        // -1 and 1 are the centres of the first and the last element, or their outer edges.
        let span = if is_aligned { last.clone() } else { sizes.clone() };
        let [half, low] = [0.5, if is_aligned { 0.0 } else { -0.5 }].map(|number| self.scalar(s, number));
        let mut scale = s.b.op("Mul", &[&span, &half]);
        let from_edge = s.b.op("Add", &[given, &one]);
        let from_edge = s.b.op("Mul", &[&from_edge, &scale]);
        let mut place = s.b.op("Add", &[&from_edge, &low]);
        let mode = s.node.string("mode", "linear");
        if mode == b"nearest" {
            place = s.b.op("Round", &[&place]);
        }
        let high = s.b.op("Add", &[&span, &low]);
        let padding = s.node.string("padding_mode", "zeros");
        match padding {
            b"zeros" => {}
            b"border" => {
                let [below, above] = [("Less", &low), ("Greater", &high)].map(|(op, edge)| s.b.op(op, &[&place, edge]));
                let is_outside = s.b.op("Or", &[&below, &above]);
                let clamped = self.clamped(s, &place, &last);
                let zero = self.scalar(s, 0.0);
                place = s.b.op("Where", &[&is_outside, &clamped, &place]);
                scale = s.b.op("Where", &[&is_outside, &zero, &scale]);
            }
            b"reflection" => {
                let (reflected, is_turned) = self.reflected(s, &place, &low, &span);
                let backwards = s.b.op("Neg", &[&scale]);
                place = reflected;
                scale = s.b.op("Where", &[&is_turned, &backwards, &scale]);
            }
            other => return Err(format!("padding_mode {}", String::from_utf8_lossy(other))),
        }
        let base = s.b.op("Floor", &[&place]);
        let part = s.b.op("Sub", &[&place, &base]);
        let mut taps = Vec::new();
        for (offset, weight, slope) in self.weights(s, mode, &part)? {
            let offset = self.scalar(s, offset);
            let mut at = s.b.op("Add", &[&base, &offset]);
            let is_inside = (padding == b"zeros").then(|| {
                let zero = self.scalar(s, 0.0);
                let from = s.b.op("GreaterOrEqual", &[&at, &zero]);
                let to = s.b.op("LessOrEqual", &[&at, &last]);
                s.b.op("And", &[&from, &to])
            });
            if padding == b"reflection" {
                (at, _) = self.reflected(s, &at, &low, &span);
            }
            let at = self.clamped(s, &at, &last);
            let at = s.b.cast(&at, DataType::Int64 as i32);
            let mut counted = |value: String| {
                let value = s.b.converted(&value, self.grid, s.elem(0));
                let Some(is_inside) = &is_inside else { return value };
                let zero = s.scalar(0.0);
                s.b.op("Where", &[is_inside, &value, &zero])
            };
            taps.push(Tap { at, weight: counted(weight), slope: counted(slope) });
        }
        Ok(Axis { size, taps, scale })
    }

    fn scalar(&self, s: &mut Step<'_, '_>, number: f64) -> String {
        s.b.scalar(number, self.grid)
    }

    /// From 0 to `last`.
    fn clamped(&self, s: &mut Step<'_, '_>, place: &str, last: &str) -> String {
        let zero = self.scalar(s, 0.0);
        let from = s.b.op("Max", &[place, &zero]);
        s.b.op("Min", &[&from, last])
    }

    /// Places behind an edge reflected there, again and again; and which of them move backwards then.
    fn reflected(&self, s: &mut Step<'_, '_>, place: &str, low: &str, span: &str) -> (String, String) {
        let one = self.scalar(s, 1.0);
        let twice = s.b.op("Add", &[span, span]);
        // One element between aligned corners has a span of 0.
        let period = s.b.op("Max", &[&twice, &one]);
        let distance = s.b.op("Sub", &[place, low]);
        let periods = s.b.op("Div", &[&distance, &period]);
        let periods = s.b.op("Floor", &[&periods]);
        let whole = s.b.op("Mul", &[&periods, &period]);
        let ahead = s.b.op("Sub", &[&distance, &whole]);
        let back = s.b.op("Sub", &[&period, &ahead]);
        let is_turned = s.b.op("Greater", &[&ahead, span]);
        let distance = s.b.op("Where", &[&is_turned, &back, &ahead]);
        (s.b.op("Add", &[&distance, low]), is_turned)
    }

    /// For each tap: where it is from the element before a place, its weight if the place is `part` behind that element, and the weight's derivative.
    fn weights(&self, s: &mut Step<'_, '_>, mode: &[u8], part: &str) -> Result<Vec<(f64, String, String)>, Refusal> {
        // Of polynomials in the part.
        let polynomials: &[(f64, [f64; 4])] = match mode {
            b"nearest" => &[(0.0, [1.0, 0.0, 0.0, 0.0])],
            b"linear" | b"bilinear" => &[(0.0, [1.0, -1.0, 0.0, 0.0]), (1.0, [0.0, 1.0, 0.0, 0.0])],
            b"cubic" | b"bicubic" => &[
                (-1.0, [0.0, A, -2.0 * A, A]),
                (0.0, [1.0, 0.0, -A - 3.0, A + 2.0]),
                (1.0, [0.0, -A, 2.0 * A + 3.0, -A - 2.0]),
                (2.0, [0.0, 0.0, A, -A]),
            ],
            other => return Err(format!("mode {}", String::from_utf8_lossy(other))),
        };
        let weights = polynomials.iter().map(|(offset, [a, b, c, d])| {
            let weight = self.polynomial(s, part, &[*a, *b, *c, *d]);
            let slope = self.polynomial(s, part, &[*b, 2.0 * c, 3.0 * d]);
            (*offset, weight, slope)
        });
        Ok(weights.collect())
    }

    /// Σ cᵢ xⁱ, by Horner's rule.
    fn polynomial(&self, s: &mut Step<'_, '_>, x: &str, coefficients: &[f64]) -> String {
        let degree = coefficients.iter().rposition(|&c| c != 0.0).unwrap_or(0);
        let mut value = self.scalar(s, coefficients[degree]);
        for &c in coefficients[..degree].iter().rev() {
            value = s.b.op("Mul", &[&value, x]);
            if c != 0.0 {
                let c = self.scalar(s, c);
                value = s.b.op("Add", &[&value, &c]);
            }
        }
        value
    }
}
