//! The messages of `onnx/onnx.proto` (ONNX 1.23.2), generated at build time. `bytes` fields are [`bytes::Bytes`], so a tensor
//! decoded from a file map shares the map's memory.
#![allow(missing_docs, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
