//! Trains a rewritten training step in any ONNX Runtime, from Rust.
//!
//! ```text
//! isaac-rewrite onnx/spiral_step.onnx -o step.onnx --lambda 1
//! cargo run --release --example train libonnxruntime.so step.onnx target/release/libisaac.so
//! ```
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::error::Error;
use std::f32::consts::PI;

use libloading::Library;
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;

/// Gives `ort` the ONNX Runtime in this file. With `ort`'s feature `load-dynamic` it finds one by itself.
fn load_onnxruntime(path: &str) -> Result<(), Box<dyn Error>> {
    // SAFETY: the file is an ONNX Runtime, which exports OrtGetApiBase with this signature; it stays loaded for good.
    let api = unsafe {
        let library: &'static Library = Box::leak(Box::new(Library::new(path)?));
        let base = library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase")?();
        ((*base).GetApi)(ort::sys::ORT_API_VERSION).as_ref()
    };
    ort::set_api(api.ok_or("this ONNX Runtime is too old")?.clone());
    Ok(())
}

/// Two interleaved spirals: rows (x, y), and which spiral each row lies on.
fn spirals() -> (Vec<f32>, Vec<i64>) {
    let point = |row: i64| {
        let (t, turn) = ((row % 100 + 1) as f32 / 100.0, (row / 100) as f32 * PI);
        [t * (4.0 * t + turn).cos(), t * (4.0 * t + turn).sin()]
    };
    ((0..200).flat_map(point).collect(), (0..200).map(|row| row / 100).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, runtime, model, operators] = arguments.as_slice() else {
        return Err("usage: train libonnxruntime.so STEP.onnx libisaac.so".into());
    };
    load_onnxruntime(runtime)?;
    let environment = ort::init().build()?;
    let mut session = Session::builder(&environment)?.with_operator_library(operators)?.commit_from_file(model)?;

    let (points, labels) = spirals();
    let data: [(&str, SessionInputValue); 3] = [
        ("x", Tensor::from_array(([200, 2], points))?.into()),
        ("labels", Tensor::from_array(([200], labels))?.into()),
        ("learning_rate", Tensor::from_array(((), vec![3.0_f32]))?.into()),
    ];
    // Before the first step the weights have defaults; then each is what the last step made of it.
    let mut weights: Vec<(String, ort::value::DynValue)> = Vec::new();
    for step in 0..200 {
        let data = data.iter().map(|(name, value)| (Cow::from(*name), SessionInputValue::from(value.view())));
        let trained = weights.iter().map(|(name, value)| (Cow::from(name.as_str()), value.into()));
        let mut outputs = session.run(data.chain(trained).collect::<Vec<_>>())?;
        let loss = outputs["loss"].try_extract_tensor::<f32>()?.1[0];
        let names: Vec<String> =
            outputs.keys().filter_map(|name| name.strip_suffix(".updated")).map(Into::into).collect();
        let updated = names.into_iter().map(|name| {
            let value = outputs.remove(format!("{name}.updated")).expect("it is one of the outputs");
            (name, value)
        });
        weights = updated.collect();
        if step == 0 {
            println!("first loss {loss:.4}");
        } else if step == 199 {
            println!("last loss {loss:.4}");
        }
    }
    Ok(())
}
