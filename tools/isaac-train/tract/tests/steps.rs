//! Steps against what PyTorch recorded.

use isaac::model::Model;
use isaac::optimizer::{Moments, Optimizer, Update};
use isaac::runtime::Engine;
use isaac::tensors::Tensor;
use isaac::training_graph::{Distance, Method};

use super::super::Tract;
use super::arrays::{Arrays, group, npz, part, recorded_steps, relative_error};
use super::common::fixture;
use super::models::{CROSS_ENTROPY, by_name, momentum, network, normalized, program, sgd};

const RATE: f32 = 0.05;
/// As for ONNX Runtime: Adam's division magnifies roundings where gradients are small.
const TOLERANCE: f64 = 1e-5;

#[test]
fn ten_steps_are_those_of_pytorch() {
    let recorded = recorded_steps();
    let start = group(&recorded, "start/");
    let forward = network(&start);
    let nesterov = Optimizer::Momentum { momentum: 0.9, nesterov: true };
    for (name, update) in [
        ("sgd", sgd()),
        ("sgd_clip", Update { clip_norm: Some(0.2), ..sgd() }),
        ("momentum", momentum()),
        ("nesterov", Update { optimizer: nesterov, ..sgd() }),
        ("adam", Update { optimizer: Optimizer::Adam(Moments::default()), ..sgd() }),
        ("adamw", Update { optimizer: Optimizer::AdamW(Moments::default()), weight_decay: 0.1, clip_norm: None }),
    ] {
        let program = program(&forward, CROSS_ENTROPY, update, Method::Gradient, &[]);
        let mut engine = Tract::new(&program).unwrap();
        let mut losses = Vec::new();
        for at in 0..start["x"].shape()[0] {
            let [x, labels] = ["x", "labels"].map(|input| part(&start[input], at));
            let feeds = [("x", x), ("labels", labels), ("lr", Tensor::scalar(RATE))];
            // The graph that evaluates has no learning rate: as in ONNX Runtime, it takes what it has an input for.
            let evaluated = engine.evaluate(&feeds).unwrap();
            let loss = engine.step(&feeds).unwrap();
            assert_eq!(evaluated[1].shape(), [12, 4], "the predictions");
            assert!((evaluated[0].to_f64s()[0] - loss).abs() < 1e-6, "{name}: {evaluated:?}, {loss}");
            losses.push(loss);
        }
        let expected = group(&recorded, &format!("{name}/"));
        assert!(relative_error(&losses, &expected["losses"].to_f64s()) < TOLERANCE, "{name}: {losses:?}");
        let carried = by_name(&program, engine.carried().unwrap());
        for weight in ["fc0.weight", "fc0.bias", "fc1.weight", "fc1.bias"] {
            let [got, expected, before] = [&carried, &expected, &start].map(|arrays| arrays[weight].to_f64s());
            assert!(relative_error(&got, &expected) < TOLERANCE, "{name}: {weight}");
            assert!(relative_error(&before, &expected) > 1e-2, "{name}: {weight}");
        }
    }
}

#[test]
fn ten_steps_with_batch_normalization_are_those_of_pytorch() {
    let recorded = recorded_steps();
    let batches = group(&recorded, "start/");
    let mut start = group(&recorded, "normalized/start/");
    start.retain(|name, _| !name.contains("biased"));
    let decay = Update { weight_decay: 0.1, ..sgd() };
    let program = program(&normalized(&start), CROSS_ENTROPY, decay, Method::Gradient, &[]);
    let mut engine = Tract::new(&program).unwrap();
    let mut losses = Vec::new();
    for at in 0..10 {
        let [x, labels] = ["x", "labels"].map(|input| part(&batches[input], at));
        let rate = 0.05 - 0.04 * at as f64 / 9.0;
        let feeds = [("x", x), ("labels", labels), ("lr", Tensor::scalar(rate as f32))];
        losses.push(engine.step(&feeds).unwrap());
    }
    let expected = group(&recorded, "normalized/sgd_decay/");
    assert!(relative_error(&losses, &expected["losses"].to_f64s()) < TOLERANCE, "{losses:?}");
    let carried = by_name(&program, engine.carried().unwrap());
    let feeds = ["x", "labels"].map(|input| (input, part(&batches[input], 0)));
    let evaluated = engine.evaluate(&feeds).unwrap()[1].to_f64s();
    assert!(relative_error(&evaluated, &normalized_predictions(&carried, &feeds[0].1.to_f64s())) < TOLERANCE);
    assert!(carried.contains_key("1.running_var"));
    for (name, value) in carried {
        // ONNX updates the running variance with the biased variance of the batch.
        let expected = &expected[if name == "1.running_var" { "1.biased_var" } else { &name }];
        assert!(relative_error(&value.to_f64s(), &expected.to_f64s()) < TOLERANCE, "{name}");
    }
}

/// What the network with a batch normalization predicts from its running statistics.
fn normalized_predictions(carried: &Arrays, x: &[f64]) -> Vec<f64> {
    let array = |name: &str| carried[name].to_f64s();
    let linear = |layer: &str, x: &[f64]| -> Vec<f64> {
        let [weight, bias] = ["weight", "bias"].map(|name| array(&format!("{layer}.{name}")));
        let width = weight.len() / bias.len();
        let dot = |row: &[f64], w: &[f64]| row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        let outputs = |row| weight.chunks(width).zip(&bias).map(move |(w, b)| dot(row, w) + b);
        x.chunks(width).flat_map(outputs).collect()
    };
    let [mean, var, scale, bias] =
        ["running_mean", "running_var", "weight", "bias"].map(|name| array(&format!("1.{name}")));
    let mut y = linear("0", x);
    for (at, y) in y.iter_mut().enumerate() {
        let channel = at % mean.len();
        *y = ((*y - mean[channel]) / (var[channel] + 1e-5).sqrt() * scale[channel] + bias[channel]).tanh();
    }
    linear("3", &y)
}

#[test]
fn gradients_of_real_exports_are_those_of_pytorch() {
    for (name, distance) in [
        ("mlp_gemm_ts17", CROSS_ENTROPY),
        ("mlp_nobias_ts17", CROSS_ENTROPY),
        ("addmm_scaled_ts13", CROSS_ENTROPY),
        ("xT_linear_ts17", CROSS_ENTROPY),
        ("lora_merged_ts17", CROSS_ENTROPY),
        ("handmade_rnn_ts17", CROSS_ENTROPY),
        ("clip_contrastive_ts17", CROSS_ENTROPY),
        ("tied_ae_ts17", Distance::MeanSquaredError),
        ("mlp3d_ts15_dynshape", Distance::MeanSquaredError),
        ("weight_left_3d_ts17", Distance::MeanSquaredError),
    ] {
        let recorded = npz(&fixture(name).join("io.npz"));
        let forward = Model::load(&fixture(name).join("forward.onnx")).unwrap();
        let gradients = group(&recorded, "grad/");
        let trained: Vec<&str> = gradients.keys().map(String::as_str).collect();
        let program = program(&forward, distance, momentum(), Method::Gradient, &trained);
        let mut engine = Tract::new(&program).unwrap();
        let inputs = group(&recorded, "in/");
        let mut feeds: Vec<(&str, Tensor)> =
            inputs.iter().map(|(name, array)| (name.as_str(), array.clone())).collect();
        feeds.push((&program.map.labels[0], recorded["target"].clone()));
        feeds.push(("lr", Tensor::scalar(RATE)));
        let loss = engine.step(&feeds).unwrap();
        assert!(relative_error(&[loss], &recorded["loss"].to_f64s()) < 1e-6, "{name}: {loss}");
        // What momentum carries after the first step is the gradient.
        let carried = by_name(&program, engine.carried().unwrap());
        assert!(!gradients.is_empty());
        for (parameter, gradient) in gradients {
            let got = carried[&format!("{parameter}.momentum")].to_f64s();
            assert!(relative_error(&got, &gradient.to_f64s()) < 1e-6, "{name}: {parameter}");
        }
    }
}

#[test]
fn conditioned_training_lowers_the_loss() {
    let recorded = recorded_steps();
    let start = group(&recorded, "start/");
    for method in [Method::ZetaStar, Method::Zeta, Method::Kfac] {
        let program = program(&network(&start), CROSS_ENTROPY, sgd(), method, &[]);
        let mut engine = Tract::new(&program).unwrap();
        let mut losses = Vec::new();
        for step in 0..30 {
            let [x, labels] = ["x", "labels"].map(|input| part(&start[input], 0));
            let mut feeds = vec![("x", x), ("labels", labels), ("lr", Tensor::scalar(0.5_f32))];
            if method != Method::ZetaStar {
                feeds.push(("seed", Tensor::scalar(step as i64)));
            }
            if method == Method::Zeta {
                feeds.push(("lambda_g", Tensor::scalar(1_f32)));
            }
            losses.push(engine.step(&feeds).unwrap());
        }
        assert!(losses[29] < 0.5 * losses[0], "{method:?}: {losses:?}");
    }
}
