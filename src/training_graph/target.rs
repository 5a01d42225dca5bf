use super::distribution::Distribution;
use super::loss::{Distance, Loss, Written};
use crate::model::{Builder, Classes, Dim, Index, Model, NodeExt, TensorType, Types, ValueId, working_type};
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
    /// The output of the forward model that it compares with labels, or that is the loss.
    ///
    /// # Errors
    /// A name that no output has, or several outputs and no name.
    pub(super) fn output(&self, model: &Model) -> Result<String, String> {
        let names: Vec<&str> = model.graph().outputs().iter().map(|output| output.name()).collect();
        let asked = match self {
            Self::Labelled(labelled) => labelled.prediction.as_deref(),
            Self::Output(name) => Some(name.as_str()),
        };
        match (asked, names.as_slice()) {
            (Some(name), _) if names.contains(&name) => Ok(name.to_owned()),
            (Some(name), _) => Err(format!("the model has no output '{name}'; there are: {}", names.join(", "))),
            (None, [single]) => Ok((*single).to_owned()),
            (None, _) => Err(format!("which output is the prediction (--prediction)? There are: {}", names.join(", "))),
        }
    }

    /// What speaks against this loss for this model: that the prediction has gone already through the function that the loss
    /// begins with.
    pub fn doubt(&self, model: &Model) -> Option<String> {
        let Self::Labelled(labelled) = self else { return None };
        let function = match labelled.distance {
            Distance::CrossEntropy { .. } | Distance::SoftCrossEntropy { .. } => "Softmax",
            Distance::BinaryCrossEntropy => "Sigmoid",
            Distance::MeanSquaredError | Distance::L1 => return None,
        };
        let output = self.output(model).ok()?;
        let maker = model.graph().nodes().iter().find(|node| node.output.contains(&output))?;
        maker
            .is_onnx(function)
            .then(|| format!("'{output}' comes out of {function}, and this loss applies {function} to it"))
    }

    /// Appends the nodes of the loss, which is computed from this output of the model.
    ///
    /// # Errors
    /// What does not fit the model.
    pub(super) fn target(
        &self,
        b: &mut Builder<'_>,
        output: &str,
        index: &Index,
        types: &Types,
    ) -> Result<Target, String> {
        let (value, tensor) = floating_point(output, index, types)?;
        match self {
            Self::Labelled(labelled) => {
                let Written { loss, gradient, inputs, distribution } = labelled.write(b, output, &tensor)?;
                let new_output = Some(TensorType::scalar(working_type(tensor.elem)));
                let classes = match labelled.distance {
                    Distance::CrossEntropy { ignore_index, .. } => Some(Classes {
                        count: distribution.as_ref().and_then(Distribution::classes),
                        ignored: ignore_index,
                    }),
                    _ => None,
                };
                Ok(Target { loss, seed: (value, gradient), labels: inputs, classes, new_output, distribution })
            }
            Self::Output(_) => {
                let sizes = tensor.shape.as_ref().map(|shape| shape.iter().map(Dim::known).collect::<Vec<_>>());
                if sizes.is_some_and(|sizes| sizes.iter().any(|&size| size != Some(1))) {
                    return Err(format!("the output '{output}' is no scalar, which a loss has to be"));
                }
                let seed = (value, b.filled_like(output, 1.0, tensor.elem));
                Ok(Target {
                    loss: output.to_owned(),
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

/// An output of the forward model, which holds floating-point numbers.
fn floating_point(output: &str, index: &Index, types: &Types) -> Result<(ValueId, TensorType), String> {
    let value = index.find(output).ok_or_else(|| format!("nothing gives the output '{output}'"))?;
    let tensor = TensorType { elem: types.elem(value).unwrap_or(0), shape: types.shape(value).map(<[_]>::to_vec) };
    if !tensor.is_float() {
        return Err(format!("the output '{output}' does not hold floating-point numbers"));
    }
    Ok((value, tensor))
}
