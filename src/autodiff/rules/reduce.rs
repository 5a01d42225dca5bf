//! Reductions over axes, and global pooling.

use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};
use crate::model::NodeExt;

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
    ("GlobalMaxPool", all(extreme_of_all)),
];

type Done = Result<(), Refusal>;

/// The axes that are summed over.
fn axes(s: &Step<'_, '_>) -> Result<Vec<i64>, Refusal> {
    let given = if s.has(1) || s.node.ints("axes").is_some() {
        s.ints("axes", 1).ok_or("its axes are not constant")?
    } else {
        Vec::new()
    };
    if given.is_empty() && s.node.int("noop_with_empty_axes", 0) == 0 {
        return Ok((0..s.need_rank(0)? as i64).collect());
    }
    Ok(given)
}

/// A tensor of the result's shape with the reduced axes put back in as ones.
fn kept(s: &mut Step<'_, '_>, value: &str) -> Result<String, Refusal> {
    let axes = axes(s)?;
    Ok(if s.node.int("keepdims", 1) != 0 || axes.is_empty() { value.to_owned() } else { s.b.unsqueeze(value, &axes) })
}

fn spread(s: &mut Step<'_, '_>, value: &str) -> Result<String, Refusal> {
    let kept = kept(s, value)?;
    Ok(s.b.expand_like(&kept, s.x(0)))
}

fn sum(s: &mut Step<'_, '_>) -> Done {
    let gradient = spread(s, &s.dy())?;
    s.give(0, gradient);
    Ok(())
}

/// dy over the number of elements that one mean is of.
fn mean(s: &mut Step<'_, '_>) -> Done {
    let axes = axes(s)?;
    let rank = s.need_rank(0)? as i64;
    let shape = s.shape(0).unwrap_or_default();
    let at = |axis: i64| if axis < 0 { axis + rank } else { axis } as usize;
    let known = axes.iter().try_fold(1, |count: u64, &axis| count.checked_mul(shape.get(at(axis))?.known()?));
    let spread = spread(s, &s.dy())?;
    let count = match known {
        Some(count) => s.scalar(count as f64),
        None => {
            let sizes = s.b.op("Shape", &[s.x(0)]);
            let axes: Vec<i64> = axes.iter().map(|&axis| at(axis) as i64).collect();
            let axes = s.b.ints(&axes);
            let sizes = s.b.op("Gather", &[&sizes, &axes]);
            let count = s.b.with("ReduceProd", &[&sizes], |node| node.with_int("keepdims", 0));
            let elem = s.elem(0).into();
            s.b.with("Cast", &[&count], |node| node.with_int("to", elem))
        }
    };
    let gradient = s.b.op("Div", &[&spread, &count]);
    s.give(0, gradient);
    Ok(())
}

fn l1(s: &mut Step<'_, '_>) -> Done {
    let kept = kept(s, &s.dy())?;
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
    let kept = kept(s, &share)?;
    let gradient = s.b.op("Mul", &[s.x(0), &kept]);
    s.give(0, gradient);
    Ok(())
}

fn sum_square(s: &mut Step<'_, '_>) -> Done {
    let kept = kept(s, &s.dy())?;
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
    let gradient = spread(s, &share)?;
    s.give(0, gradient);
    Ok(())
}

/// y = ln Σ eˣ: dx = dy · eˣ⁻ʸ.
fn log_sum_exp(s: &mut Step<'_, '_>) -> Done {
    let [y, dy] = [s.y(0).to_owned(), s.dy()];
    let [y, dy] = [kept(s, &y)?, kept(s, &dy)?];
    let less = s.b.op("Sub", &[s.x(0), &y]);
    let share = s.b.op("Exp", &[&less]);
    let gradient = s.b.op("Mul", &[&share, &dy]);
    s.give(0, gradient);
    Ok(())
}

/// y = Π x: dx = dy · y / x, for x without zeros.
fn prod(s: &mut Step<'_, '_>) -> Done {
    let product = s.b.op("Mul", &[&s.dy(), s.y(0)]);
    let kept = kept(s, &product)?;
    let gradient = s.b.op("Div", &[&kept, s.x(0)]);
    s.give(0, gradient);
    Ok(())
}

/// The gradient goes to the elements that have the extreme value, in equal shares.
fn extreme(s: &mut Step<'_, '_>) -> Done {
    let axes = axes(s)?;
    share_among_extremes(s, &axes)
}

fn extreme_of_all(s: &mut Step<'_, '_>) -> Done {
    let axes: Vec<i64> = (2..s.need_rank(0)? as i64).collect();
    let is_chosen = s.b.op("Equal", &[s.x(0), s.y(0)]);
    let (y, dy) = (is_chosen, s.dy());
    give_shares(s, &y, &dy, &axes)
}

fn share_among_extremes(s: &mut Step<'_, '_>, axes: &[i64]) -> Done {
    let [y, dy] = [s.y(0).to_owned(), s.dy()];
    let [y, dy] = [kept(s, &y)?, kept(s, &dy)?];
    let is_chosen = s.b.op("Equal", &[s.x(0), &y]);
    give_shares(s, &is_chosen, &dy, axes)
}

fn give_shares(s: &mut Step<'_, '_>, is_chosen: &str, dy: &str, axes: &[i64]) -> Done {
    let elem = s.elem(0).into();
    let chosen = s.b.with("Cast", &[is_chosen], |node| node.with_int("to", elem));
    let count = s.b.sum(&chosen, axes, true);
    let share = s.b.op("Div", &[dy, &count]);
    let gradient = s.b.op("Mul", &[&chosen, &share]);
    s.give(0, gradient);
    Ok(())
}

/// The mean over all axes but batch and channels.
fn global_average(s: &mut Step<'_, '_>) -> Done {
    let sizes = s.b.op("Shape", &[s.x(0)]);
    let (start, end) = (s.b.ints(&[2]), s.b.ints(&[i64::MAX]));
    let sizes = s.b.op("Slice", &[&sizes, &start, &end]);
    let count = s.b.with("ReduceProd", &[&sizes], |node| node.with_int("keepdims", 0));
    let elem = s.elem(0).into();
    let count = s.b.with("Cast", &[&count], |node| node.with_int("to", elem));
    let share = s.b.op("Div", &[&s.dy(), &count]);
    let gradient = s.b.expand_like(&share, s.x(0));
    s.give(0, gradient);
    Ok(())
}
