//! What instructions compute, for the 32 lanes of a warp at once.

use super::half;
use super::instruction::*;

pub(super) const LANES: usize = 32;

/// Which lanes: a bit for each.
pub(super) type Lanes = u32;

/// A register of a warp.
pub(super) type Row<T> = [T; LANES];

/// The lanes of a set, lowest first.
pub(super) fn lanes(mut set: Lanes) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

/// The lanes for which something holds.
fn which(holds: impl Fn(usize) -> bool) -> Lanes {
    (0..LANES).fold(0, |found, lane| found | Lanes::from(holds(lane)) << lane)
}

fn each<T: Copy + Default>(value: impl Fn(usize) -> T) -> Row<T> {
    let mut row = [T::default(); LANES];
    for (lane, place) in row.iter_mut().enumerate() {
        *place = value(lane);
    }
    row
}

pub(super) fn on_words(operation: WordOperation, [a, b, c]: [&Row<u32>; 3]) -> Row<u32> {
    use WordOperation as W;
    let float = |row: &Row<u32>, lane: usize| f32::from_bits(row[lane]);
    match operation {
        W::Move => *a,
        W::Add => each(|i| a[i].wrapping_add(b[i])),
        W::Subtract => each(|i| a[i].wrapping_sub(b[i])),
        W::MultiplyLow => each(|i| a[i].wrapping_mul(b[i])),
        W::MultiplyAdd => each(|i| a[i].wrapping_mul(b[i]).wrapping_add(c[i])),
        W::DivideUnsigned => each(|i| a[i].checked_div(b[i]).unwrap_or(u32::MAX)),
        W::RemainderUnsigned => each(|i| a[i].checked_rem(b[i]).unwrap_or(u32::MAX)),
        W::MinimumUnsigned => each(|i| a[i].min(b[i])),
        W::MaximumUnsigned => each(|i| a[i].max(b[i])),
        W::And => each(|i| a[i] & b[i]),
        W::Or => each(|i| a[i] | b[i]),
        W::Xor => each(|i| a[i] ^ b[i]),
        W::ShiftLeft => each(|i| a[i].checked_shl(b[i]).unwrap_or(0)),
        W::ShiftRight => each(|i| a[i].checked_shr(b[i]).unwrap_or(0)),
        W::ExtractField => each(|i| a[i].checked_shr(b[i] & 0xff).unwrap_or(0) & low_bits(c[i] & 0xff)),
        W::InsertField => each(|i| {
            let (position, mask) = (c[i] >> 8, low_bits(c[i] & 0xff));
            b[i] & !(mask << position) | (a[i] & mask) << position
        }),
        W::AddFloats => each(|i| (float(a, i) + float(b, i)).to_bits()),
        W::SubtractFloats => each(|i| (float(a, i) - float(b, i)).to_bits()),
        W::MultiplyFloats => each(|i| (float(a, i) * float(b, i)).to_bits()),
        W::FusedMultiplyAdd => each(|i| fused(float(a, i), float(b, i), float(c, i)).to_bits()),
        W::Negate => each(|i| (-float(a, i)).to_bits()),
        W::Reciprocal => each(|i| (1.0 / float(a, i)).to_bits()),
        W::SquareRoot => each(|i| float(a, i).sqrt().to_bits()),
        W::FloatOfHalf => each(|i| half::widen(a[i] as u16).to_bits()),
        W::HalfOfFloat => each(|i| half::narrow(float(a, i)).into()),
        W::FloatOfUnsigned => each(|i| (a[i] as f32).to_bits()),
        W::UnsignedOfFloat => each(|i| float(a, i) as u32),
    }
}

fn low_bits(count: u32) -> u32 {
    1_u32.checked_shl(count).map_or(u32::MAX, |bit| bit - 1)
}

/// a·b + c, rounded once. Many times faster than the standard library's where the processor's own may not be used: in double
/// precision the product is exact, and a sum whose last digit is odd unless it is exact is rounded rightly to float.
fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let of_c = sum - product;
    let error = (product - (sum - of_c)) + (c - of_c);
    let bits = sum.to_bits();
    // The neighbour of an even sum on the side of the error is odd, and so is an odd sum.
    let is_even = u64::from(bits & 1 == 0 && error != 0.0 && sum.is_finite());
    let is_away = (error > 0.0) == (sum > 0.0);
    let odd = if is_away { bits + is_even } else { bits - is_even };
    f64::from_bits(odd) as f32
}

pub(super) fn on_longs(operation: LongOperation, [a, b, c]: [&Row<u64>; 3]) -> Row<u64> {
    use LongOperation as L;
    let double = |row: &Row<u64>, lane: usize| f64::from_bits(row[lane]);
    match operation {
        L::Move => *a,
        L::Add => each(|i| a[i].wrapping_add(b[i])),
        L::Subtract => each(|i| a[i].wrapping_sub(b[i])),
        L::MultiplyLow => each(|i| a[i].wrapping_mul(b[i])),
        L::And => each(|i| a[i] & b[i]),
        L::Or => each(|i| a[i] | b[i]),
        L::Join => each(|i| a[i] << 32 | b[i] & 0xffff_ffff),
        L::AddDoubles => each(|i| (double(a, i) + double(b, i)).to_bits()),
        L::MultiplyDoubles => each(|i| (double(a, i) * double(b, i)).to_bits()),
        L::FusedMultiplyAddDoubles => each(|i| double(a, i).mul_add(double(b, i), double(c, i)).to_bits()),
        L::NegateDouble => each(|i| (-double(a, i)).to_bits()),
        L::ReciprocalOfDouble => each(|i| (1.0 / double(a, i)).to_bits()),
    }
}

pub(super) fn shift(how: LongShift, a: &Row<u64>, by: &Row<u32>) -> Row<u64> {
    match how {
        LongShift::Left => each(|i| a[i].checked_shl(by[i]).unwrap_or(0)),
        LongShift::Right => each(|i| a[i].checked_shr(by[i]).unwrap_or(0)),
    }
}

pub(super) fn widen(widening: Widening, [a, b]: [&Row<u32>; 2]) -> Row<u64> {
    match widening {
        Widening::Unsigned => each(|i| a[i].into()),
        Widening::MultiplyUnsigned => each(|i| u64::from(a[i]) * u64::from(b[i])),
        Widening::Pack => each(|i| u64::from(b[i]) << 32 | u64::from(a[i])),
        Widening::DoubleOfFloat => each(|i| f64::from(f32::from_bits(a[i])).to_bits()),
    }
}

pub(super) fn narrow(narrowing: Narrowing, a: &Row<u64>) -> Row<u32> {
    match narrowing {
        Narrowing::LowHalf => each(|i| a[i] as u32),
        Narrowing::FloatOfDouble => each(|i| (f64::from_bits(a[i]) as f32).to_bits()),
    }
}

pub(super) fn halves(a: &Row<u64>) -> [Row<u32>; 2] {
    [each(|i| a[i] as u32), each(|i| (a[i] >> 32) as u32)]
}

/// The first row's value in the chosen lanes, the second one's in the others.
pub(super) fn select<T: Copy + Default>(chosen: Lanes, [a, b]: [&Row<T>; 2]) -> Row<T> {
    each(|i| if chosen >> i & 1 == 1 { a[i] } else { b[i] })
}

pub(super) fn compare_words(comparison: Comparison, [a, b]: [&Row<u32>; 2]) -> Lanes {
    match comparison.kind {
        Kind::Unsigned => comparison.relation.holds(a, b),
        Kind::Signed => comparison.relation.holds(&a.map(u32::cast_signed), &b.map(u32::cast_signed)),
        Kind::Float => compare_floats(comparison, &a.map(f32::from_bits), &b.map(f32::from_bits)),
    }
}

fn compare_floats<T: PartialOrd>(comparison: Comparison, a: &Row<T>, b: &Row<T>) -> Lanes {
    let nan = which(|i| a[i].partial_cmp(&b[i]).is_none());
    comparison.relation.holds(a, b) & !nan | if comparison.or_nan { nan } else { 0 }
}

pub(super) fn compare_longs(comparison: Comparison, [a, b]: [&Row<u64>; 2]) -> Lanes {
    match comparison.kind {
        Kind::Unsigned => comparison.relation.holds(a, b),
        Kind::Signed => comparison.relation.holds(&a.map(u64::cast_signed), &b.map(u64::cast_signed)),
        Kind::Float => compare_floats(comparison, &a.map(f64::from_bits), &b.map(f64::from_bits)),
    }
}

impl Relation {
    fn holds<T: PartialOrd>(self, a: &Row<T>, b: &Row<T>) -> Lanes {
        match self {
            Self::Equal => which(|i| a[i] == b[i]),
            Self::NotEqual => which(|i| a[i] != b[i]),
            Self::Less => which(|i| a[i] < b[i]),
            Self::LessOrEqual => which(|i| a[i] <= b[i]),
            Self::Greater => which(|i| a[i] > b[i]),
            Self::GreaterOrEqual => which(|i| a[i] >= b[i]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fused;

    #[test]
    fn a_fused_product_is_the_standard_librarys() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for _ in 0..2_000_000 {
            let [a, b] = [next(), next()].map(f32::from_bits);
            // As it comes, and where the sum nearly cancels or is half way between two floats.
            let (product, any) = (a * b, f32::from_bits(next()));
            let scale = 2f32.powi((next() % 60) as i32 - 30);
            for c in [
                any,
                -product,
                product * scale,
                -product * scale,
                f32::from_bits(product.to_bits() & 0xff80_0000) * scale,
            ] {
                let (found, expected) = (fused(a, b, c), a.mul_add(b, c));
                assert!(
                    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                    "{a:e}·{b:e} + {c:e}: {found:e}, not {expected:e}"
                );
            }
        }
    }
}
