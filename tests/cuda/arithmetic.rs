//! Every instruction against what Rust makes of the same values.

use super::ptx::Order;
use super::{Words, text};

/// Threads of a launch, and as many triples of values.
const COUNT: usize = 256;

/// Numbers, some where something special happens, as words and as floats.
fn values() -> Vec<u32> {
    let special = [0, 1, 2, 31, 32, 33, 255, 0x7fff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xff7f_ffff];
    let floats = [
        -0.0,
        1.0,
        -1.5,
        0.1,
        3e9,
        -7.9,
        5e9,
        65504.0,
        65519.9,
        65520.0,
        6e-8,
        2e-8,
        1e-40,
        1e30,
        f32::MAX,
        f32::INFINITY,
        -f32::INFINITY,
        f32::NAN,
    ];
    let known: Vec<u32> = special.into_iter().chain(floats.map(f32::to_bits)).collect();
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    // Half of them known ones, in all kinds of company; floats of about the same size among the others.
    let value = |random: usize| match random % 4 {
        0 | 1 => known[random / 4 % known.len()],
        2 => (random / 4 % 4096) as u32,
        _ => (random as f32 / 1e9 - 1.0).to_bits(),
    };
    (0..3 * COUNT).map(|_| value(next())).collect()
}

/// What instructions leave in `%r7`, for each triple of values in `%r4`, `%r5` and `%r6`.
fn compute(instructions: &str) -> Vec<([u32; 3], u32)> {
    let mut words = Words::new(values());
    words.words.resize(4 * COUNT, 0);
    let row = 4 * COUNT;
    let body = format!(
        "ld.global.u32 %r4, [%rd2];\nld.global.u32 %r5, [%rd2+{}];\nld.global.u32 %r6, [%rd2+{}];\n{instructions}\nst.global.u32 [%rd2+{}], %r7;",
        row,
        2 * row,
        3 * row
    );
    words.run(&text(&body), 1, COUNT as u32, 0, Order::Forward).unwrap();
    let of = |row: usize, thread: usize| words.words[row * COUNT + thread];
    (0..COUNT).map(|thread| ([of(0, thread), of(1, thread), of(2, thread)], of(3, thread))).collect()
}

#[track_caller]
fn words(instructions: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    for ([a, b, c], found) in compute(instructions) {
        assert_eq!(found, expected(a, b, c), "{instructions} of {a:#x}, {b:#x}, {c:#x}");
    }
}

#[track_caller]
fn floats(instructions: &str, expected: impl Fn(f32, f32, f32) -> f32) {
    let moves = "mov.b32 %f4, %r4;\nmov.b32 %f5, %r5;\nmov.b32 %f6, %r6;";
    for (from, found) in compute(&format!("{moves}\n{instructions}\nmov.b32 %r7, %f7;")) {
        let ([a, b, c], found) = (from.map(f32::from_bits), f32::from_bits(found));
        let expected = expected(a, b, c);
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{instructions} of {a:e}, {b:e}, {c:e}: {found:e}, not {expected:e}");
    }
}

/// A comparison of `%r4` with `%r5`, as words or as floats.
#[track_caller]
fn comparison(kind: &str, expected: impl Fn(u32, u32) -> bool) {
    let [a, b] = if kind.ends_with("f32") { ["%f4", "%f5"] } else { ["%r4", "%r5"] };
    let body = format!("mov.b32 %f4, %r4;\nmov.b32 %f5, %r5;\nsetp.{kind} %p1, {a}, {b};\nselp.u32 %r7, 1, 0, %p1;");
    words(&body, |a, b, _| u32::from(expected(a, b)));
}

#[test]
fn integers() {
    words("add.s32 %r7, %r4, %r5;", |a, b, _| a.wrapping_add(b));
    words("add.s32 %r7, %r4, -3;", |a, _, _| a.wrapping_sub(3));
    words("sub.s32 %r7, %r4, %r5;", |a, b, _| a.wrapping_sub(b));
    words("mul.lo.s32 %r7, %r4, %r5;", |a, b, _| a.wrapping_mul(b));
    words("mad.lo.s32 %r7, %r4, %r5, %r6;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    words("max.u32 %r5, %r5, 1;\ndiv.u32 %r7, %r4, %r5;", |a, b, _| a / b.max(1));
    words("max.u32 %r5, %r5, 1;\nrem.u32 %r7, %r4, %r5;", |a, b, _| a % b.max(1));
    words("min.u32 %r7, %r4, %r5;", |a, b, _| a.min(b));
    words("and.b32 %r7, %r4, %r5;", |a, b, _| a & b);
    words("or.b32 %r7, %r4, %r5;", |a, b, _| a | b);
    words("xor.b32 %r7, %r4, %r5;", |a, b, _| a ^ b);
}

#[test]
fn bits() {
    // A device shifts by 32 at most.
    words("shl.b32 %r7, %r4, %r5;", |a, b, _| (u64::from(a) << b.min(32)) as u32);
    words("shr.u32 %r7, %r4, %r5;", |a, b, _| (u64::from(a) >> b.min(32)) as u32);
    words("bfe.u32 %r7, %r4, 16, 1;", |a, _, _| a / 65536 % 2);
    words("bfe.u32 %r7, %r4, 4, 32;", |a, _, _| a / 16);
    words("bfi.b32 %r7, %r4, %r5, 6, 26;", |a, b, _| a.wrapping_mul(64) | (b % 64));
    words("bfi.b32 %r7, %r4, %r5, 8, 8;", |a, b, _| b & 0xffff_00ff | (a % 256 * 256));
}

/// The lower word of a long, or the upper one.
#[track_caller]
fn longs(instruction: &str, expected: impl Fn(u64, u64) -> u64) {
    let joined =
        "cvt.u64.u32 %rd5, %r4;\ncvt.u64.u32 %rd6, %r5;\nbfi.b64 %rd5, %rd5, %rd6, 32, 32;\ncvt.u64.u32 %rd6, %r6;";
    let join = |a: u32, b: u32| u64::from(a) << 32 | u64::from(b);
    words(&format!("{joined}\n{instruction}\ncvt.u32.u64 %r7, %rd7;"), |a, b, c| expected(join(a, b), c.into()) as u32);
    words(&format!("{joined}\n{instruction}\nshr.u64 %rd7, %rd7, 32;\ncvt.u32.u64 %r7, %rd7;"), |a, b, c| {
        (expected(join(a, b), c.into()) >> 32) as u32
    });
}

#[test]
fn longs_of_two_words() {
    longs("mov.u64 %rd7, %rd5;", |a, _| a);
    longs("add.s64 %rd7, %rd5, %rd6;", u64::wrapping_add);
    longs("add.s64 %rd7, %rd5, -1;", |a, _| a.wrapping_sub(1));
    longs("sub.s64 %rd7, %rd5, %rd6;", u64::wrapping_sub);
    longs("mul.lo.s64 %rd7, %rd5, %rd6;", u64::wrapping_mul);
    longs("and.b64 %rd7, %rd5, %rd6;", |a, b| a & b);
    longs("or.b64 %rd7, %rd5, %rd6;", |a, b| a | b);
    longs("shl.b64 %rd7, %rd5, %r6;", |a, b| (u128::from(a) << b.min(64)) as u64);
    longs("shr.u64 %rd7, %rd5, %r6;", |a, b| (u128::from(a) >> b.min(64)) as u64);
    longs("mul.wide.u32 %rd7, %r4, %r6;", |a, b| (a >> 32) * b);
    for (relation, holds) in [
        ("setp.lt.u64", u64::lt as fn(&u64, &u64) -> bool),
        ("setp.ge.u64", u64::ge),
        ("setp.eq.s64", u64::eq),
        ("setp.ne.s64", u64::ne),
    ] {
        let compare = format!(
            "cvt.u64.u32 %rd6, %r6;\ncvt.u64.u32 %rd5, %r4;\n{relation} %p1, %rd5, %rd6;\nselp.u32 %r7, 1, 0, %p1;"
        );
        words(&compare, |a, _, c| holds(&a.into(), &c.into()).into());
    }
}

#[test]
fn arithmetic_of_floats() {
    floats("add.f32 %f7, %f4, %f5;", |a, b, _| a + b);
    floats("sub.f32 %f7, %f4, %f5;", |a, b, _| a - b);
    floats("mul.f32 %f7, %f4, %f5;", |a, b, _| a * b);
    floats("fma.rn.f32 %f7, %f4, %f5, %f6;", f32::mul_add);
    floats("neg.f32 %f7, %f4;", |a, _, _| -a);
    floats("rcp.rn.f32 %f7, %f4;", |a, _, _| 1.0 / a);
    floats("sqrt.rn.f32 %f7, %f4;", |a, _, _| a.sqrt());
    floats("mov.f32 %f7, 0f3F000000;", |_, _, _| 0.5);
}

#[test]
fn conversions() {
    words("mov.b32 %f4, %r4;\ncvt.rzi.u32.f32 %r7, %f4;", |a, _, _| f32::from_bits(a) as u32);
    floats("cvt.rn.f32.u32 %f7, %r4;", |a, _, _| a.to_bits() as f32);
    floats("cvt.rn.f16.f32 %rs1, %f4;\ncvt.f32.f16 %f7, %rs1;", |a, _, _| half::f16::from_f32(a).to_f32());
}

#[test]
fn comparisons() {
    comparison("eq.s32", |a, b| a == b);
    comparison("eq.b32", |a, b| a == b);
    comparison("ne.b32", |a, b| a != b);
    comparison("ne.s32", |a, b| a != b);
    comparison("lt.u32", |a, b| a < b);
    comparison("le.u32", |a, b| a <= b);
    comparison("gt.u32", |a, b| a > b);
    comparison("ge.u32", |a, b| a >= b);
    comparison("lt.s32", |a, b| a.cast_signed() < b.cast_signed());
    let of = f32::from_bits;
    let either_nan = |a, b| of(a).is_nan() || of(b).is_nan();
    comparison("lt.f32", |a, b| of(a) < of(b));
    comparison("geu.f32", |a, b| of(a) >= of(b) || either_nan(a, b));
    comparison("gtu.f32", |a, b| of(a) > of(b) || either_nan(a, b));
    comparison("leu.f32", |a, b| of(a) <= of(b) || either_nan(a, b));
    comparison("neu.f32", |a, b| of(a) != of(b));
    comparison("ne.f32", |a, b| of(a) < of(b) || of(a) > of(b));
}

#[test]
fn predicates() {
    let two = "setp.lt.u32 %p1, %r4, %r5;\nsetp.lt.u32 %p2, %r5, %r6;";
    let after = "selp.u32 %r7, 1, 0, %p3;";
    words(&format!("{two}\nand.pred %p3, %p1, %p2;\n{after}"), |a, b, c| u32::from(a < b && b < c));
    words(&format!("{two}\nor.pred %p3, %p1, %p2;\n{after}"), |a, b, c| u32::from(a < b || b < c));
    words(&format!("{two}\nnot.pred %p3, %p1;\n{after}"), |a, b, _| u32::from(a >= b));
    words(&format!("{two}\nmov.u32 %r7, %r4;\n@%p1 mov.u32 %r7, %r5;\n@!%p2 mov.u32 %r7, %r6;"), |a, b, c| {
        if b >= c { c } else { a.max(b) }
    });
}

#[test]
fn loops_of_different_lengths() {
    // The sum of the numbers up to a thread's own, each going round as often as it needs.
    let sum = "
    mov.u32 %r7, 0;
    and.b32 %r8, %r4, 63;
$again:
    add.s32 %r7, %r7, %r8;
    setp.eq.s32 %p1, %r8, 0;
    @%p1 bra $end;
    sub.s32 %r8, %r8, 1;
    bra.uni $again;
$end:
    ";
    words(sum, |a, _, _| (a % 64) * (a % 64 + 1) / 2);
}
