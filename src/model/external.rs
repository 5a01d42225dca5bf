//! External data: tensors whose payload lies in a file beside the model (ONNX IR specification, "External Tensor Data").

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use rustix::fs::SeekFrom;

use super::{Edit, GraphEdit, Model, ModelError};
use crate::proto::StringStringEntryProto;
use crate::replace::{folder, replace};

/// Where a tensor's payload lies.
struct Reference {
    location: PathBuf,
    offset: u64,
    length: Option<u64>,
    /// What its dims and type say of its length.
    size: Option<u64>,
}

impl Reference {
    /// Reads the entries of a tensor whose payload has `size` bytes, as far as that is known.
    fn parse(entries: &[StringStringEntryProto], size: Option<u64>) -> Result<Self, String> {
        let get = |key: &str| entries.iter().find(|entry| entry.key() == key).map(|entry| entry.value());
        let number = |key: &str| match get(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{key} '{text}' is not a number")),
        };
        let location = PathBuf::from(get("location").filter(|location| !location.is_empty()).ok_or("no location")?);
        if !location.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("the location '{}' leaves the model's folder", location.display()));
        }
        let length = number("length")?.or(size);
        Ok(Self { location, offset: number("offset")?.unwrap_or(0), length, size })
    }

    /// The payload.
    fn read(&self, folder: &Path) -> std::io::Result<Vec<u8>> {
        let mut file = File::open(folder.join(&self.location))?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(self.offset))?;
        let mut payload = Vec::new();
        file.take(self.length.unwrap_or(u64::MAX)).read_to_end(&mut payload)?;
        Ok(payload)
    }

    /// Whether the data file in `folder` is there, inside it, and long enough.
    fn check(&self, folder: &Path) -> Result<(), String> {
        let path = folder.join(&self.location);
        let unusable = |error: std::io::Error| format!("{}: {error}", path.display());
        let real = path.canonicalize().map_err(unusable)?;
        if !real.starts_with(folder.canonicalize().map_err(unusable)?) {
            return Err(format!("the location '{}' leaves the model's folder by a link", self.location.display()));
        }
        let size = fs::metadata(&real).map_err(unusable)?.len();
        let end = self.offset.checked_add(self.length.unwrap_or(0)).ok_or("offset and length overflow")?;
        if end > size {
            return Err(format!("it ends at byte {end}, but {} has {size} bytes", path.display()));
        }
        if let (Some(length), Some(size)) = (self.length, self.size)
            && length != size
        {
            return Err(format!("it is said to have {length} bytes, and its dims and type take {size}"));
        }
        Ok(())
    }
}

/// The references to external data that are left after `edit`.
fn references(model: &Model, edit: &Edit) -> Result<Vec<(String, Reference)>, ModelError> {
    let mut found = Vec::new();
    let mut failed = None;
    for (id, graph) in model.graphs() {
        let replaced = edit.graphs.get(&id).map(|edit| edit.initializers.keys().copied().collect()).unwrap_or_default();
        graph.for_each_external(&replaced, &mut |tensor| match Reference::parse(tensor.entries, tensor.size) {
            Ok(reference) => found.push((tensor.name.to_owned(), reference)),
            Err(what) => failed = failed.take().or(Some((tensor.name.to_owned(), what))),
        });
    }
    match failed {
        Some((tensor, what)) => Err(ModelError::ExternalData { path: model.path.clone(), tensor, what }),
        None => Ok(found),
    }
}

/// Checks every reference of `model` to external data.
pub(super) fn check(model: &Model) -> Result<(), ModelError> {
    let folder = folder(&model.path);
    for (tensor, reference) in references(model, &Edit::default())? {
        reference.check(folder).map_err(|what| ModelError::ExternalData { path: model.path.clone(), tensor, what })?;
    }
    Ok(())
}

/// The tensors of `model` that have external data as initializers, with their data inside.
pub(super) fn embedded(model: &Model) -> Result<GraphEdit, ModelError> {
    let folder = folder(&model.path);
    let mut edit = GraphEdit::default();
    for (at, initializer) in model.graph.initializers().iter().enumerate() {
        let (Some(entries), Some(tensor)) = (initializer.external_data(), initializer.tensor()) else { continue };
        let unusable = |what| {
            let (path, tensor) = (model.path.clone(), initializer.name().to_owned());
            ModelError::ExternalData { path, tensor, what }
        };
        let reference = Reference::parse(entries, initializer.byte_size()).map_err(unusable)?;
        let payload = reference.read(folder).map_err(|error| unusable(error.to_string()))?;
        edit.initializers.insert(at, tensor.with_payload(payload.into()));
    }
    Ok(edit)
}

/// The data files of `model` that it needs after `edit`, relative to its folder.
pub(super) fn locations(model: &Model, edit: &Edit) -> Result<BTreeSet<PathBuf>, ModelError> {
    Ok(references(model, edit)?.into_iter().map(|(_, reference)| reference.location).collect())
}

/// The data files of `model` with `edit` that the folder of `target` lacks, each with its place there.
///
/// # Errors
/// Another file in such a place.
pub(super) fn missing(model: &Model, edit: &Edit, target: &Path) -> Result<Vec<(PathBuf, PathBuf)>, ModelError> {
    let (source, target) = (folder(&model.path), folder(target));
    let locations = locations(model, edit)?;
    if locations.is_empty() || same_folder(source, target) {
        return Ok(Vec::new());
    }
    let mut missing = Vec::new();
    for location in locations {
        let (from, to) = (source.join(&location), target.join(&location));
        let Ok(there) = File::open(&to) else {
            missing.push((from, to));
            continue;
        };
        let what = match File::open(&from).and_then(|file| same_content(file, there)) {
            Ok(true) => continue,
            Ok(false) => "another file of that name is there; choose an empty folder or remove it".to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(ModelError::CopyData { from, to, what });
    }
    Ok(missing)
}

/// Copies the data files of `model` with `edit` to the folder of `target`, where that is another folder.
pub(super) fn bring_along(model: &Model, edit: &Edit, target: &Path) -> Result<(), ModelError> {
    for (from, to) in missing(model, edit, target)? {
        copy(&from, &to).map_err(|error| ModelError::CopyData { from, to, what: error.to_string() })?;
    }
    Ok(())
}

fn same_folder(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn same_content(a: File, b: File) -> std::io::Result<bool> {
    let size = a.metadata()?.len();
    if b.metadata()?.len() != size {
        return Ok(false);
    }
    // Where both have a hole there is nothing to compare.
    let mut at = 0;
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    while let Some(next) = next_data(&a, at)?.into_iter().chain(next_data(&b, at)?).min() {
        let length = usize::try_from((size - next).min(left.len() as u64)).unwrap_or(left.len());
        std::os::unix::fs::FileExt::read_exact_at(&a, &mut left[..length], next)?;
        std::os::unix::fs::FileExt::read_exact_at(&b, &mut right[..length], next)?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
        at = next + length as u64;
    }
    Ok(true)
}

/// Copies a file with its permissions and its holes, so that a sparse file stays one.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder(to))?;
    let source = File::open(from)?;
    let metadata = source.metadata()?;
    replace(to, |target| {
        target.set_len(metadata.len())?;
        let mut at = 0;
        while let Some(start) = next_data(&source, at)? {
            let end = rustix::fs::seek(&source, SeekFrom::Hole(start))?;
            rustix::fs::seek(&source, SeekFrom::Start(start))?;
            rustix::fs::seek(&*target, SeekFrom::Start(start))?;
            std::io::copy(&mut (&source).take(end - start), target)?;
            at = end;
        }
        target.set_permissions(metadata.permissions())
    })
}

/// Where the next data of `file` begins, at or behind `at`.
fn next_data(file: &File, at: u64) -> std::io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok(Some(start)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
