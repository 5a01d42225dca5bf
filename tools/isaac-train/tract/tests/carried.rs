//! What an engine keeps.

use isaac::runtime::{Engine, RuntimeError};
use isaac::tensors::Tensor;
use isaac::training_graph::Method;

use super::super::Tract;
use super::arrays::{group, part, recorded_steps};
use super::models::{CROSS_ENTROPY, momentum, network, program};

#[test]
fn what_is_carried() {
    let recorded = recorded_steps();
    let start = group(&recorded, "start/");
    let program = program(&network(&start), CROSS_ENTROPY, momentum(), Method::ZetaStar, &[]);
    let mut engine = Tract::new(&program).unwrap();
    let batch = |rows: &[usize], labels: &[i64]| {
        let x = part(&start["x"], 0).rows(rows);
        vec![("x", x), ("labels", Tensor::of(&[labels.len()], labels)), ("lr", Tensor::scalar(0.05_f32))]
    };
    let [first, before] = [engine.carried().unwrap(), engine.carried_before().unwrap()];
    assert_eq!(first, program.start().unwrap());
    assert_eq!(first, before);

    engine.step(&batch(&[0, 1, 2], &[0, 1, 2])).unwrap();
    let second = engine.carried().unwrap();
    assert_ne!(first, second);
    assert_eq!(engine.carried_before().unwrap(), first);

    // Another number of rows, another damping.
    let mut smaller = batch(&[3, 4], &[1, 1]);
    let loss = engine.step(&smaller).unwrap();
    let third = engine.carried().unwrap();
    assert_eq!(engine.carried_before().unwrap(), second);
    engine.restore(&second).unwrap();
    assert_eq!(engine.step(&smaller).unwrap(), loss);
    assert_eq!(engine.carried().unwrap(), third);
    engine.restore(&second).unwrap();
    smaller.push(("lambda_a", Tensor::scalar(1e-2_f32)));
    assert_eq!(engine.step(&smaller).unwrap(), loss);
    assert_ne!(engine.carried().unwrap(), third);

    // What fails changes nothing.
    let kept = (engine.carried().unwrap(), engine.carried_before().unwrap());
    let refusal = |result: Result<f64, RuntimeError>| result.unwrap_err().to_string();
    for (feeds, says) in [
        (batch(&[0, 1], &[0, 1, 2]), ""),
        (batch(&[0, 1], &[0, 4]), ""),
        (batch(&[0, 1], &[0, 1])[..2].to_vec(), "'lr'"),
        ([batch(&[0, 1], &[0, 1]), vec![("y", Tensor::scalar(0_f32))]].concat(), "'y'"),
        ([batch(&[0, 1], &[0, 1]), vec![("fc0.bias", first[0].clone())]].concat(), "'fc0.bias'"),
        ([batch(&[0, 1], &[0, 1]), vec![("x", Tensor::of(&[2, 5], &[0_f32; 10]))]].concat(), "'x' is 2,5,F32"),
        ([batch(&[0, 1], &[0, 1]), vec![("x", Tensor::of(&[2, 6], &[0_f64; 12]))]].concat(), "'x' is 2,6,F64"),
        ([batch(&[0, 1], &[0, 1]), vec![("lambda_a", Tensor::scalar(-1_f32))]].concat(), "lambda_a"),
    ] {
        let said = refusal(engine.step(&feeds));
        assert!(said.contains(says), "{said}");
    }
    assert!(engine.restore(&first[1..]).is_err());
    assert!(engine.restore(&first.iter().rev().cloned().collect::<Vec<_>>()).is_err());
    assert_eq!((engine.carried().unwrap(), engine.carried_before().unwrap()), kept);
}
