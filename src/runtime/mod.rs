//! Running a training graph.
//!
//! A [`Program`] is what is run; an [`Engine`] runs it in some runtime, which keeps what is carried from step to step.

mod library;
mod onnxruntime;
mod value;

use crate::model::{Carried, Model, ModelError, TRAINING_METADATA, TrainingMap};
use crate::tensors::Tensor;

use library::VARIABLE;
pub use onnxruntime::{Device, OnnxRuntime};

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

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no ONNX Runtime on this machine.
    #[error(
        "no ONNX Runtime was found: install it (`pip install onnxruntime`), or set {VARIABLE} to a libonnxruntime.so"
    )]
    NotFound,
    /// The runtime cannot be used.
    #[error("{0}")]
    Unavailable(String),
    /// The runtime cannot compute on the device that was asked for.
    #[error("{0}")]
    NoDevice(String),
    /// The program is not one that can be run.
    #[error("{0}")]
    Program(String),
    /// A model of the program is at fault.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The curvature of a layer broke down.
    #[error("{runtime}: {what}")]
    Breakdown {
        /// The runtime.
        runtime: &'static str,
        /// What the operator said: the node, its damping.
        what: String,
    },
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

    /// Runs the evaluation graph with the carried values as they are now; returns its wanted outputs. It may lack inputs that are fed.
    ///
    /// # Errors
    /// What the runtime says, or a program without an evaluation graph.
    fn evaluate(&mut self, feeds: &[(&str, Tensor)]) -> Result<Vec<Tensor>, RuntimeError>;

    /// The carried values, in the order of [`TrainingMap::carried`].
    ///
    /// # Errors
    /// What the runtime says.
    fn carried(&self) -> Result<Vec<Tensor>, RuntimeError>;

    /// The carried values that the last step started from; before the first step, those of now.
    ///
    /// # Errors
    /// What the runtime says.
    fn carried_before(&self) -> Result<Vec<Tensor>, RuntimeError>;

    /// Puts these in the place of the carried values, in the order of [`TrainingMap::carried`].
    ///
    /// # Errors
    /// What the runtime says, or values of other types or shapes.
    fn restore(&mut self, carried: &[Tensor]) -> Result<(), RuntimeError>;
}

impl Program {
    /// The program of a training graph, whose metadata says what its inputs and outputs are for. Nothing evaluates beside it.
    ///
    /// # Errors
    /// Metadata that is missing or no [`TrainingMap`], or external data that cannot be read.
    pub fn new(training: Model) -> Result<Self, RuntimeError> {
        let path = training.path().display();
        let text = training.metadata(TRAINING_METADATA).ok_or_else(|| {
            RuntimeError::Program(format!(
                "{path}: it has no metadata property {TRAINING_METADATA}, which training graphs of isaac-rewrite have"
            ))
        })?;
        let map = serde_json::from_str(text).map_err(|error| {
            RuntimeError::Program(format!("{path}: metadata property {TRAINING_METADATA}: {error}"))
        })?;
        Ok(Self { training: training.embedded()?, map, evaluation: None })
    }

    /// The output of the training graph that is its loss.
    ///
    /// # Errors
    /// There is none.
    pub fn loss(&self) -> Result<&str, RuntimeError> {
        self.map.loss.as_deref().ok_or_else(|| {
            let path = self.training.path().display();
            RuntimeError::Program(format!("{path}: no output of the training graph is its loss"))
        })
    }

    /// The values that training starts from: the defaults of the graph, in the order of [`TrainingMap::carried`].
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
        self.map.carried().iter().map(start).collect()
    }
}

impl RuntimeError {
    /// Of a runtime's message.
    pub fn failed(runtime: &'static str, message: &str) -> Self {
        match crate::ops::breakdown(message) {
            Some(what) => Self::Breakdown { runtime, what: what.to_owned() },
            None => Self::Failed { runtime, what: message.to_owned() },
        }
    }
}

/// The number that a loss is.
///
/// # Errors
/// An empty one.
pub fn number(loss: &Tensor) -> Result<f64, RuntimeError> {
    loss.to_f64s().first().copied().ok_or_else(|| RuntimeError::Program("the loss is empty".into()))
}

/// The error of a program that has no graph to evaluate with.
pub fn no_evaluation() -> RuntimeError {
    RuntimeError::Program("there is no graph that evaluates".into())
}

/// Checks that tensors can take the places of what is carried: one for each, and each of the type and shape that `fits` knows at its
/// position.
///
/// # Errors
/// Too few or too many, or the first that does not fit.
pub fn check_restored(
    carried: &[Carried],
    given: &[Tensor],
    fits: impl Fn(usize, &Tensor) -> bool,
) -> Result<(), RuntimeError> {
    if given.len() != carried.len() {
        let (given, count) = (given.len(), carried.len());
        return Err(RuntimeError::Program(format!("{given} carried values were given, and there are {count}")));
    }
    match given.iter().enumerate().find(|&(at, tensor)| !fits(at, tensor)) {
        Some((at, tensor)) => {
            Err(RuntimeError::Program(format!("'{}' cannot become {}", carried[at].name, tensor.describe())))
        }
        None => Ok(()),
    }
}
