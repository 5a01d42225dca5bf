//! Faults put into the kernels and their launches, each of which has to be seen.

use super::*;

/// What comes of kernels with this text, after a change to their launches, which use all of a solve.
fn verdict(text: &str, change: impl Fn(&mut [Launch])) -> Result<(), String> {
    let module = Module::parse(text)?;
    for (rows, cols, stored_transposed) in [(33, 40, false), (33, 40, true), (150, 20, false), (150, 20, true)] {
        let values = random(rows, cols, 7);
        let damping = damping(rows);
        let mut prepared = Prepared::new(&values, stored_transposed, damping);
        change(&mut prepared.launches);
        prepared.run(&module, Order::Forward).map_err(|fault| fault.to_string())?;
        let expected = book::solve(damped(&values, damping.scale.into()), values);
        let error = error(&prepared.result(), &expected);
        if error.is_nan() || error > TOLERANCE {
            return Err(format!("the result is off by {error:.1e}"));
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

/// Each store to shared memory that is ever made, a word further.
#[test]
fn stores_off_by_one() {
    let mut made = 0;
    for (at, _) in KERNELS.match_indices("st.shared.f32") {
        let moved = |by: &str| verdict(&with_line(at, |line| line.replacen(']', by, 1)), |_| {});
        if moved("+1000000]").is_err() {
            made += 1;
            assert!(moved("+4]").is_err(), "nobody sees where line {} stores", number_of_line(at));
        }
    }
    assert!(made > 20, "{made}");
}

/// Each two arguments of a kind that are not the same, in each other's place.
#[test]
fn swapped_arguments() {
    let device = Device::default();
    for (rows, cols) in [(33, 40), (150, 20)] {
        let s = View { address: 0, rows, cols, stored_transposed: false };
        let solve = Solve { s, y: s, damping: damping(rows), result: device.allocate(4) };
        for (index, launch) in solve.launches(1 << 20, 2 << 20).iter().enumerate() {
            for first in 0..launch.arguments.len() {
                for second in first + 1..launch.arguments.len() {
                    let [a, b] = [&launch.arguments[first], &launch.arguments[second]];
                    if a == b || std::mem::discriminant(a) != std::mem::discriminant(b) {
                        continue;
                    }
                    let swap = |launches: &mut [Launch]| {
                        if launches[0].kernel == solve.launches(0, 0)[0].kernel {
                            launches[index].arguments.swap(first, second);
                        }
                    };
                    let found = verdict(KERNELS, swap);
                    assert!(
                        found.is_err(),
                        "nobody sees arguments {first} and {second} of launch {index} swapped: {launch:?}"
                    );
                }
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
    for kernel in ["solve", "product", "forward", "backward", "panel"] {
        let fewer = |launches: &mut [Launch]| {
            let wide = launches.iter_mut().find(|launch| launch.kernel == kernel && launch.grid[0] > 1);
            wide.into_iter().for_each(|launch| launch.grid[0] -= 1);
        };
        assert!(verdict(KERNELS, fewer).is_err(), "nobody misses a block of {kernel}");
    }
}
