//! What a training graph does with gradients: gives them out, or updates the parameters.

use std::collections::{BTreeMap, HashMap};

use super::descent::Rate;
use crate::model::{
    Builder, Graph, GraphEdit, Index, ParameterEntry, StateEntry, TensorType, TrainingMap, ValueId, rename,
};
use crate::optimizer::{Update, Updates, clipped};
use crate::proto::NodeProto;
use crate::proto::tensor_proto::DataType;

/// As many floats as fill a protobuf message.
const LARGEST: u64 = (1 << 31) / 4;

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
    ///
    /// # Errors
    /// A parameter that is larger than a file can hold.
    pub(super) fn new(
        graph: &Graph,
        index: &Index,
        gradients: &BTreeMap<ValueId, String>,
        edit: &mut GraphEdit,
    ) -> Result<Self, String> {
        let mut trained = Vec::new();
        for initializer in graph.initializers() {
            let Some(value) = index.find(initializer.name()) else { continue };
            let Some(gradient) = gradients.get(&value) else { continue };
            let (name, tensor) = (initializer.name().to_owned(), initializer.tensor_type());
            let sizes = tensor.shape.iter().flatten().map(|dim| dim.known());
            let count = sizes.into_iter().try_fold(1_u64, |count, size| count.checked_mul(size?));
            if count.is_none_or(|count| count > LARGEST) {
                return Err(format!("'{name}' has more than {LARGEST} elements, which no ONNX file holds"));
            }
            edit.feed(index.value(value), &tensor);
            trained.push(Parameter { name, tensor, gradient: gradient.clone() });
        }
        Ok(Self(trained))
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
                    b.name(&source, &output);
                }
            }
            edit.more_outputs.push(tensor.declare(&output));
            map.parameters.push(ParameterEntry { input: name.clone(), name, gradient: Some(output), updated: None });
        }
        rename(backward, &names);
    }

    /// Makes the parameters after the step outputs, and what the optimizer carries inputs and outputs.
    pub(super) fn update(
        self,
        b: &mut Builder<'_>,
        update: &Update,
        rate: Rate,
        edit: &mut GraphEdit,
        map: &mut TrainingMap,
    ) {
        edit.more_inputs.push(TensorType::scalar(DataType::Float as i32).declare(&rate.input));
        let typed: Vec<(String, i32)> =
            self.0.iter().map(|parameter| (parameter.gradient.clone(), parameter.tensor.elem)).collect();
        let gradients = match update.clip_norm {
            Some(limit) => clipped(b, typed, limit),
            None => typed.into_iter().map(|(gradient, _)| gradient).collect(),
        };
        let mut updates = Updates::new(b, update, &rate.input);
        let mut names = HashMap::new();
        let mut updated_output = |b: &mut Builder<'_>, name: &str, updated: String| {
            let output = b.named(&format!("{name}.updated"));
            names.insert(updated, output.clone());
            output
        };
        for (Parameter { name, tensor, .. }, gradient) in self.0.into_iter().zip(gradients) {
            let updated = if rate.is_in_gradients {
                b.op("Sub", &[&name, &gradient])
            } else {
                updates.parameter(b, &name, &tensor, &gradient)
            };
            let output = updated_output(b, &name, updated);
            edit.more_outputs.push(tensor.declare(&output));
            map.parameters.push(ParameterEntry { input: name.clone(), name, gradient: None, updated: Some(output) });
        }
        for carried in updates.into_carried() {
            let name = carried.name;
            let tensor = TensorType::of_tensor(&carried.start);
            let updated = updated_output(b, &name, carried.updated);
            edit.more_outputs.push(tensor.declare(&updated));
            edit.add_input(&name, carried.start);
            map.state.push(StateEntry { input: name.clone(), name, updated, statistic: false });
        }
        map.scalars.insert("lr".into(), rate.input);
        b.rename(&names);
    }
}
