//! An ONNX model in memory: load, save, external data, a graph index, types and shapes.
//!
//! A model file is mapped, not read. Its structure (nodes, names, types) is decoded; tensor payloads stay where they are, and
//! so does every byte that no edit touches: [`Model::save`] writes the file as a list of pieces, most of which come straight from
//! the map. Loading and saving without an edit gives identical bytes, unknown fields included.
//!
//! ```
//! use isaac::model::{Edit, Model};
//! # fn main() -> Result<(), isaac::model::ModelError> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
//! # std::fs::copy("tests/fixtures/mlp_gemm_ts17/forward.onnx", &input).unwrap();
//! let model = Model::load(&input)?;
//! println!("{} nodes", model.graph().nodes().len());
//! model.save(&Edit::default(), &output)?;
//! # assert_eq!(std::fs::read(input).unwrap(), std::fs::read(output).unwrap());
//! # Ok(())
//! # }
//! ```

mod builder;
mod check;
mod constant;
mod digest;
mod edit;
mod equation;
mod error;
mod external;
mod graph;
mod index;
mod infer;
mod node;
mod outside;
mod training_map;
mod types;
mod wire;

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use wildmatch::WildMatch;

pub(crate) use builder::{Builder, needed_for, rename};
pub use edit::{Edit, GraphEdit};
pub use equation::Equation;
pub use error::ModelError;
pub use graph::{Graph, Initializer};
pub(crate) use index::free_names;
pub use index::{Index, IndexError, NodeId, Producer, Value, ValueId};
pub(crate) use infer::from_front;
pub use infer::{Element, Types, broadcast};
pub use node::NodeExt;
pub use training_map::{Carried, Classes, ParameterEntry, StateEntry, TRAINING_METADATA, TrainingMap};
pub(crate) use types::working_type;
pub use types::{Dim, TensorType, is_float, name_of};

use crate::proto::{FunctionProto, OperatorSetIdProto, StringStringEntryProto};
use crate::replace::Written;
use outside::Outside;
use wire::Field;

/// The default operator domain, `ai.onnx`, as files write it.
pub const ONNX_DOMAIN: &str = "";

/// The domain of ONNX's own training operators: Gradient, Adam, Adagrad, Momentum.
pub const PREVIEW_TRAINING_DOMAIN: &str = "ai.onnx.preview.training";

/// Which graph of a model: the main one, or one of a `TrainingInfoProto` (ONNX IR specification, "Training related information").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GraphId {
    /// `ModelProto.graph`.
    Main,
    /// `ModelProto.training_info[i].algorithm`.
    Algorithm(usize),
}

/// One `TrainingInfoProto`.
#[derive(Debug)]
pub struct TrainingInfo {
    algorithm: Option<Graph>,
    update_binding: Vec<StringStringEntryProto>,
    record: Field,
}

impl TrainingInfo {
    /// The training step, where the model has one.
    pub fn algorithm(&self) -> Option<&Graph> {
        self.algorithm.as_ref()
    }

    /// Pairs (initializer, output of the algorithm that replaces it after a step).
    pub fn update_binding(&self) -> impl Iterator<Item = (&str, &str)> {
        self.update_binding.iter().map(|entry| (entry.key(), entry.value()))
    }
}

/// A loaded model file.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    /// The file behind `bytes`, where there is one.
    file: Option<File>,
    bytes: Bytes,
    ir_version: i64,
    opset_imports: Vec<(Field, OperatorSetIdProto)>,
    metadata: Vec<(Field, StringStringEntryProto)>,
    graph: Graph,
    training_info: Vec<TrainingInfo>,
    functions: Vec<FunctionProto>,
}

impl Model {
    /// Maps the file at `path` and decodes its structure. Tensor payloads are neither read nor copied.
    ///
    /// # Errors
    /// A file that cannot be read, is no ONNX model, holds tensors whose data are not of their shapes or nodes that are not in an order of
    /// execution, or refers to external data that is missing, of another size, or outside the model's folder.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let (file, bytes) = map(path).map_err(|source| ModelError::Read { path: path.into(), source })?;
        let model = Self { file: Some(file), ..Self::decode(path, bytes)? };
        check::check(&model)?;
        external::check(&model)?;
        Ok(model)
    }

    /// Decodes a model from memory. External data, if any, is neither looked for nor checked.
    ///
    /// # Errors
    /// Bytes that are no ONNX model; the error calls it `name`.
    pub fn from_bytes(name: &str, bytes: Bytes) -> Result<Self, ModelError> {
        Self::decode(Path::new(name), bytes)
    }

    fn decode(path: &Path, bytes: Bytes) -> Result<Self, ModelError> {
        let malformed = |source| ModelError::Wire { path: path.into(), source };
        let invalid = |part: String| move |source| ModelError::Decode { path: path.into(), part, source };
        let mut graphs = Vec::new();
        let mut ir_version = 0;
        let mut opset_imports = Vec::new();
        let mut metadata = Vec::new();
        let mut training_info = Vec::new();
        let mut functions = Vec::new();
        for field in wire::fields(&bytes, 0..bytes.len()).map_err(malformed)? {
            let payload = || bytes.slice(field.payload.clone());
            match field.number {
                1 => ir_version = wire::integer(&bytes, &field),
                7 if field.delimited => graphs.push(Graph::decode(path, &bytes, field)?),
                8 => {
                    let import = OperatorSetIdProto::decode(payload()).map_err(invalid("opset_import".into()))?;
                    opset_imports.push((field, import));
                }
                14 => {
                    let entry = StringStringEntryProto::decode(payload()).map_err(invalid("metadata_props".into()))?;
                    metadata.push((field, entry));
                }
                25 => functions.push(FunctionProto::decode(payload()).map_err(invalid("functions".into()))?),
                20 if field.delimited => training_info.push(decode_training_info(path, &bytes, field)?),
                _ => {}
            }
        }
        let graph = match graphs.len() {
            1 => graphs.swap_remove(0),
            count => {
                return Err(ModelError::GraphCount { path: path.into(), count });
            }
        };
        Ok(Self {
            path: path.into(),
            file: None,
            bytes,
            ir_version,
            opset_imports,
            metadata,
            graph,
            training_info,
            functions,
        })
    }

    /// Where the model was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The main graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// All graphs that may hold a training step: the main one, then the algorithm of each training info.
    pub fn graphs(&self) -> impl Iterator<Item = (GraphId, &Graph)> {
        let algorithms = self.training_info.iter().enumerate();
        std::iter::once((GraphId::Main, &self.graph))
            .chain(algorithms.filter_map(|(i, info)| Some((GraphId::Algorithm(i), info.algorithm()?))))
    }

    /// One of [`Model::graphs`].
    ///
    /// # Panics
    /// If the model has no such graph.
    pub fn graph_of(&self, id: GraphId) -> &Graph {
        match id {
            GraphId::Main => &self.graph,
            GraphId::Algorithm(i) => self.training_info[i].algorithm().expect("a graph of this model"),
        }
    }

    /// The index of one of [`Model::graphs`]. The algorithm of a training info also sees the initializers of the main graph.
    ///
    /// # Errors
    /// [`ModelError::Graph`]: a value that is defined twice or not at all, or a cycle.
    ///
    /// # Panics
    /// If the model has no such graph.
    pub fn index(&self, id: GraphId) -> Result<Index, ModelError> {
        let outer = match id {
            GraphId::Main => &[][..],
            GraphId::Algorithm(_) => self.graph.initializers(),
        };
        Index::new(self.graph_of(id), outer).map_err(|source| ModelError::Graph { path: self.path.clone(), source })
    }

    /// The training infos.
    pub fn training_info(&self) -> &[TrainingInfo] {
        &self.training_info
    }

    /// The version of the ONNX IR that the file is written in.
    pub fn ir_version(&self) -> i64 {
        self.ir_version
    }

    /// The functions that nodes may call (ONNX IR specification, "Functions").
    pub fn functions(&self) -> &[FunctionProto] {
        &self.functions
    }

    /// The value of a metadata property.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(_, entry)| entry.key() == key).map(|(_, entry)| entry.value())
    }

    /// The imported version of an operator set; `""` and `ai.onnx` are the same domain.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let is_wanted = |import: &&OperatorSetIdProto| canonical_domain(import.domain()) == canonical_domain(domain);
        self.opset_imports.iter().map(|(_, import)| import).find(is_wanted).map(|import| import.version())
    }

    /// Writes the model with `edit` applied to `path`: to a temporary file beside it first, which is then renamed, so that
    /// `path` holds the old file or the whole new one, never a part. External data that lies in another folder is copied along, and new data of
    /// an initializer that has external ones go to a file of their own, `<path>.data`.
    ///
    /// # Errors
    /// Failing input or output, or a file in the target folder that holds other external data under the same name.
    pub fn save(&self, edit: &Edit, path: &Path) -> Result<(), ModelError> {
        Self::save_all(&[(self, edit, path)])
    }

    /// The same of several models: the first file takes its place when all are written.
    ///
    /// # Errors
    /// Those of [`Model::save`]; then no file is changed, unless it is one of the renames at the end that fails.
    pub fn save_all(files: &[(&Self, &Edit, &Path)]) -> Result<(), ModelError> {
        let taken: Vec<Option<(Edit, Outside)>> =
            files.iter().map(|(model, edit, path)| Outside::take(model, edit, path)).collect::<Result<_, _>>()?;
        for (model, edit, path) in files {
            external::bring_along(model, edit, path)?;
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelError::Write { path, source }
        };
        let data: Vec<(Written, &Outside)> = taken
            .iter()
            .flatten()
            .map(|(_, outside)| Ok((outside.write()?, outside)))
            .collect::<Result<_, ModelError>>()?;
        let written: Vec<Written> = files
            .iter()
            .zip(&taken)
            .map(|((model, edit, path), taken)| {
                let edit = taken.as_ref().map_or(*edit, |(edit, _)| edit);
                edit.write(model, path).map_err(failed(path))
            })
            .collect::<Result<_, _>>()?;
        for (written, outside) in data {
            written.put().map_err(outside.failed())?;
        }
        for (written, (_, _, path)) in written.into_iter().zip(files) {
            written.put().map_err(failed(path))?;
        }
        Ok(())
    }

    /// The files beside the model that hold its external data.
    ///
    /// # Errors
    /// References that cannot be followed.
    pub fn data_files(&self) -> Result<Vec<PathBuf>, ModelError> {
        let folder = crate::replace::folder(&self.path);
        Ok(external::locations(self, &Edit::default())?.into_iter().map(|location| folder.join(location)).collect())
    }

    /// The files that [`Model::save`] to `path` may put beside it: external data that is not there yet, and new ones.
    ///
    /// # Errors
    /// A file in the target folder that holds other external data under the same name.
    pub fn data_files_to_write(&self, path: &Path) -> Result<Vec<PathBuf>, ModelError> {
        let copied = external::missing(self, &Edit::default(), path)?.into_iter().map(|(_, to)| to);
        let is_external = self.graph.initializers().iter().any(|initializer| initializer.external_data().is_some());
        let new = is_external.then(|| outside::place(self, path)).transpose()?;
        Ok(copied.chain(new).collect())
    }

    /// The model with `edit` applied, in memory.
    ///
    /// # Errors
    /// An edit that leaves no model.
    pub fn edited(&self, edit: &Edit) -> Result<Self, ModelError> {
        Self::decode(&self.path, self.to_bytes(edit).into())
    }

    /// The model with the external data of its initializers inside, so that it needs no other file.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub fn embedded(self) -> Result<Self, ModelError> {
        let edit = external::embedded(&self)?;
        if edit.initializers.is_empty() { Ok(self) } else { self.edited(&edit.into()) }
    }

    /// The bytes of the model with `edit` applied.
    pub fn to_bytes(&self, edit: &Edit) -> Vec<u8> {
        edit.bytes(self)
    }
}

/// Whether a glob, or else the very name, stands for a value of that name.
pub(crate) fn fits(glob: &str, name: &str) -> bool {
    glob == name || WildMatch::new(glob).matches(name)
}

/// The name under which files list a domain: the default one has two.
fn canonical_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { ONNX_DOMAIN } else { domain }
}

fn decode_training_info(path: &Path, bytes: &Bytes, record: Field) -> Result<TrainingInfo, ModelError> {
    let mut info = TrainingInfo { algorithm: None, update_binding: Vec::new(), record };
    let fields = wire::fields(bytes, info.record.payload.clone())
        .map_err(|source| ModelError::Wire { path: path.into(), source })?;
    for field in fields {
        match field.number {
            2 if field.delimited => info.algorithm = Some(Graph::decode(path, bytes, field)?),
            4 => {
                info.update_binding.push(StringStringEntryProto::decode(bytes.slice(field.payload.clone())).map_err(
                    |source| ModelError::Decode { path: path.into(), part: "update_binding".into(), source },
                )?)
            }
            _ => {}
        }
    }
    Ok(info)
}

/// Maps a file into memory.
#[allow(unsafe_code)]
fn map(path: &Path) -> std::io::Result<(File, Bytes)> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // SAFETY: the map is private and read-only. Another process that truncates the file while we read it ends this process with
    // SIGBUS; every program that maps files lives with that, and reading 8 GB into memory instead is no alternative.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok((file, Bytes::from_owner(map)))
}
