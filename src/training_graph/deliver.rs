//! What a training graph does with gradients: gives them out, or updates the parameters.

use std::collections::{BTreeMap, HashMap};

use crate::model::{
    Builder, Graph, GraphEdit, Index, NodeExt, ParameterEntry, Producer, StateEntry, TensorType, TrainingMap, ValueId,
};
use crate::optimizer::{Update, Updates, clipped};
use crate::proto::tensor_proto::DataType;
use crate::proto::{NodeProto, TensorProto};

/// A trained parameter with its gradient.
struct Parameter {
    name: String,
    tensor: TensorType,
    gradient: String,
}

/// All trained parameters, in the order of the file.
pub(super) struct Trained(Vec<Parameter>);

impl Trained {
    /// The initializers that have gradients. They become inputs, where they are none.
    pub(super) fn new(
        graph: &Graph,
        index: &Index,
        gradients: &BTreeMap<ValueId, String>,
        edit: &mut GraphEdit,
    ) -> Self {
        let mut trained = Vec::new();
        for initializer in graph.initializers() {
            let Some(value) = index.find(initializer.name()) else { continue };
            let Some(gradient) = gradients.get(&value) else { continue };
            let (name, tensor) = (initializer.name().to_owned(), initializer.tensor_type());
            if matches!(index.value(value).producer, Producer::Initializer(_)) {
                edit.more_inputs.push(tensor.declare(&name));
            }
            trained.push(Parameter { name, tensor, gradient: gradient.clone() });
        }
        Self(trained)
    }

    /// The parameters of a training graph that delivers gradients. They and the gradients become inputs.
    pub(super) fn delivered(map: &TrainingMap, graph: &Graph, edit: &mut GraphEdit) -> Self {
        let mut trained = Vec::new();
        for entry in &map.parameters {
            let initializer = graph.initializers().iter().find(|initializer| initializer.name() == entry.input);
            let (Some(initializer), Some(gradient)) = (initializer, &entry.gradient) else { continue };
            let tensor = initializer.tensor_type();
            edit.more_inputs.extend([&entry.input, gradient].map(|name| tensor.declare(name)));
            trained.push(Parameter { name: entry.input.clone(), tensor, gradient: gradient.clone() });
        }
        Self(trained)
    }

    /// Makes the gradients outputs, under the name `<parameter>.gradient`.
    pub(super) fn deliver(
        self,
        b: &mut Builder<'_>,
        backward: &mut [NodeProto],
        edit: &mut GraphEdit,
        map: &mut TrainingMap,
    ) {
        let mut names: HashMap<String, String> = HashMap::new();
        for Parameter { name, tensor, gradient } in self.0 {
            let output = b.named(&format!("{name}.gradient"));
            let is_made = backward.iter().any(|node| node.output.contains(&gradient));
            match names.get(&gradient) {
                None if is_made => {
                    names.insert(gradient, output.clone());
                }
                // Two parameters have the same gradient, or it is that of the prediction.
                known => {
                    let source = known.unwrap_or(&gradient).clone();
                    b.push(NodeProto::build("", "Identity", &[&source], &[&output]));
                }
            }
            edit.more_outputs.push(tensor.declare(&output));
            map.parameters.push(ParameterEntry { input: name.clone(), name, gradient: Some(output), updated: None });
        }
        for value in backward.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output)) {
            if let Some(name) = names.get(value) {
                value.clone_from(name);
            }
        }
    }

    /// Makes the parameters after the step outputs, and what the optimizer carries inputs and outputs.
    pub(super) fn update(self, b: &mut Builder<'_>, update: &Update, edit: &mut GraphEdit, map: &mut TrainingMap) {
        let rate = b.named("lr");
        edit.more_inputs.push(TensorType::scalar(DataType::Float as i32).declare(&rate));
        map.scalars.insert("lr".into(), rate.clone());
        let typed: Vec<(String, i32)> =
            self.0.iter().map(|parameter| (parameter.gradient.clone(), parameter.tensor.elem)).collect();
        let gradients = match update.clip_norm {
            Some(limit) => clipped(b, typed, limit),
            None => typed.into_iter().map(|(gradient, _)| gradient).collect(),
        };
        let mut updates = Updates::new(b, update, &rate);
        for (Parameter { name, tensor, .. }, gradient) in self.0.into_iter().zip(gradients) {
            let updated = updates.parameter(b, &name, &tensor, &gradient);
            let output = output(b, &updated, &name);
            edit.more_outputs.push(tensor.declare(&output));
            map.parameters.push(ParameterEntry { input: name.clone(), name, gradient: None, updated: Some(output) });
        }
        for carried in updates.into_carried() {
            let name = carried.name;
            let tensor = TensorType::of_tensor(&carried.start);
            let updated = output(b, &carried.updated, &name);
            edit.more_inputs.push(tensor.declare(&name));
            edit.more_outputs.push(tensor.declare(&updated));
            edit.more_initializers.push(TensorProto { name: Some(name.clone()), ..carried.start });
            map.state.push(StateEntry { input: name.clone(), name, updated });
        }
    }
}

/// Gives a value that is made by `b` the name `<name>.updated`.
fn output(b: &mut Builder<'_>, value: &str, name: &str) -> String {
    let output = b.named(&format!("{name}.updated"));
    b.rename(value, &output);
    output
}
