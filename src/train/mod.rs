//! Training an exported model: the data that it is fed with.

pub mod data;
