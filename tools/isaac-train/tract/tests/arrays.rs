//! Arrays that were recorded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use isaac::proto::tensor_proto::DataType;
use isaac::tensors::Tensor;

pub(crate) type Arrays = BTreeMap<String, Tensor>;

/// The arrays of an .npz file.
pub(crate) fn npz(path: &Path) -> Arrays {
    let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut arrays = Arrays::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).unwrap();
        let name = entry.name().unwrap().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let array = npyz::NpyFile::new(bytes.as_slice()).unwrap();
        let elem = match array.dtype().descr().as_str() {
            "'<f4'" => DataType::Float,
            "'<i8'" => DataType::Int64,
            other => panic!("{name} is of type {other}"),
        };
        let shape: Vec<usize> = array.shape().iter().map(|&size| size as usize).collect();
        let count: usize = shape.iter().product();
        let width = if elem == DataType::Float { 4 } else { 8 };
        let data = bytes.split_off(bytes.len() - count * width);
        arrays.insert(name, Tensor::new(elem, shape, data.into()).unwrap());
    }
    arrays
}

/// Those whose names begin with `prefix`, without it.
pub(crate) fn group(arrays: &Arrays, prefix: &str) -> Arrays {
    arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()))).collect()
}

/// Part `at` along the first axis.
pub(crate) fn part(tensor: &Tensor, at: usize) -> Tensor {
    let shape = tensor.shape()[1..].to_vec();
    Tensor::new(tensor.elem(), shape, tensor.rows(&[at]).data().clone()).unwrap()
}

/// The largest error, relative to the largest element of what is expected.
pub(crate) fn relative_error(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-30, |largest: f64, x| largest.max(x.abs()));
    got.iter().zip(expected).fold(0.0, |worst: f64, (got, expected)| {
        let error = (got - expected).abs();
        if error.is_nan() { f64::INFINITY } else { worst.max(error / largest) }
    })
}

/// What PyTorch recorded of ten steps, see onnx/pytorch_steps.py.
pub(crate) fn recorded_steps() -> Arrays {
    npz(&Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/pytorch_steps.npz"))
}
