//! Reductions over axes, and global pooling.

use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::{Dim, NodeExt};
use crate::proto::NodeProto;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("ReduceSum", first(1, sum)),
    ("ReduceMean", first(1, mean)),
    ("ReduceL1", first(1, l1)),
    ("ReduceL2", first(1, l2)),
    ("ReduceSumSquare", first(1, sum_square)),
    ("ReduceLogSum", first(1, log_sum)),
    ("ReduceLogSumExp", first(1, log_sum_exp)),
    ("ReduceProd", first(1, prod)),
    ("ReduceMax", first(1, extreme)),
    ("ReduceMin", first(1, extreme)),
    ("GlobalAveragePool", all(global_average)),
    ("GlobalMaxPool", all(extreme_of_channel)),
];

type Done = Result<(), Refusal>;

/// The axes that are reduced.
enum Axes {
    All,
    List(Vec<i64>),
    /// Those in the second input.
    Input,
}

fn axes(s: &Step<'_, '_>) -> Axes {
    match s.ints("axes", 1) {
        Some(axes) if !axes.is_empty() => Axes::List(axes),
        None if s.has(1) => Axes::Input,
        _ if s.node.int("noop_with_empty_axes", 0) != 0 => Axes::List(Vec::new()),
        _ => Axes::All,
    }
}

/// A tensor of the result's shape, so that it broadcasts against the input: with the reduced axes put back in as ones. A scalar broadcasts
/// as it is.
fn kept(s: &mut Step<'_, '_>, value: &str) -> String {
    match axes(s) {
        _ if s.node.int("keepdims", 1) != 0 => value.to_owned(),
        Axes::All => value.to_owned(),
        Axes::List(axes) => s.b.unsqueeze(value, &axes),
        Axes::Input => s.b.op("Unsqueeze", &[value, s.x(1)]),
    }
}

fn spread(s: &mut Step<'_, '_>, value: &str) -> String {
    let kept = kept(s, value);
    s.b.expand_like(&kept, s.x(0))
}

fn sum(s: &mut Step<'_, '_>) -> Done {
    let gradient = spread(s, &s.dy());
    s.give(0, gradient);
    Ok(())
}

/// dy over the number of elements that one mean is of.
fn mean(s: &mut Step<'_, '_>) -> Done {
    let count = elements_per_result(s);
    let share = s.b.op("Div", &[&s.dy(), &count]);
    let gradient = spread(s, &share);
    s.give(0, gradient);
    Ok(())
}

/// How many elements of the input go into one of the result.
fn elements_per_result(s: &mut Step<'_, '_>) -> String {
    let size = |shape: Option<&[Dim]>| shape?.iter().try_fold(1, |size: u64, dim| size.checked_mul(dim.known()?));
    match (size(s.shape(0)), size(s.output_shape())) {
        (Some(input), Some(output)) if output > 0 => s.scalar((input / output) as f64),
        _ => {
            let [input, output] = [s.x(0), s.y(0)].map(|value| s.b.op("Size", &[value]));
            let count = s.b.op("Div", &[&input, &output]);
            let elem = s.elem(0);
            s.b.cast(&count, elem)
        }
    }
}

fn l1(s: &mut Step<'_, '_>) -> Done {
    let kept = kept(s, &s.dy());
    let sign = s.b.op("Sign", &[s.x(0)]);
    let gradient = s.b.op("Mul", &[&sign, &kept]);
    s.give(0, gradient);
    Ok(())
}

/// dx = dy · x / y, and 0 where y is 0.
fn l2(s: &mut Step<'_, '_>) -> Done {
    let (zero, one) = (s.scalar(0.0), s.scalar(1.0));
    let is_zero = s.b.op("Equal", &[s.y(0), &zero]);
    let safe = s.b.op("Where", &[&is_zero, &one, s.y(0)]);
    let share = s.b.op("Div", &[&s.dy(), &safe]);
    let kept = kept(s, &share);
    let gradient = s.b.op("Mul", &[s.x(0), &kept]);
    s.give(0, gradient);
    Ok(())
}

fn sum_square(s: &mut Step<'_, '_>) -> Done {
    let kept = kept(s, &s.dy());
    let two = s.scalar(2.0);
    let twice = s.b.op("Mul", &[s.x(0), &two]);
    let gradient = s.b.op("Mul", &[&twice, &kept]);
    s.give(0, gradient);
    Ok(())
}

/// y = ln Σ x: dx = dy / eʸ.
fn log_sum(s: &mut Step<'_, '_>) -> Done {
    let sum = s.b.op("Exp", &[s.y(0)]);
    let share = s.b.op("Div", &[&s.dy(), &sum]);
    let gradient = spread(s, &share);
    s.give(0, gradient);
    Ok(())
}

/// y = ln Σ eˣ: dx = dy · eˣ⁻ʸ.
fn log_sum_exp(s: &mut Step<'_, '_>) -> Done {
    let [y, dy] = [s.y(0).to_owned(), s.dy()];
    let [y, dy] = [kept(s, &y), kept(s, &dy)];
    let less = s.b.op("Sub", &[s.x(0), &y]);
    let share = s.b.op("Exp", &[&less]);
    let gradient = s.b.op("Mul", &[&share, &dy]);
    s.give(0, gradient);
    Ok(())
}

/// y = Π x: dx is dy times the product of the others, which is 0 if one of them is.
fn prod(s: &mut Step<'_, '_>) -> Done {
    let (zero, one) = (s.scalar(0.0), s.scalar(1.0));
    let elem = s.elem(0);
    let is_zero = s.b.op("Equal", &[s.x(0), &zero]);
    let safe = s.b.op("Where", &[&is_zero, &one, s.x(0)]);
    let attribute = s.node.attribute.clone();
    let inputs = if s.has(1) { vec![safe.as_str(), s.x(1)] } else { vec![safe.as_str()] };
    let product = s.b.with("ReduceProd", &inputs, |node| NodeProto { attribute, ..node });
    let product = kept(s, &product);
    let others = s.b.op("Div", &[&product, &safe]);
    let own = s.b.cast(&is_zero, elem);
    let zeros = sum_of_group(s, &own, axes(s));
    let zeros_among_others = s.b.op("Greater", &[&zeros, &own]);
    let slope = s.b.op("Where", &[&zeros_among_others, &zero, &others]);
    let dy = s.dy();
    let dy = kept(s, &dy);
    let gradient = s.b.op("Mul", &[&dy, &slope]);
    s.give(0, gradient);
    Ok(())
}

/// The sum of the elements that go into one of the result, with the reduced axes kept as ones.
fn sum_of_group(s: &mut Step<'_, '_>, value: &str, axes: Axes) -> String {
    match axes {
        Axes::All => s.b.op("ReduceSum", &[value]),
        Axes::List(axes) if axes.is_empty() => value.to_owned(),
        Axes::List(axes) => s.b.sum(value, &axes, true),
        Axes::Input => s.b.op("ReduceSum", &[value, s.x(1)]),
    }
}

/// The gradient goes to the elements that have the extreme value, in equal shares.
fn extreme(s: &mut Step<'_, '_>) -> Done {
    let axes = axes(s);
    let [y, dy] = [s.y(0).to_owned(), s.dy()];
    let [y, dy] = [kept(s, &y), kept(s, &dy)];
    share_among_extremes(s, &y, &dy, axes)
}

fn extreme_of_channel(s: &mut Step<'_, '_>) -> Done {
    let axes = Axes::List((2..s.need_rank(0)? as i64).collect());
    share_among_extremes(s, s.y(0), &s.dy(), axes)
}

fn share_among_extremes(s: &mut Step<'_, '_>, y: &str, dy: &str, axes: Axes) -> Done {
    let elem = s.elem(0).into();
    let is_chosen = s.b.op("Equal", &[s.x(0), y]);
    let chosen = s.b.with("Cast", &[&is_chosen], |node| node.with_int("to", elem));
    let count = sum_of_group(s, &chosen, axes);
    let share = s.b.op("Div", &[dy, &count]);
    let gradient = s.b.op("Mul", &[&chosen, &share]);
    s.give(0, gradient);
    Ok(())
}

/// The mean over all axes but batch and channels.
fn global_average(s: &mut Step<'_, '_>) -> Done {
    let count = elements_per_result(s);
    let share = s.b.op("Div", &[&s.dy(), &count]);
    let gradient = s.b.expand_like(&share, s.x(0));
    s.give(0, gradient);
    Ok(())
}
