//! The update as a graph of its own, for gradients that are accumulated or averaged outside.

use super::deliver::Trained;
use super::descent::Rate;
use super::error::TrainingGraphError;
use super::{IR_VERSION, TrainingGraph};
use crate::model::{Builder, Edit, GraphEdit, GraphId, Model, ONNX_DOMAIN, TRAINING_METADATA, TrainingMap};
use crate::optimizer::Update;
use crate::proto::{GraphProto, ModelProto};
use prost::Message;

impl TrainingGraph<'_> {
    /// The update of this graph's parameters: its inputs are the parameters, their gradients under the names that they have as outputs here, the learning rate, and
    /// what the optimizer carries; its outputs are the next values.
    ///
    /// # Errors
    /// None, as long as this graph has gradients as outputs.
    pub fn separate_update(&self, update: &Update) -> Result<Model, TrainingGraphError> {
        let empty = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some(env!("CARGO_PKG_NAME").into()),
            graph: Some(GraphProto { name: Some("update".into()), ..GraphProto::default() }),
            ..ModelProto::default()
        };
        let name = format!("the update of {}", self.forward.path().display());
        let model = Model::from_bytes(&name, empty.encode_to_vec().into())?;
        let index = model.index(GraphId::Main)?;
        let opset = self.forward.opset(ONNX_DOMAIN).unwrap_or(1);
        let mut edit = GraphEdit::default();
        let mut map = TrainingMap::default();
        let mut b = Builder::new(&index, opset, "update/");
        let trained = Trained::delivered(&self.map, self.model.graph(), &mut edit);
        let rate = Rate::apart(&mut b);
        trained.update(&mut b, update, rate, &mut edit, &mut map);
        for (entry, delivered) in map.parameters.iter_mut().zip(&self.map.parameters) {
            entry.gradient.clone_from(&delivered.gradient);
        }
        edit.more_nodes = b.into_nodes();
        let edit = Edit {
            opsets: [(ONNX_DOMAIN.to_owned(), opset)].into(),
            metadata: [(TRAINING_METADATA.to_owned(), map.to_json())].into(),
            ..edit.into()
        };
        Ok(model.edited(&edit)?)
    }
}
