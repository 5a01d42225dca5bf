//! New data of tensors that have theirs outside of the model file: they stay outside, in a file of their own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Edit, GraphId, Model, ModelError, external};
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{StringStringEntryProto, TensorProto};
use crate::replace::{Written, folder};

/// Where payloads begin: ONNX asks for multiples of a page, so that a runtime can map them.
const PAGE: u64 = 4096;

/// The data file of a model that is to be written.
pub(super) struct Outside {
    /// Where it lies.
    path: PathBuf,
    /// Each with its offset.
    payloads: Vec<(u64, Bytes)>,
}

impl Outside {
    /// Takes out of `edit` the new data of initializers that are external in `model`, for a model file at `target`; what is left of the edit
    /// refers to them. `None` if there are none.
    ///
    /// # Errors
    /// References to external data that cannot be followed.
    pub(super) fn take(model: &Model, edit: &Edit, target: &Path) -> Result<Option<(Edit, Self)>, ModelError> {
        let initializers = model.graph().initializers();
        let is_external = |at: &usize| initializers[*at].external_data().is_some();
        if !edit.graphs.get(&GraphId::Main).is_some_and(|graph| graph.initializers.keys().any(is_external)) {
            return Ok(None);
        }
        let mut outside = Self { path: place(model, target)?, payloads: Vec::new() };
        let mut edit = edit.clone();
        for (at, tensor) in &mut edit.graphs.entry(GraphId::Main).or_default().initializers {
            if let Some(payload) = tensor.raw_data.take_if(|_| is_external(at)) {
                outside.add(tensor, payload);
            }
        }
        Ok(Some((edit, outside)))
    }

    fn add(&mut self, tensor: &mut TensorProto, payload: Bytes) {
        let end = self.payloads.last().map_or(0, |(offset, payload)| offset + payload.len() as u64);
        let offset = end.next_multiple_of(PAGE);
        let location = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let entries = [("location", location), ("offset", offset.to_string()), ("length", payload.len().to_string())];
        tensor.external_data =
            entries.map(|(key, value)| StringStringEntryProto { key: Some(key.into()), value: Some(value) }).into();
        tensor.data_location = Some(DataLocation::External as i32);
        self.payloads.push((offset, payload));
    }

    /// Writes the file beside its place.
    ///
    /// # Errors
    /// Failing output.
    pub(super) fn write(&self) -> Result<Written, ModelError> {
        let write = |file: &mut File| {
            self.payloads.iter().try_for_each(|(offset, payload)| {
                file.seek(SeekFrom::Start(*offset))?;
                file.write_all(payload)
            })
        };
        Written::new(&self.path, write).map_err(self.failed())
    }

    /// What a failure to write it is.
    pub(super) fn failed(&self) -> impl Fn(std::io::Error) -> ModelError {
        let path = self.path.clone();
        move |source| ModelError::Write { path: path.clone(), source }
    }
}

/// Where new external data of `model` go if it is written to `target`: to `<target>.data`, or where that is a file of the old data, to
/// `<target>.1.data` and so on.
pub(super) fn place(model: &Model, target: &Path) -> Result<PathBuf, ModelError> {
    let old = external::locations(model, &Edit::default())?;
    let name = |number: usize| {
        let mut name = OsString::from(target.file_name().unwrap_or_default());
        name.push(if number == 0 { ".data".to_owned() } else { format!(".{number}.data") });
        name
    };
    let is_free = |name: &OsString| !old.iter().any(|location| location.file_name() == Some(name));
    let name = (0..).map(name).find(is_free).unwrap_or_default();
    Ok(folder(target).join(name))
}
