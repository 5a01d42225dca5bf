//! Element by element on several inputs, with broadcasting.

use super::{Rule, all, first};
use crate::autodiff::step::{Refusal, Step};

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Add", all(add)),
    ("Sub", all(sub)),
    ("Mul", all(mul)),
    ("Div", all(div)),
    ("Pow", all(pow)),
    ("Sum", all(sum)),
    ("Mean", all(mean)),
    ("Max", all(extreme)),
    ("Min", all(extreme)),
    ("Where", all(choose)),
    ("PRelu", all(prelu)),
    ("Mod", first(1, modulo)),
];

fn add(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    for slot in 0..2 {
        if s.wants(slot) {
            s.give_broadcast(slot, s.dy())?;
        }
    }
    Ok(())
}

fn sub(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    if s.wants(0) {
        s.give_broadcast(0, s.dy())?;
    }
    if s.wants(1) {
        let gradient = s.b.op("Neg", &[&s.dy()]);
        s.give_broadcast(1, gradient)?;
    }
    Ok(())
}

fn mul(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    for slot in 0..2 {
        if s.wants(slot) {
            let gradient = s.b.op("Mul", &[&s.dy(), s.x(1 - slot)]);
            s.give_broadcast(slot, gradient)?;
        }
    }
    Ok(())
}

/// y = a / b: da = dy / b, db = -dy · y / b.
fn div(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let share = s.b.op("Div", &[&s.dy(), s.x(1)]);
    if s.wants(1) {
        let product = s.b.op("Mul", &[&share, s.y(0)]);
        let gradient = s.b.op("Neg", &[&product]);
        s.give_broadcast(1, gradient)?;
    }
    if s.wants(0) {
        s.give_broadcast(0, share)?;
    }
    Ok(())
}

/// y = aᵇ: da = dy · b · aᵇ⁻¹, db = dy · y · ln a, with 0 · ln 0 = 0.
fn pow(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    if s.wants(0) {
        let gradient = match s.float_input(1) {
            Some(2.0) => {
                let two = s.scalar(2.0);
                let twice = s.b.op("Mul", &[s.x(0), &two]);
                s.b.op("Mul", &[&s.dy(), &twice])
            }
            _ => {
                let exponent = if s.elem(1) == s.elem(0) {
                    s.x(1).to_owned()
                } else {
                    let elem = s.elem(0);
                    s.b.cast(s.x(1), elem)
                };
                let one = s.scalar(1.0);
                let less = s.b.op("Sub", &[&exponent, &one]);
                let power = s.b.op("Pow", &[s.x(0), &less]);
                let slope = s.b.op("Mul", &[&exponent, &power]);
                s.b.op("Mul", &[&s.dy(), &slope])
            }
        };
        s.give_broadcast(0, gradient)?;
    }
    if s.wants(1) {
        let (zero, one) = (s.scalar(0.0), s.scalar(1.0));
        let positive = s.b.op("Greater", &[s.x(0), &zero]);
        let safe = s.b.op("Where", &[&positive, s.x(0), &one]);
        let log = s.b.op("Log", &[&safe]);
        let slope = s.b.op("Mul", &[s.y(0), &log]);
        let gradient = s.b.op("Mul", &[&s.dy(), &slope]);
        s.give_broadcast(1, gradient)?;
    }
    Ok(())
}

fn sum(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    for slot in 0..s.node.input.len() {
        if s.wants(slot) {
            s.give_broadcast(slot, s.dy())?;
        }
    }
    Ok(())
}

fn mean(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let count = s.scalar(s.node.input.len() as f64);
    let share = s.b.op("Div", &[&s.dy(), &count]);
    for slot in 0..s.node.input.len() {
        if s.wants(slot) {
            s.give_broadcast(slot, share.clone())?;
        }
    }
    Ok(())
}

/// Max and Min: the gradient goes to the first input that has the extreme value.
fn extreme(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let zero = s.scalar(0.0);
    let mut rest = s.dy();
    for slot in 0..s.node.input.len() {
        let chosen = s.b.op("Equal", &[s.x(slot), s.y(0)]);
        if s.wants(slot) {
            let gradient = s.b.op("Where", &[&chosen, &rest, &zero]);
            s.give_broadcast(slot, gradient)?;
        }
        rest = s.b.op("Where", &[&chosen, &zero, &rest]);
    }
    Ok(())
}

fn choose(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let elem = s.elem(1);
    let zero = s.b.scalar(0.0, elem);
    if s.wants(1) {
        let gradient = s.b.op("Where", &[s.x(0), &s.dy(), &zero]);
        s.give_broadcast(1, gradient)?;
    }
    if s.wants(2) {
        let gradient = s.b.op("Where", &[s.x(0), &zero, &s.dy()]);
        s.give_broadcast(2, gradient)?;
    }
    Ok(())
}

/// y = x where x ≥ 0, slope · x elsewhere.
fn prelu(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let zero = s.scalar(0.0);
    let negative = s.b.op("Less", &[s.x(0), &zero]);
    if s.wants(0) {
        let scaled = s.b.op("Mul", &[&s.dy(), s.x(1)]);
        let gradient = s.b.op("Where", &[&negative, &scaled, &s.dy()]);
        s.give(0, gradient);
    }
    if s.wants(1) {
        let product = s.b.op("Mul", &[&s.dy(), s.x(0)]);
        let gradient = s.b.op("Where", &[&negative, &product, &zero]);
        s.give_broadcast(1, gradient)?;
    }
    Ok(())
}

/// With respect to the dividend the slope is one almost everywhere, whichever sign the remainder has.
fn modulo(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    s.give_broadcast(0, s.dy())?;
    Ok(())
}
