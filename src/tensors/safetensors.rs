//! The safetensors format: tensors by name, and strings by key beside them.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Write};
use std::path::Path;

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::file::parse;
use super::{Tensor, TensorsError};
use crate::model::name_of;
use crate::proto::tensor_proto::DataType;
use crate::replace::replace;

const TYPES: [(Dtype, DataType); 13] = [
    (Dtype::F64, DataType::Double),
    (Dtype::F32, DataType::Float),
    (Dtype::F16, DataType::Float16),
    (Dtype::BF16, DataType::Bfloat16),
    (Dtype::I64, DataType::Int64),
    (Dtype::I32, DataType::Int32),
    (Dtype::I16, DataType::Int16),
    (Dtype::I8, DataType::Int8),
    (Dtype::U64, DataType::Uint64),
    (Dtype::U32, DataType::Uint32),
    (Dtype::U16, DataType::Uint16),
    (Dtype::U8, DataType::Uint8),
    (Dtype::BOOL, DataType::Bool),
];

/// The key of the header under which the format has the metadata.
const METADATA: &str = "__metadata__";

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    /// The tensors by name: stretches of the file, which is in memory once.
    pub tensors: BTreeMap<String, Tensor>,
    /// The strings by key.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a file.
///
/// # Errors
/// A file that cannot be read, is malformed, or holds a tensor of a type that [`Tensor`] does not have.
pub fn read(path: &Path) -> Result<Contents, TensorsError> {
    parse(path, contents)
}

fn contents(file: Bytes) -> Result<Contents, String> {
    let (header, entries) = SafeTensors::read_metadata(&file).map_err(|error| error.to_string())?;
    let data = file.slice(size_of::<u64>() + header..);
    let tensor = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (start, end) = info.data_offsets;
        let Some(&(_, elem)) = TYPES.iter().find(|(dtype, _)| *dtype == info.dtype) else {
            return Err(format!("'{name}' is of type {:?}, which is not supported", info.dtype));
        };
        let tensor = Tensor::new(elem, info.shape.clone(), data.slice(start..end));
        tensor.map(|tensor| (name.clone(), tensor)).map_err(|what| format!("'{name}': {what}"))
    };
    let tensors = entries.tensors().into_iter().map(tensor).collect::<Result<_, _>>()?;
    Ok(Contents { tensors, metadata: entries.metadata().clone().into_iter().flatten().collect() })
}

/// Puts a file of these tensors and this metadata in the place of what is at `path`. The same ones give the same bytes, in whatever
/// order they come.
///
/// # Errors
/// What the system says, and names that the format cannot hold: one twice, or that of the metadata. What was there is then still there.
pub fn save<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> std::io::Result<()> {
    replace(path, |file| write(file, tensors, metadata))
}

fn write<'a>(
    mut file: impl Write,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> std::io::Result<()> {
    let invalid = |what: String| Error::new(ErrorKind::InvalidInput, what);
    let mut entries = Vec::new();
    for (name, tensor) in tensors {
        let Some(&(dtype, _)) = TYPES.iter().find(|(_, elem)| *elem == tensor.elem()) else {
            return Err(invalid(format!("'{name}': a safetensors file holds no {}", name_of(tensor.elem()))));
        };
        entries.push((dtype, name, tensor));
    }
    // Wide elements first, so that each tensor is aligned.
    entries.sort_by_key(|&(dtype, name, _)| (std::cmp::Reverse(dtype.bitsize()), name));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.to_owned(), json!(metadata));
    }
    let mut end = 0;
    for (dtype, name, tensor) in &entries {
        let start = end;
        end += tensor.data().len();
        let entry: Value = json!({"dtype": dtype, "shape": tensor.shape(), "data_offsets": [start, end]});
        if *name == METADATA || header.insert((*name).to_owned(), entry).is_some() {
            return Err(invalid(format!("a second tensor of the name '{name}', or a reserved name")));
        }
    }
    let mut header = Value::Object(header).to_string();
    // The data begins where eight bytes do.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    entries.iter().try_for_each(|(_, _, tensor)| file.write_all(tensor.data()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tensors::load;

    fn written(tensors: &BTreeMap<String, Tensor>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
        let mut file = Vec::new();
        write(&mut file, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), metadata).expect("a file");
        file
    }

    fn sample() -> Contents {
        let tensors = [
            ("a", Tensor::of(&[2, 2], &[1.0_f32, -2.0, 3.5, f32::INFINITY])),
            ("b", Tensor::new(DataType::Bool, vec![3], Bytes::from_static(&[1, 0, 1])).expect("bools")),
            ("c", Tensor::scalar(-7_i64)),
            ("d", Tensor::of::<half::bf16>(&[0, 4], &[])),
            ("e", Tensor::of(&[1], &[u16::MAX])),
        ];
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into();
        Contents {
            tensors,
            metadata: [("step".to_owned(), "12".to_owned()), ("λ".to_owned(), "\"1\"".to_owned())].into(),
        }
    }

    #[test]
    fn another_reader_finds_what_was_written() {
        let Contents { tensors, metadata } = sample();
        let file = written(&tensors, &metadata);
        let found = SafeTensors::deserialize(&file).expect("a valid file");
        assert_eq!(found.len(), tensors.len());
        for (name, tensor) in &tensors {
            let view = found.tensor(name).expect("the tensor");
            assert_eq!((view.shape(), view.data()), (tensor.shape(), &tensor.data()[..]), "{name}");
        }
        assert_eq!(found.tensor("a").expect("the tensor").dtype(), Dtype::F32);
        assert_eq!(found.tensor("b").expect("the tensor").dtype(), Dtype::BOOL);
        assert_eq!(contents(file.into()).expect("a valid file"), Contents { tensors, metadata });
    }

    #[test]
    fn another_writer_is_understood() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file.safetensors");
        let view = |dtype, bytes| safetensors::tensor::TensorView::new(dtype, vec![2], bytes).expect("a view");
        let views = [("x", view(Dtype::I16, &[1, 0, 2, 1])), ("y", view(Dtype::F64, &[0; 16]))];
        let metadata = [("format".to_owned(), "pt".to_owned())];
        let file = safetensors::serialize(views, Some(metadata.clone().into())).expect("a file");
        std::fs::write(&path, file).expect("the file");
        let found = read(&path).expect("a valid file");
        let expected = [("x", Tensor::of(&[2], &[1_i16, 258])), ("y", Tensor::of(&[2], &[0.0_f64; 2]))];
        assert_eq!(found.tensors, expected.map(|(name, tensor)| (name.to_owned(), tensor)).into());
        assert_eq!(found.metadata, metadata.into());
        assert_eq!(load(&path).expect("a valid file"), found.tensors);
    }

    #[test]
    fn names_that_the_format_cannot_hold_are_refused() {
        let tensor = Tensor::scalar(1_u8);
        for names in [vec!["x", "x"], vec![METADATA]] {
            let error = write(Vec::new(), names.into_iter().map(|name| (name, &tensor)), &BTreeMap::new());
            assert_eq!(error.expect_err("no file").kind(), ErrorKind::InvalidInput);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damaged_files_never_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            length in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let Contents { tensors, metadata } = sample();
            let mut content = written(&tensors, &metadata);
            for (at, byte) in changes {
                let at = at.index(content.len());
                content[at] = byte;
            }
            content.truncate(length.map_or(content.len(), |length| length.index(content.len())));
            let _ = contents(content.into());
        }
    }
}
