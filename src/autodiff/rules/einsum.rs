//! Einsum.

use super::{Rule, all};
use crate::autodiff::step::{Refusal, Step};
use crate::model::{Dim, Equation, NodeExt};

pub(super) const RULES: &[(&str, Rule)] = &[("Einsum", all(einsum))];

/// The gradient of an operand is the Einsum of dy and the other operands whose result has the operand's axes.
fn einsum(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let ranks: Vec<usize> = (0..s.node.input.len()).map(|slot| s.need_rank(slot)).collect::<Result<_, _>>()?;
    let text = String::from_utf8_lossy(s.node.string("equation", ""));
    let equation = Equation::parse(&text, &ranks)?;
    for slot in 0..ranks.len() {
        if s.wants(slot) {
            let gradient = of_operand(s, &equation, slot)?;
            s.give(slot, gradient);
        }
    }
    Ok(())
}

fn of_operand(s: &mut Step<'_, '_>, equation: &Equation, slot: usize) -> Result<String, Refusal> {
    let own = &equation.inputs[slot];
    let others: Vec<usize> = (0..equation.inputs.len()).filter(|&other| other != slot).collect();
    let mut terms = vec![&equation.output];
    terms.extend(others.iter().map(|&other| &equation.inputs[other]));
    let dy = s.dy();
    let operands: Vec<&str> = std::iter::once(dy.as_str()).chain(others.iter().map(|&other| s.x(other))).collect();
    // Letters that the operand alone has are summed over: every element along them has the same gradient. Of a letter that it has
    // twice, only the diagonal has one.
    let is_first = |at: usize| !own[..at].contains(&own[at]);
    let kept: Vec<usize> =
        (0..own.len()).filter(|&at| is_first(at) && terms.iter().any(|term| term.contains(&own[at]))).collect();
    let spelled = |letters: &[char]| letters.iter().collect::<String>();
    let left: Vec<String> = terms.iter().map(|term| spelled(term)).collect();
    let right: String = kept.iter().map(|&at| own[at]).collect();
    let text = format!("{}->{right}", left.join(","));
    let mut gradient = s.b.with("Einsum", &operands, |node| node.with_string("equation", &text));
    let repeated = repeated_axes(s, equation, slot, &kept)?;
    if !repeated.is_empty() {
        gradient = s.b.sum(&gradient, &repeated, true);
    }
    let missing: Vec<usize> = (0..own.len()).filter(|at| !kept.contains(at)).collect();
    if missing.is_empty() {
        return Ok(gradient);
    }
    let axes: Vec<i64> = missing.iter().map(|&at| at as i64).collect();
    gradient = s.b.unsqueeze(&gradient, &axes);
    for &at in missing.iter().filter(|&&at| !is_first(at)) {
        let first = own.iter().position(|letter| *letter == own[at]).unwrap_or(at);
        gradient = on_diagonal(s, slot, &gradient, [first, at]);
    }
    Ok(s.b.expand_like(&gradient, s.x(slot)))
}

/// The axes, by position in `kept`, along which the operand has one element and is repeated.
fn repeated_axes(s: &Step<'_, '_>, equation: &Equation, slot: usize, kept: &[usize]) -> Result<Vec<i64>, Refusal> {
    let size = |operand: usize, at: usize| s.shape(operand).and_then(|shape| shape.get(at)).unwrap_or(&Dim::Unknown);
    let mut repeated = Vec::new();
    for (axis, &at) in kept.iter().enumerate() {
        let letter = equation.inputs[slot][at];
        let mut elsewhere =
            equation.inputs.iter().enumerate().filter(|(other, _)| *other != slot).flat_map(|(other, letters)| {
                letters.iter().enumerate().filter(|(_, l)| **l == letter).map(move |(at, _)| size(other, at))
            });
        match size(slot, at) {
            Dim::Known(1) => {
                if elsewhere.any(|size| *size != Dim::Known(1)) {
                    repeated.push(axis as i64);
                }
            }
            Dim::Known(_) => {}
            // Only an ellipsis repeats what has one element.
            own => {
                if equation.ellipsis.contains(&letter) && elsewhere.any(|size| size != own || *size == Dim::Unknown) {
                    return Err("which axes behind its ellipsis are repeated cannot be told".into());
                }
            }
        }
    }
    Ok(repeated)
}

/// `value` where the indices along two axes of input `slot` are the same, 0 elsewhere.
fn on_diagonal(s: &mut Step<'_, '_>, slot: usize, value: &str, axes: [usize; 2]) -> String {
    let rank = s.rank(slot).unwrap_or_default() as i64;
    let [first, second] = axes.map(|axis| {
        let count = s.b.size(s.x(slot), axis);
        let indices = s.b.count_up(&count);
        let others: Vec<i64> = (0..rank).filter(|&other| other != axis as i64).collect();
        s.b.unsqueeze(&indices, &others)
    });
    let is_same = s.b.op("Equal", &[&first, &second]);
    let zero = s.scalar(0.0);
    s.b.op("Where", &[&is_same, value, &zero])
}
