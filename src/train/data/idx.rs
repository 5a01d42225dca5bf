//! The idx files of MNIST and its kin: 0, 0, the element type, the number of axes, each size as a big-endian u32, the elements.

use bytes::Bytes;

use crate::proto::tensor_proto::DataType;
use crate::tensors::Tensor;

/// The array of an idx file, and what it is called: `labels` if it has one axis, `images` otherwise. Bytes are class labels, which
/// become int64, or pixels, which become floats up to 1.
pub(super) fn read(file: &Bytes) -> Result<(&'static str, Tensor), String> {
    let &[0, 0, kind, rank, ..] = &file[..] else { return Err("it is no idx file".into()) };
    let elem = match kind {
        0x08 => DataType::Uint8,
        0x09 => DataType::Int8,
        0x0b => DataType::Int16,
        0x0c => DataType::Int32,
        0x0d => DataType::Float,
        0x0e => DataType::Double,
        _ => return Err(format!("idx files have no element type {kind}")),
    };
    let start = 4 + 4 * usize::from(rank);
    let sizes = file.get(4..start).ok_or("its header is cut off")?.chunks_exact(4);
    let shape: Vec<usize> =
        sizes.map(|size| size.iter().fold(0, |size, &byte| size << 8 | usize::from(byte))).collect();
    let name = if rank == 1 { "labels" } else { "images" };
    let stored = Tensor::new(elem, shape.clone(), file.slice(start..))?;
    let tensor = match elem {
        DataType::Uint8 if rank == 1 => {
            Tensor::new(DataType::Int64, shape, widened(stored.data(), |label| i64::from(label).to_le_bytes()))?
        }
        DataType::Uint8 => pixels(shape, stored.data())?,
        _ => stored.swap_bytes(),
    };
    Ok((name, tensor))
}

/// Images with the pixels 0 to 255 as floats from 0 to 1.
pub(super) fn pixels(shape: Vec<usize>, bytes: &[u8]) -> Result<Tensor, String> {
    Tensor::new(DataType::Float, shape, widened(bytes, |pixel| (f32::from(pixel) / 255.0).to_le_bytes()))
}

fn widened<const WIDTH: usize>(data: &[u8], widen: impl Fn(u8) -> [u8; WIDTH]) -> Bytes {
    let mut wide = Vec::with_capacity(data.len() * WIDTH);
    data.iter().for_each(|&byte| wide.extend_from_slice(&widen(byte)));
    wide.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(kind: u8, sizes: &[u32], data: &[u8]) -> Bytes {
        let rank = sizes.len() as u8;
        let sizes = sizes.iter().flat_map(|size| size.to_be_bytes());
        [0, 0, kind, rank].into_iter().chain(sizes).chain(data.iter().copied()).collect::<Vec<u8>>().into()
    }

    #[test]
    fn bytes_are_labels_or_pixels() {
        assert_eq!(read(&file(8, &[3], &[7, 0, 255])), Ok(("labels", Tensor::of(&[3], &[7_i64, 0, 255]))));
        let images = Tensor::of(&[2, 1, 2], &[0.0, 1.0, 0.2, 128.0 / 255.0_f32]);
        assert_eq!(read(&file(8, &[2, 1, 2], &[0, 255, 51, 128])), Ok(("images", images)));
    }

    #[test]
    fn other_types_stay_what_they_are() {
        let big = [1.5_f32, -2.0].map(f32::to_be_bytes).concat();
        assert_eq!(read(&file(13, &[2, 1], &big)), Ok(("images", Tensor::of(&[2, 1], &[1.5_f32, -2.0]))));
        assert_eq!(read(&file(11, &[1], &[1, 2])), Ok(("labels", Tensor::of(&[1], &[258_i16]))));
    }

    #[test]
    fn malformed_files_are_refused() {
        for (file, what) in [
            (Bytes::from_static(&[0, 0, 8]), "no idx file"),
            (file(10, &[1], &[1]), "no element type 10"),
            (Bytes::from_static(&[0, 0, 8, 2, 0, 0, 0, 1]), "cut off"),
            (file(8, &[3], &[1, 2]), "2 bytes do not fill"),
            (file(14, &[u32::MAX; 3], &[1, 2]), "do not fill"),
        ] {
            let error = read(&file).expect_err(what);
            assert!(error.contains(what), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_file_panics(kind in 7_u8..16, rank in 0_u8..4, rest in prop::collection::vec(0_u8..3, 0..30)) {
            let content = [&[0, 0, kind, rank][..], &rest].concat();
            if let Ok((_, tensor)) = read(&content.into()) {
                prop_assert_eq!(tensor.shape().len(), usize::from(rank));
            }
        }
    }
}
