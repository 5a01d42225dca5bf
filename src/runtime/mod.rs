//! Running a training graph.
//!
//! A [`Program`] is what is run; an [`Engine`] runs it in some runtime, which keeps what is carried from step to step.

#[cfg(feature = "tract")]
mod tract;

use crate::model::{Model, ModelError, TrainingMap};
use crate::tensors::Tensor;

#[cfg(feature = "tract")]
pub use tract::Tract;

/// A graph that evaluates what a training graph trains: its inputs have the same names.
#[derive(Debug)]
pub struct Evaluation {
    /// The graph. It may lack inputs that the training graph has.
    pub model: Model,
    /// The outputs that are wanted, in this order.
    pub outputs: Vec<String>,
}

/// What an engine runs.
#[derive(Debug)]
pub struct Program {
    /// The training graph.
    pub training: Model,
    /// What its inputs and outputs are for.
    pub map: TrainingMap,
    /// The graph beside it that evaluates.
    pub evaluation: Option<Evaluation>,
}

/// A tensor that a training graph carries from step to step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Its name; that of the initializer, for what the forward model has.
    pub name: String,
    /// The input that it is fed to.
    pub input: String,
    /// The output that is its next value.
    pub updated: String,
}

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no such runtime, or none that can be used.
    #[error("{0}")]
    Unavailable(String),
    /// The program is not one that can be run.
    #[error("{0}")]
    Program(String),
    /// A model of the program is at fault.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// What the runtime said.
    #[error("{runtime}: {what}")]
    Failed {
        /// The runtime.
        runtime: &'static str,
        /// Its message.
        what: String,
    },
}

/// A training graph in a runtime. What it carries from step to step stays there.
pub trait Engine {
    /// The runtime's name and version.
    fn runtime(&self) -> String;

    /// Runs one training step: `feeds` are all inputs without a default. Its updated values are what the next step starts from.
    /// Returns the loss of the batch.
    ///
    /// # Errors
    /// What the runtime says. The carried values are then as before.
    fn step(&mut self, feeds: &[(&str, Tensor)]) -> Result<f64, RuntimeError>;

    /// Runs the evaluation graph with the carried values as they are now; returns its wanted outputs.
    ///
    /// # Errors
    /// What the runtime says, or a program without an evaluation graph.
    fn evaluate(&mut self, feeds: &[(&str, Tensor)]) -> Result<Vec<Tensor>, RuntimeError>;

    /// The carried values, in the order of [`Program::carried`].
    ///
    /// # Errors
    /// What the runtime says.
    fn carried(&self) -> Result<Vec<Tensor>, RuntimeError>;

    /// The carried values that the last step started from; before the first step, those of now.
    ///
    /// # Errors
    /// What the runtime says.
    fn carried_before(&self) -> Result<Vec<Tensor>, RuntimeError>;

    /// Puts these in the place of the carried values, in the order of [`Program::carried`].
    ///
    /// # Errors
    /// What the runtime says, or values of other types or shapes.
    fn restore(&mut self, carried: &[Tensor]) -> Result<(), RuntimeError>;
}

impl Program {
    /// What is carried from step to step: parameters first, then state.
    pub fn carried(&self) -> Vec<Carried> {
        let carried = |name: &str, input: &str, updated: &str| Carried {
            name: name.to_owned(),
            input: input.to_owned(),
            updated: updated.to_owned(),
        };
        let parameters =
            self.map.parameters.iter().filter_map(|entry| {
                entry.updated.as_deref().map(|updated| carried(&entry.name, &entry.input, updated))
            });
        let state = self.map.state.iter().map(|entry| carried(&entry.name, &entry.input, &entry.updated));
        parameters.chain(state).collect()
    }

    /// The values that training starts from: the defaults of the graph, in the order of [`Self::carried`].
    ///
    /// # Errors
    /// A carried input without a default in the file.
    pub fn start(&self) -> Result<Vec<Tensor>, RuntimeError> {
        let initializers = self.training.graph().initializers();
        let start = |carried: &Carried| {
            let of_carried = |what: String| {
                RuntimeError::Program(format!("{}: '{}': {what}", self.training.path().display(), carried.input))
            };
            let initializer = initializers.iter().find(|initializer| initializer.name() == carried.input);
            let message = initializer.and_then(|initializer| initializer.tensor());
            let message = message.ok_or_else(|| of_carried("a carried input has no default".into()))?;
            Tensor::of_message(&message).map_err(of_carried)
        };
        self.carried().iter().map(start).collect()
    }
}
