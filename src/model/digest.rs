//! What tells one model from another.

use std::collections::BTreeSet;

use prost::Message;

use super::Model;
use crate::digest::Digest;

impl Model {
    /// A digest of the main graph, of the functions, the operator sets and the metadata, but not of the initializers in `except`. Of
    /// external data it has the place, not the content.
    pub fn digest(&self, except: &BTreeSet<&str>) -> String {
        let mut digest = Digest::default();
        let mut add = |kind: &str, messages: &mut dyn Iterator<Item = Vec<u8>>| {
            for message in messages {
                digest.add(kind.as_bytes());
                digest.add(&message);
            }
        };
        let graph = self.graph();
        add("opset", &mut self.opset_imports.iter().map(|(_, import)| import.encode_to_vec()));
        add("metadata", &mut self.metadata.iter().map(|(_, entry)| entry.encode_to_vec()));
        add("function", &mut self.functions.iter().map(Message::encode_to_vec));
        add("node", &mut graph.nodes().iter().map(Message::encode_to_vec));
        add("input", &mut graph.inputs().iter().map(Message::encode_to_vec));
        add("output", &mut graph.outputs().iter().map(Message::encode_to_vec));
        let initializers = graph.initializers().iter().filter(|initializer| !except.contains(initializer.name()));
        add("initializer", &mut initializers.map(|initializer| initializer.message().to_vec()));
        digest.finish()
    }
}
