//! What the inputs and outputs of a training graph are for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The metadata property that holds a [`TrainingMap`] as JSON.
pub const TRAINING_METADATA: &str = "isaac.training";

/// Which input and output of a training graph is which, so that a host in any language can drive it with a plain session.
///
/// After a step, each `updated` output is to be fed to the `input` beside it. All parameters and states have defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingMap {
    /// The version of this map.
    pub version: u32,
    /// Inputs that are fed with examples.
    #[serde(default)]
    pub data: Vec<String>,
    /// Inputs that are fed with what belongs to the examples: labels and weights.
    #[serde(default)]
    pub labels: Vec<String>,
    /// What the first of these can hold, where that is the indices of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
    /// The output that is the loss of the batch.
    #[serde(default)]
    pub loss: Option<String>,
    /// By role (`lr`, `lambda_a`, `lambda_g`, `seed`): scalar inputs.
    #[serde(default)]
    pub scalars: BTreeMap<String, String>,
    /// What is trained.
    #[serde(default)]
    pub parameters: Vec<ParameterEntry>,
    /// What is carried from step to step beside the parameters: of the optimizer, and statistics of the model.
    #[serde(default)]
    pub state: Vec<StateEntry>,
}

/// The labels of a classifier, which are whole numbers from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// How many classes there are; `None` if the model does not say.
    #[serde(default)]
    pub count: Option<u64>,
    /// A label that does not count.
    #[serde(default)]
    pub ignored: Option<i64>,
}

/// A trained parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterEntry {
    /// Its name in the forward model.
    pub name: String,
    /// The input that it is fed to.
    pub input: String,
    /// The output that is the gradient, or what takes its place; in a graph that holds the update only, the input.
    #[serde(default)]
    pub gradient: Option<String>,
    /// The output that is the parameter after the step.
    #[serde(default)]
    pub updated: Option<String>,
}

/// A carried tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// Its name: that of an initializer of the forward model, or the parameter's and what the optimizer calls it.
    pub name: String,
    /// The input that it is fed to.
    pub input: String,
    /// The output that is its value after the step.
    pub updated: String,
    /// Whether it belongs into the forward model, as a running statistic of batch normalization does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub statistic: bool,
}

/// What a training graph carries from step to step: a parameter or a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Its name, as [`ParameterEntry::name`] and [`StateEntry::name`] have it.
    pub name: String,
    /// The input that it is fed to.
    pub input: String,
    /// The output that is its value after the step.
    pub updated: String,
}

impl TrainingMap {
    /// What is carried from step to step: parameters first, then state. Parameters without an updated value are not.
    pub fn carried(&self) -> Vec<Carried> {
        let carried = |name: &str, input: &str, updated: &str| Carried {
            name: name.to_owned(),
            input: input.to_owned(),
            updated: updated.to_owned(),
        };
        let parameters = self
            .parameters
            .iter()
            .filter_map(|entry| entry.updated.as_deref().map(|updated| carried(&entry.name, &entry.input, updated)));
        let state = self.state.iter().map(|entry| carried(&entry.name, &entry.input, &entry.updated));
        parameters.chain(state).collect()
    }

    /// As the metadata property has it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a map of strings is plain data")
    }
}

impl Default for TrainingMap {
    /// Of a graph that has nothing yet.
    fn default() -> Self {
        Self {
            version: 1,
            data: Vec::new(),
            labels: Vec::new(),
            classes: None,
            loss: None,
            scalars: BTreeMap::new(),
            parameters: Vec::new(),
            state: Vec::new(),
        }
    }
}
