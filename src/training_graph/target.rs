use super::distribution::Distribution;
use super::loss::{Distance, Labelled, Loss, Written};
use crate::model::{Builder, Classes, Index, Model, TensorType, Types, ValueId, working_type};
use crate::proto::ValueInfoProto;

/// The loss as it stands in a graph.
pub(super) struct Target {
    /// The scalar.
    pub(super) loss: String,
    /// A value of the forward model, and the gradient of the loss with respect to it.
    pub(super) seed: (ValueId, String),
    /// Inputs that are fed beside the data.
    pub(super) labels: Vec<ValueInfoProto>,
    /// What labels can be, where they are indices of classes.
    pub(super) classes: Option<Classes>,
    /// The type of the loss, if it is no output of the forward model.
    pub(super) new_output: Option<TensorType>,
    /// The distribution of labels, where the loss stands for one.
    pub(super) distribution: Option<Distribution>,
}

impl Target {
    /// The names of the inputs that are fed beside the data.
    pub(super) fn label_names(&self) -> Vec<String> {
        self.labels.iter().map(|input| input.name().to_owned()).collect()
    }
}

impl Loss {
    /// Appends the nodes of the loss.
    ///
    /// # Errors
    /// What does not fit the model.
    pub(super) fn target(
        &self,
        b: &mut Builder<'_>,
        model: &Model,
        index: &Index,
        types: &Types,
    ) -> Result<Target, String> {
        match self {
            Self::Labelled(labelled) => labelled.target(b, model, index, types),
            Self::Output(name) => {
                let (value, tensor) = output(name, model, index, types)?;
                let elements =
                    tensor.shape.as_ref().map(|shape| shape.iter().map(|dim| dim.known()).collect::<Vec<_>>());
                if elements.is_some_and(|sizes| sizes.iter().any(|&size| size != Some(1))) {
                    return Err(format!("the output '{name}' is no scalar, which a loss has to be"));
                }
                let seed = (value, b.filled_like(name, 1.0, tensor.elem));
                Ok(Target {
                    loss: name.clone(),
                    seed,
                    labels: Vec::new(),
                    classes: None,
                    new_output: None,
                    distribution: None,
                })
            }
        }
    }
}

impl Labelled {
    fn target(&self, b: &mut Builder<'_>, model: &Model, index: &Index, types: &Types) -> Result<Target, String> {
        let names: Vec<&str> = model.graph().outputs().iter().map(|output| output.name()).collect();
        let name = match (self.prediction.as_deref(), names.as_slice()) {
            (Some(name), _) => name,
            (None, [single]) => single,
            (None, _) => return Err(format!("which output is the prediction? There are: {}", names.join(", "))),
        };
        let (value, tensor) = output(name, model, index, types)?;
        let Written { loss, gradient, inputs, distribution } = self.write(b, name, &tensor)?;
        let new_output = Some(TensorType::scalar(working_type(tensor.elem)));
        let classes = match self.distance {
            Distance::CrossEntropy { ignore_index, .. } => {
                Some(Classes { count: distribution.as_ref().and_then(Distribution::classes), ignored: ignore_index })
            }
            _ => None,
        };
        Ok(Target { loss, seed: (value, gradient), labels: inputs, classes, new_output, distribution })
    }
}

/// A floating-point output of the forward model.
fn output(name: &str, model: &Model, index: &Index, types: &Types) -> Result<(ValueId, TensorType), String> {
    let outputs = model.graph().outputs();
    let value = index.find(name).filter(|_| outputs.iter().any(|output| output.name() == name)).ok_or_else(|| {
        let names: Vec<&str> = outputs.iter().map(|output| output.name()).collect();
        format!("the model has no output '{name}'; there are: {}", names.join(", "))
    })?;
    let tensor = TensorType { elem: types.elem(value).unwrap_or(0), shape: types.shape(value).map(<[_]>::to_vec) };
    if !tensor.is_float() {
        return Err(format!("the output '{name}' does not hold floating-point numbers"));
    }
    Ok((value, tensor))
}
