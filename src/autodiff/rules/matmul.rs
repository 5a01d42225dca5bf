//! Matrix products.

use super::{Rule, all};
use crate::autodiff::step::{Refusal, Step};
use crate::model::{Dim, NodeExt};
use crate::proto::TensorProto;

pub(super) const RULES: &[(&str, Rule)] = &[("MatMul", all(matmul)), ("Gemm", all(gemm)), ("Det", all(det))];

/// The minors of larger matrices would fill the memory.
const MAX_MINORS: u64 = 32;

/// Y = A B, over stacks of matrices: dA = dY Bᵀ, dB = Aᵀ dY, summed over the axes along which a stack is repeated.
///
/// Where B is a single matrix, the rows of all matrices of A are one product: dB = flat(A)ᵀ flat(dY).
fn matmul(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let (a_rank, b_rank) = (s.need_rank(0)?, s.need_rank(1)?);
    // A vector is a matrix with one row or one column.
    let (mut a, mut b, mut dy) = (s.x(0).to_owned(), s.x(1).to_owned(), s.dy());
    if b_rank == 1 {
        b = s.b.unsqueeze(&b, &[1]);
        dy = s.b.unsqueeze(&dy, &[-1]);
    }
    if a_rank == 1 {
        a = s.b.unsqueeze(&a, &[0]);
        dy = s.b.unsqueeze(&dy, &[-2]);
    }
    let (a_full, b_full) = (a_rank.max(2), b_rank.max(2));
    if s.wants(0) {
        let b_transposed = transposed(s, &b, b_full);
        let gradient = s.b.op("MatMul", &[&dy, &b_transposed]);
        let gradient = sum_stacks(s, gradient, 0, a_full, b_full)?;
        let gradient = if a_rank == 1 { s.b.reshape_like(&gradient, s.x(0)) } else { gradient };
        s.give(0, gradient);
    }
    if s.wants(1) {
        let gradient = if b_full == 2 {
            let [a_rows, dy_rows] =
                if a_full == 2 { [a, dy] } else { [a, dy].map(|value| flat_rows(s, &value, a_full)) };
            s.b.with("Gemm", &[&a_rows, &dy_rows], |node| node.with_int("transA", 1))
        } else {
            let a_transposed = transposed(s, &a, a_full);
            let gradient = s.b.op("MatMul", &[&a_transposed, &dy]);
            sum_stacks(s, gradient, 1, b_full, a_full)?
        };
        let gradient = if b_rank == 1 { s.b.reshape_like(&gradient, s.x(1)) } else { gradient };
        s.give(1, gradient);
    }
    Ok(())
}

fn transposed(s: &mut Step<'_, '_>, value: &str, rank: usize) -> String {
    let mut permutation: Vec<i64> = (0..rank as i64).collect();
    permutation.swap(rank - 2, rank - 1);
    s.b.transpose(value, &permutation)
}

fn flat_rows(s: &mut Step<'_, '_>, value: &str, rank: usize) -> String {
    s.b.with("Flatten", &[value], |node| node.with_int("axis", rank as i64 - 1))
}

/// Sums the gradient of input `slot` over the stacking axes along which it is repeated.
fn sum_stacks(
    s: &mut Step<'_, '_>,
    gradient: String,
    slot: usize,
    own: usize,
    other: usize,
) -> Result<String, Refusal> {
    let added = other.saturating_sub(own);
    let axes = match own {
        ..=2 => Some((0..added as i64).collect()),
        _ => repeated_stacks(s.shape(slot), s.shape(1 - slot), own.max(other)),
    };
    match axes {
        Some(axes) => Ok(s.sum_repeated(gradient, &axes, added)),
        None => s.sum_at_run_time(slot, gradient),
    }
}

/// The axes of the result, of rank `full`, along which the stack `mine` is repeated to meet `theirs`; `None` if that depends on sizes that are
/// not known.
fn repeated_stacks(mine: Option<&[Dim]>, theirs: Option<&[Dim]>, full: usize) -> Option<Vec<i64>> {
    let (mine, theirs) = (mine?, theirs?);
    let added = full - mine.len();
    let mut axes: Vec<i64> = (0..added as i64).collect();
    for (axis, own) in mine[..mine.len() - 2].iter().enumerate() {
        let at = added + axis;
        let counterpart = (at + theirs.len()).checked_sub(full).map(|i| &theirs[i]);
        match (own, counterpart) {
            (own, Some(other)) if own == other && *own != Dim::Unknown => {}
            (Dim::Known(1), Some(_)) => axes.push(at as i64),
            (Dim::Known(_), _) | (_, None | Some(Dim::Known(1))) => {}
            _ => return None,
        }
    }
    Some(axes)
}

/// Y = α op(A) op(B) + β C, where op transposes or does not.
fn gemm(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let (trans_a, trans_b) = (s.node.int("transA", 0) != 0, s.node.int("transB", 0) != 0);
    let (alpha, beta) = (s.node.float("alpha", 1.0), s.node.float("beta", 1.0));
    let product = |s: &mut Step<'_, '_>, left: &str, right: &str, [trans_left, trans_right]: [bool; 2]| {
        s.b.with("Gemm", &[left, right], |mut node| {
            if alpha != 1.0 {
                node = node.with_float("alpha", alpha);
            }
            for (name, is_set) in [("transA", trans_left), ("transB", trans_right)] {
                if is_set {
                    node = node.with_int(name, 1);
                }
            }
            node
        })
    };
    let dy = s.dy();
    if s.wants(0) {
        let b = s.x(1);
        let gradient =
            if trans_a { product(s, b, &dy, [trans_b, true]) } else { product(s, &dy, b, [false, !trans_b]) };
        s.give(0, gradient);
    }
    if s.wants(1) {
        let a = s.x(0);
        let gradient =
            if trans_b { product(s, &dy, a, [true, trans_a]) } else { product(s, a, &dy, [!trans_a, false]) };
        s.give(1, gradient);
    }
    if s.wants(2) {
        let gradient = if beta == 1.0 {
            dy
        } else {
            let beta = s.scalar(beta.into());
            s.b.op("Mul", &[&dy, &beta])
        };
        s.give_broadcast(2, gradient)?;
    }
    Ok(())
}

/// dX = dy times the cofactors: the determinant without a row and a column, with the sign of a chessboard. Exact for singular matrices, too.
fn det(s: &mut Step<'_, '_>) -> Result<(), Refusal> {
    let size = s.shape(0).and_then(|shape| shape.last()?.known()).ok_or("the size of its matrices is not known")?;
    if size > MAX_MINORS {
        return Err(format!(
            "its gradient is written out for matrices of up to {MAX_MINORS} rows, and these have {size}"
        ));
    }
    let size = size as i64;
    let dy = s.b.unsqueeze(&s.dy(), &[-2, -1]);
    if size < 2 {
        s.give(0, dy);
        return Ok(());
    }
    let rank = s.need_rank(0)? as i64;
    // [..., row left out, its rows, column left out, its columns]
    let others: Vec<i64> = (0..size).flat_map(|at| (0..size).filter(move |&other| other != at)).collect();
    let others = s.b.constant(TensorProto { dims: vec![size, size - 1], ..TensorProto::of_ints(&others) });
    let rows = s.b.with("Gather", &[s.x(0), &others], |node| node.with_int("axis", rank - 2));
    let minors = s.b.with("Gather", &[&rows, &others], |node| node.with_int("axis", rank));
    let order: Vec<i64> = (0..rank - 1).chain([rank, rank - 1, rank + 1]).collect();
    let minors = s.b.transpose(&minors, &order);
    let minors = s.b.op("Det", &[&minors]);
    let signs: Vec<f64> =
        (0..size * size).map(|at| if (at / size + at % size) % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let elem = s.elem(0);
    let signs = s.b.constant(TensorProto::of_floats(&signs, &[size, size], elem));
    let cofactors = s.b.op("Mul", &[&minors, &signs]);
    let gradient = s.b.op("Mul", &[&dy, &cofactors]);
    s.give(0, gradient);
    Ok(())
}
