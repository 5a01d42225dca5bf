//! The graph beside a training graph that evaluates what was trained.

use super::error::TrainingGraphError;
use super::{IR_VERSION, Recipe, TrainingGraph};
use crate::model::{
    Builder, Edit, Graph, GraphEdit, GraphId, Index, NodeExt, ONNX_DOMAIN, ParameterEntry, TRAINING_METADATA,
    TrainingMap, Types, needed_for,
};
use crate::proto::NodeProto;

impl TrainingGraph<'_> {
    /// The changes that make an evaluation graph of the forward model: whatever the training graph updates is an input
    /// with a default, and the loss is an output. Dropout and batch normalization are in inference mode.
    ///
    /// # Errors
    /// A recipe that does not fit the model.
    pub fn evaluation(&self, recipe: &Recipe) -> Result<Edit, TrainingGraphError> {
        let model = self.forward;
        let request = |what| TrainingGraphError::Request { path: model.path().to_owned(), what };
        let graph = model.graph();
        let index = model.index(GraphId::Main)?;
        let types = Types::infer(graph, &index);
        let mut b = Builder::new(&index, model.opset(ONNX_DOMAIN).unwrap_or(1), "loss/");
        let target = recipe.loss.target(&mut b, &self.prediction, &index, &types).map_err(request)?;
        let labels = target.label_names();
        let more_nodes = needed_for(b.into_nodes(), [target.loss.clone()].into());
        let nodes = graph.nodes().iter().enumerate();
        let nodes = nodes.filter_map(|(at, node)| Some((at, vec![in_inference_mode(node, graph, &index)?]))).collect();
        let mut edit = GraphEdit { nodes, more_nodes, more_inputs: target.labels, ..GraphEdit::default() };
        edit.more_outputs.extend(target.new_output.map(|tensor| tensor.declare(&target.loss)));
        let trained = self.map.parameters.iter().map(|parameter| &parameter.name);
        let mut parameters = Vec::new();
        for name in trained.chain(self.map.state.iter().map(|state| &state.name)) {
            let Some(value) = index.find(name).map(|id| index.value(id)) else { continue };
            let Some(tensor) = &value.tensor_type else { continue };
            edit.feed(value, tensor);
            parameters.push(ParameterEntry { name: name.clone(), input: name.clone(), gradient: None, updated: None });
        }
        let map = TrainingMap {
            data: self.map.data.clone(),
            labels,
            classes: target.classes,
            loss: Some(target.loss),
            parameters,
            ..TrainingMap::default()
        };
        Ok(Edit {
            metadata: [(TRAINING_METADATA.to_owned(), map.to_json())].into(),
            ir_version: Some(model.ir_version().max(IR_VERSION)),
            ..edit.into()
        })
    }
}

/// A node that the file has in training mode as it is in inference mode; `None` for others, and where statistics of the batch are read.
fn in_inference_mode(node: &NodeProto, graph: &Graph, index: &Index) -> Option<NodeProto> {
    if node.is_onnx("BatchNormalization") && node.int("training_mode", 0) != 0 {
        let is_read = |slot| index.output(node, slot).is_some_and(|id| index.is_read(id));
        if (1..node.output.len()).any(is_read) {
            return None;
        }
        let mut inference = node.clone();
        inference.attribute.retain(|attribute| attribute.name() != "training_mode");
        inference.output.truncate(1);
        return Some(inference);
    }
    let flag = index.input(node, 2).filter(|_| node.is_onnx("Dropout"))?;
    graph.constant(index, flag)?;
    let mut inference = node.clone();
    inference.input.truncate(2);
    Some(inference)
}
