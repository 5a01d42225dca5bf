use std::path::PathBuf;

use super::IndexError;
use super::wire::WireError;

/// Why a model cannot be loaded, indexed or saved. Each message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The model file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The model file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not in protobuf's wire format.
    #[error("{} is not an ONNX model: {source}", path.display())]
    Wire {
        /// The model file.
        path: PathBuf,
        /// Where and how it is broken.
        source: WireError,
    },
    /// A part of the file is a protobuf message, but not the one that ONNX has at that place.
    #[error("{} is not an ONNX model: {part}: {source}", path.display())]
    Decode {
        /// The model file.
        path: PathBuf,
        /// Which part.
        part: String,
        /// What the decoder said.
        source: prost::DecodeError,
    },
    /// A model has exactly one main graph.
    #[error("{} is not an ONNX model: it holds {count} graphs where one is expected", path.display())]
    GraphCount {
        /// The model file.
        path: PathBuf,
        /// How many were found.
        count: usize,
    },
    /// The graph cannot be executed.
    #[error("{}: {source}", path.display())]
    Graph {
        /// The model file.
        path: PathBuf,
        /// What is wrong with it.
        source: IndexError,
    },
    /// A tensor is not what the file says that it is.
    #[error("{}: tensor '{tensor}': {what}", path.display())]
    Tensor {
        /// The model file.
        path: PathBuf,
        /// The tensor; that of a Constant, by its output.
        tensor: String,
        /// What does not fit.
        what: String,
    },
    /// A tensor's external data cannot be used.
    #[error("{}: external data of tensor '{tensor}': {what}", path.display())]
    ExternalData {
        /// The model file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
    /// External data cannot be copied to the folder of the output.
    #[error("cannot copy the external data {} to {}: {what}", from.display(), to.display())]
    CopyData {
        /// The data file of the input.
        from: PathBuf,
        /// Where it should go.
        to: PathBuf,
        /// What is in the way.
        what: String,
    },
    /// The output cannot be written.
    #[error("cannot write {}; nothing was changed", path.display())]
    Write {
        /// The output file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
