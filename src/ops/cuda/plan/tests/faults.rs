//! Faults put into the kernels and their launches, each of which has to be seen.

use std::sync::LazyLock;

use super::*;

/// A solve of which the precision is known.
struct Case {
    values: Matrix,
    stored_transposed: bool,
    damping: Damping,
    is_in_doubles: bool,
}

/// These use all of a solve, in floats and in doubles, and are close to where the one becomes the other.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let module = module();
    let mut cases = Vec::new();
    for (rows, cols) in [(33, 40), (160, 20)] {
        for stored_transposed in [false, true] {
            let case = |values, damping, is_in_doubles| Case { values, stored_transposed, damping, is_in_doubles };
            cases.push(case(badly_conditioned(rows, cols), damping(rows), true));
            let values = random(rows, cols, 7);
            let scaled = |exponent: f32| Damping { scale: exponent.exp2(), lambda: 1.0 };
            let is_in_doubles = |exponent| {
                let prepared = Prepared::new(&values, stored_transposed, scaled(exponent));
                prepared.run(&module, Order::Forward).expect("no fault").double_flops > 0
            };
            let (mut enough, mut too_much) = (-8.0, 8.0);
            while too_much - enough > 0.0005 {
                let middle = f32::midpoint(enough, too_much);
                *(if is_in_doubles(middle) { &mut too_much } else { &mut enough }) = middle;
            }
            cases.push(case(values.clone(), scaled(enough), false));
            cases.push(case(values.clone(), scaled(too_much), true));
        }
    }
    cases
});

impl Case {
    /// What comes of these kernels, after a change to their launches.
    fn verdict(&self, module: &Module, change: impl Fn(&mut [Launch])) -> Result<(), String> {
        let Self { values, stored_transposed, damping, is_in_doubles } = self;
        let mut prepared = Prepared::new(values, *stored_transposed, *damping);
        change(&mut prepared.launches);
        let report = prepared.run(module, Order::Forward).map_err(|fault| fault.to_string())?;
        // Doubles would make good what is wrong in floats.
        if (report.double_flops > 0) != *is_in_doubles {
            return Err("it is computed in the wrong precision".to_owned());
        }
        let expected = book::solve(damped(values, damping.scale.into()), values.clone());
        let error = error(&prepared.result(), &expected);
        if error.is_nan() || error > TOLERANCE {
            return Err(format!("the result is off by {error:.1e}"));
        }
        Ok(())
    }
}

/// What comes of kernels with this text, after a change to their launches.
fn verdict(text: &str, change: impl Fn(&mut [Launch])) -> Result<(), String> {
    let module = Module::parse(text)?;
    CASES.iter().try_for_each(|case| case.verdict(&module, &change))?;
    sampled_verdict(&module, &change)
}

fn prepared_sampled(stored_transposed: bool) -> (PreparedSampled, Matrix) {
    let (g, g_bar) = (random(20, 40, 1), random(33, 40, 2));
    (PreparedSampled::new([&g, &g_bar], stored_transposed), sampled_by_the_book(&g, &g_bar))
}

/// The same of the kernels that only sampled gradients have.
fn sampled_verdict(module: &Module, change: impl Fn(&mut [Launch])) -> Result<(), String> {
    for stored_transposed in [false, true] {
        let (mut prepared, expected) = prepared_sampled(stored_transposed);
        change(&mut prepared.launches);
        let got = prepared.run(module, Order::Forward).map_err(|fault| fault.to_string())?;
        let error = error(&got, &expected);
        if error.is_nan() || error > TOLERANCE {
            return Err(format!("what is taken off for sampled gradients is off by {error:.1e}"));
        }
    }
    Ok(())
}

/// The text with the line at `at` replaced.
fn with_line(at: usize, change: impl Fn(&str) -> String) -> String {
    let start = KERNELS[..at].rfind('\n').unwrap() + 1;
    let end = at + KERNELS[at..].find('\n').unwrap();
    format!("{}{}{}", &KERNELS[..start], change(&KERNELS[start..end]), &KERNELS[end..])
}

fn number_of_line(at: usize) -> usize {
    KERNELS[..at].lines().count()
}

#[test]
fn nothing_is_wrong_without_a_fault() {
    assert_eq!(verdict(KERNELS, |_| {}), Ok(()));
}

#[test]
fn each_barrier_is_needed() {
    let barriers: Vec<usize> = KERNELS.match_indices("bar.sync").map(|(at, _)| at).collect();
    assert!(barriers.len() > 10);
    for at in barriers {
        let without = with_line(at, |_| String::new());
        assert!(verdict(&without, |_| {}).is_err(), "nobody misses the barrier on line {}", number_of_line(at));
    }
}

/// Each store to a block's own memory that is ever made, an element further: to shared memory, and to the triangles of doubles.
#[test]
fn stores_off_by_one() {
    // What solves in one launch comes first.
    let solves = ..KERNELS.find(".entry probe(").expect("it is the next kernel");
    let is_own = |store, at| store != "st.global.f64" || solves.contains(&at);
    for (store, further, least) in
        [("st.shared.f32", "+4]", 20), ("st.shared.f64", "+8]", 20), ("st.global.f64", "+8]", 4)]
    {
        let mut made = 0;
        for (at, _) in KERNELS.match_indices(store).filter(|(at, _)| is_own(store, *at)) {
            let moved = |by: &str| verdict(&with_line(at, |line| line.replacen(']', by, 1)), |_| {});
            if moved("+1000000]").is_err() {
                made += 1;
                assert!(moved(further).is_err(), "nobody sees where line {} stores", number_of_line(at));
            }
        }
        assert!(made > least, "{store}: {made}");
    }
}

/// Each two arguments of a kind that are not the same, in each other's place.
#[test]
fn swapped_arguments() {
    let module = module();
    for order in [33, 160] {
        let cases: Vec<&Case> = CASES.iter().filter(|case| case.values.len() == order).collect();
        let launches = Prepared::new(&cases[0].values, false, damping(order)).launches;
        swap_each_two(&launches, |swap| cases.iter().any(|case| case.verdict(&module, swap).is_err()));
    }
    let (PreparedSampled { launches, .. }, _) = prepared_sampled(false);
    swap_each_two(&launches, |swap| sampled_verdict(&module, swap).is_err());
}

fn swap_each_two(launches: &[Launch], is_seen: impl Fn(&dyn Fn(&mut [Launch])) -> bool) {
    for (index, launch) in launches.iter().enumerate() {
        // The launches of a kernel are made in one place.
        if launches[..index].iter().any(|earlier| earlier.kernel == launch.kernel) {
            continue;
        }
        for first in 0..launch.arguments.len() {
            for second in first + 1..launch.arguments.len() {
                let [a, b] = [&launch.arguments[first], &launch.arguments[second]];
                if a == b || std::mem::discriminant(a) != std::mem::discriminant(b) {
                    continue;
                }
                assert!(
                    is_seen(&|launches| launches[index].arguments.swap(first, second)),
                    "nobody sees arguments {first} and {second} of launch {index} swapped: {launch:?}"
                );
            }
        }
    }
}

#[test]
fn too_little_shared_memory_and_too_few_blocks() {
    let shorter = |launches: &mut [Launch]| {
        launches.iter_mut().for_each(|launch| launch.shared_bytes = launch.shared_bytes.saturating_sub(8));
    };
    assert!(verdict(KERNELS, shorter).unwrap_err().contains("outside of shared memory"));
    for kernel in [
        "solve",
        "solve_f64",
        "product",
        "forward",
        "backward",
        "panel",
        "product_f32_f64",
        "product_f64",
        "forward_f64",
        "backward_f64",
        "panel_f64",
    ] {
        let fewer = |launches: &mut [Launch]| {
            let wide = launches.iter_mut().find(|launch| launch.kernel == kernel && launch.grid[0] > 1);
            wide.into_iter().for_each(|launch| launch.grid[0] -= 1);
        };
        assert!(verdict(KERNELS, fewer).is_err(), "nobody misses a block of {kernel}");
    }
}
