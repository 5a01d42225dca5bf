//! NumPy's files: an array in an .npy file, arrays by name in an .npz archive of such files.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use bytes::Bytes;
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar, TypeStr};
use zip::ZipArchive;

use super::{Tensor, width};
use crate::proto::tensor_proto::DataType;

/// The arrays of an .npz file.
pub(super) fn read_archive(file: Bytes) -> Result<BTreeMap<String, Tensor>, String> {
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(|error| error.to_string())?;
    let mut tensors = BTreeMap::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).map_err(|error| error.to_string())?;
        let name = entry.name().map_err(|error| error.to_string())?;
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        let of_entry = |what: String| format!("'{name}': {what}");
        let mut content = Vec::new();
        let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        content.try_reserve_exact(size).map_err(|error| of_entry(error.to_string()))?;
        entry.read_to_end(&mut content).map_err(|error| of_entry(error.to_string()))?;
        let tensor = read_array(content.into()).map_err(of_entry)?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// The array of an .npy file.
pub(super) fn read_array(file: Bytes) -> Result<Tensor, String> {
    if !is_flat(&file) {
        return Err("it is no array of plain numbers".into());
    }
    let mut rest = &file[..];
    let header = NpyHeader::from_reader(&mut rest).map_err(|error| error.to_string())?;
    let dtype = header.dtype();
    let unfit = || format!("no tensor of ONNX has the type {}", dtype.descr());
    let DType::Plain(kind) = &dtype else { return Err(unfit()) };
    let elem = elem(kind).ok_or_else(unfit)?;
    let width = width(elem).ok_or_else(unfit)?;
    let shape: Result<Vec<usize>, _> = header.shape().iter().map(|&size| usize::try_from(size)).collect();
    let shape = shape.map_err(|error| error.to_string())?;
    let mut tensor = Tensor::new(elem, shape, file.slice_ref(rest))?;
    if kind.endianness() == Endianness::Big {
        tensor = tensor.swap_bytes();
    }
    if header.order() == Order::Fortran {
        tensor.data = last_axis_fastest(&tensor.data, &tensor.shape, width).into();
    }
    Ok(tensor)
}

/// Whether the header's text has at most the brackets of a dictionary and of a shape. What parses it descends into brackets
/// without end, which a file must not be able to make it do.
fn is_flat(file: &[u8]) -> bool {
    // Magic and version, the length of the text, the text.
    let (start, length) = match file {
        [_, _, _, _, _, _, 1, _, a, b, ..] => (10, u16::from_le_bytes([*a, *b]).into()),
        [_, _, _, _, _, _, _, _, a, b, c, d, ..] => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        _ => return true,
    };
    let text = file.iter().skip(start).take(length);
    text.filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count() <= 2
}

fn elem(kind: &TypeStr) -> Option<DataType> {
    Some(match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => DataType::Float,
        (TypeChar::Float, 8) => DataType::Double,
        (TypeChar::Float, 2) => DataType::Float16,
        (TypeChar::Int, 8) => DataType::Int64,
        (TypeChar::Int, 4) => DataType::Int32,
        (TypeChar::Int, 2) => DataType::Int16,
        (TypeChar::Int, 1) => DataType::Int8,
        (TypeChar::Uint, 8) => DataType::Uint64,
        (TypeChar::Uint, 4) => DataType::Uint32,
        (TypeChar::Uint, 2) => DataType::Uint16,
        (TypeChar::Uint, 1) => DataType::Uint8,
        (TypeChar::Bool, 1) => DataType::Bool,
        _ => return None,
    })
}

/// The elements, `width` bytes each, of an array of which the first axis is stored fastest.
fn last_axis_fastest(data: &[u8], shape: &[usize], width: usize) -> Vec<u8> {
    let count = data.len() / width;
    let mut ordered = Vec::with_capacity(data.len());
    for position in 0..count {
        let (mut rest, mut stride, mut source) = (position, count, 0);
        for &size in shape.iter().rev() {
            stride /= size;
            source += rest % size * stride;
            rest /= size;
        }
        ordered.extend_from_slice(&data[source * width..(source + 1) * width]);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tensors::load;

    fn numpy(name: &str) -> BTreeMap<String, Tensor> {
        load(&std::path::Path::new("tests/data").join(name)).expect("a file that NumPy wrote")
    }

    #[test]
    fn every_type_is_read() {
        let tensors = numpy("types.npz");
        // What tests/data/make.py stored under each name.
        let numbers = [0.0, 1.0, 2.0, 3.0, 4.0, 100.0];
        for (name, elem) in [
            ("f2", DataType::Float16),
            ("f4", DataType::Float),
            ("f8", DataType::Double),
            ("i1", DataType::Int8),
            ("i2", DataType::Int16),
            ("i4", DataType::Int32),
            ("i8", DataType::Int64),
            ("u1", DataType::Uint8),
            ("u2", DataType::Uint16),
            ("u4", DataType::Uint32),
            ("u8", DataType::Uint64),
        ] {
            for name in [name.to_owned(), format!("{name}_big_endian"), format!("{name}_fortran")] {
                let tensor = &tensors[&name];
                assert_eq!((tensor.elem(), tensor.shape()), (elem, &[2, 3][..]), "{name}");
                assert_eq!(tensor.to_f64s(), numbers, "{name}");
            }
        }
        assert_eq!(tensors["bool"], Tensor::new(DataType::Bool, vec![2], Bytes::from_static(&[1, 0])).expect("bools"));
        assert_eq!(tensors["scalar"], Tensor::scalar(2.5_f64));
        assert_eq!(tensors["none"], Tensor::of::<f32>(&[0, 3], &[]));
        let cube: Vec<i32> = (0..24).collect();
        assert_eq!(tensors["cube_fortran_big_endian"], Tensor::of(&[2, 3, 4], &cube));
        assert_eq!(tensors.len(), 37);
    }

    #[test]
    fn a_compressed_archive_is_read_and_an_array_alone_has_the_name_of_its_file() {
        assert_eq!(numpy("compressed.npz")["x"], Tensor::of(&[200], &[1.5_f32; 200]));
        assert_eq!(numpy("alone.npy"), [("alone".to_owned(), Tensor::of(&[3], &[1_i64, 2, 3]))].into());
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        for (name, what) in [("text.npy", "the type '<U1'"), ("complex.npy", "the type '<c8'"), ("record.npy", "plain")]
        {
            let error = load(&std::path::Path::new("tests/data").join(name)).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(what), "{error}");
        }
    }

    #[test]
    fn brackets_without_end_are_refused() {
        let file = [&b"\x93NUMPY\x02\x00\x00\x00\x10\x00"[..], &[b'['; 1 << 20]].concat();
        assert_eq!(read_array(file.into()).expect_err("no array"), "it is no array of plain numbers");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// What it is then may be an error or other numbers.
        #[test]
        fn damaged_files_never_panic(
            name in prop::sample::select(vec!["types.npz", "compressed.npz", "alone.npy"]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            length in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut content = std::fs::read(format!("tests/data/{name}")).expect("the file");
            for (at, byte) in changes {
                let at = at.index(content.len());
                content[at] = byte;
            }
            content.truncate(length.map_or(content.len(), |length| length.index(content.len())));
            let _ = read_archive(content.clone().into());
            let _ = read_array(content.into());
        }
    }
}
