//! The operator against its formula.

use faer::Mat;
use faer::prelude::Solve;
use half::f16;
use isaac::model::{ParameterEntry, TrainingMap};
use isaac::proto::tensor_proto::DataType;
use isaac::proto::{AttributeProto, OperatorSetIdProto};
use isaac::runtime::{Engine, Program};
use isaac::tensors::Tensor;

use super::super::Tract;
use super::arrays::relative_error;
use super::common::{model, tensor};
use super::models::{int, load, message, node, tensor_type};

/// A training graph of one node, whose loss is 0 and whose carried value W becomes the node's output.
fn layer(
    elem: DataType,
    shapes: &[(&str, &[i64])],
    inputs: &[&str],
    attributes: Vec<AttributeProto>,
    output: [usize; 2],
) -> Program {
    let declared = |name: &str, shape: &[i64]| {
        let mut value = tensor(name, shape);
        tensor_type(&mut value).elem_type = Some(elem as i32);
        value
    };
    let mut gemm = node("IsaacGemm", inputs, "W.updated");
    gemm.domain = Some("ai.isaac".into());
    gemm.attribute = attributes;
    let shape = output.map(|size| size as i64);
    let mut graph_inputs: Vec<_> = shapes.iter().map(|(name, shape)| declared(name, shape)).collect();
    graph_inputs.push(declared("W", &shape));
    graph_inputs.push(tensor("loss", &[]));
    let mut model = model(vec![gemm], graph_inputs, vec![tensor("loss", &[]), declared("W.updated", &shape)]);
    model.opset_import.push(OperatorSetIdProto { domain: Some("ai.isaac".into()), version: Some(1) });
    let zeros = vec![0_u8; output[0] * output[1] * isaac::tensors::width(elem).unwrap()];
    let start = Tensor::new(elem, output.to_vec(), zeros.into()).unwrap();
    model.graph.as_mut().unwrap().initializer = vec![message("W", &start)];
    let parameter =
        ParameterEntry { name: "W".into(), input: "W".into(), gradient: None, updated: Some("W.updated".into()) };
    let map = TrainingMap { loss: Some("loss".into()), parameters: vec![parameter], ..TrainingMap::default() };
    Program { training: load(&model), map, evaluation: None }
}

/// Numbers in [-1, 1) without a pattern, which all types of the operator hold.
fn noise(rows: usize, cols: usize, seed: u64) -> Mat<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Mat::from_fn(rows, cols, |_, _| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f16::from_f64((state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0).to_f64()
    })
}

fn stored(elem: DataType, matrix: &Mat<f64>) -> Tensor {
    let elements: Vec<f64> =
        (0..matrix.nrows() * matrix.ncols()).map(|i| matrix[(i / matrix.ncols(), i % matrix.ncols())]).collect();
    let shape = [matrix.nrows(), matrix.ncols()];
    match elem {
        DataType::Float => Tensor::of(&shape, &elements.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        DataType::Double => Tensor::of(&shape, &elements),
        DataType::Float16 => Tensor::of(&shape, &elements.iter().map(|&x| f16::from_f64(x)).collect::<Vec<_>>()),
        other => panic!("{other:?}"),
    }
}

/// I + xᵀx/(bλ).
fn damped(x: &Mat<f64>, rows: usize, lambda: f64) -> Mat<f64> {
    x.transpose() * x * faer::Scale(1.0 / (rows as f64 * lambda)) + Mat::<f64>::identity(x.ncols(), x.ncols())
}

#[test]
fn the_operator_is_its_formula() {
    let (lambda_a, lambda_g) = (0.5, 0.25);
    for [b, n, m] in [[1, 3, 2], [12, 30, 20], [30, 12, 20], [40, 33, 9]] {
        let (g, a, g_bar) = (noise(b, m, 1), noise(b, n, 2), noise(2 * b, m, 3));
        let zeta_star =
            damped(&a, b, lambda_a).partial_piv_lu().solve((g.transpose() * &a).transpose()).transpose().to_owned();
        let zeta = damped(&g_bar, b, lambda_g).partial_piv_lu().solve(&zeta_star);
        for (elem, tolerance) in [(DataType::Float, 2e-6), (DataType::Double, 1e-12), (DataType::Float16, 2e-3)] {
            for (is_zeta, expected) in [(false, &zeta_star), (true, &zeta)] {
                let (b, n, m) = (b as i64, n as i64, m as i64);
                let shapes: [(&str, &[i64]); 5] =
                    [("G", &[b, m]), ("A", &[n, b]), ("lambda_a", &[]), ("GBar", &[2 * b, m]), ("lambda_g", &[])];
                let count = if is_zeta { 5 } else { 3 };
                let names: Vec<&str> = shapes.iter().map(|(name, _)| *name).take(count).collect();
                let program = layer(elem, &shapes[..count], &names, vec![int("transA", 1)], [m as usize, n as usize]);
                let mut engine = Tract::new(&program).unwrap();
                let scalar = |value: f64| {
                    Tensor::new(elem, vec![], stored(elem, &Mat::from_fn(1, 1, |_, _| value)).data().clone())
                };
                let values = [
                    stored(elem, &g),
                    stored(elem, &a.transpose().to_owned()),
                    scalar(lambda_a).unwrap(),
                    stored(elem, &g_bar),
                    scalar(lambda_g).unwrap(),
                ];
                let mut feeds: Vec<(&str, Tensor)> = names.iter().copied().zip(values).collect();
                feeds.push(("loss", Tensor::scalar(0_f32)));
                engine.step(&feeds).unwrap();
                let got = engine.carried().unwrap()[0].to_f64s();
                let expected = stored(DataType::Double, expected).to_f64s();
                let error = relative_error(&got, &expected);
                assert!(error < tolerance, "{elem:?} {b} {n} {m} zeta {is_zeta}: {error:e}");
            }
        }
    }
}
