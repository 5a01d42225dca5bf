//! ONNX Runtime as an engine.

use std::collections::{BTreeMap, BTreeSet};

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, Session, SessionInputValue};
use ort::value::DynTensor;

use super::library::OnnxRuntimeLibrary;
use super::value::{allocate, fill, fits, read, read_output};
use super::{Engine, Evaluation, Program, RuntimeError, check_restored, no_evaluation, number};
use crate::model::{Carried, Edit, Model};
use crate::tensors::Tensor;

/// What ONNX Runtime computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The first CUDA device: nodes for which the runtime has a kernel there, and what is carried from step to step.
    Cuda,
}

impl Device {
    /// A value in main memory, or a copy of it on the device.
    fn place(self, value: DynTensor) -> Result<DynTensor, ort::Error> {
        match self {
            Self::Cpu => Ok(value),
            Self::Cuda => value.to(AllocationDevice::CUDA, 0),
        }
    }

    /// Reads a value that is on the device.
    fn read(self, value: &DynTensor) -> Result<Tensor, ort::Error> {
        match self {
            Self::Cpu => read(value),
            Self::Cuda => read(&value.to(AllocationDevice::CPU, 0)?),
        }
    }

    /// Overwrites a value that is on the device and [`fits`].
    fn fill(self, value: &mut DynTensor, tensor: &Tensor) -> Result<(), ort::Error> {
        match self {
            Self::Cpu => {
                fill(value, tensor);
                Ok(())
            }
            Self::Cuda => copied(&Allocator::default(), tensor)?.copy_into(value),
        }
    }
}

/// A program in ONNX Runtime. What is carried lies in two sets of buffers, which take turns: a step reads one and writes the
/// other.
pub struct OnnxRuntime {
    version: &'static str,
    device: Device,
    training: Session,
    evaluation: Option<Evaluator>,
    carried: Vec<Carried>,
    loss: String,
    /// What is fed, by input: overwritten from step to step while its shape stays.
    feeds: BTreeMap<String, DynTensor>,
    buffers: [Vec<DynTensor>; 2],
    /// Of each: reads the buffers of the same position, and writes the others.
    bindings: [IoBinding; 2],
    /// The position of the buffers that the next step reads.
    now: usize,
    /// The position of those that the last step read.
    before: usize,
}

/// The graph that evaluates, in a session.
struct Evaluator {
    session: Session,
    /// Its inputs, those with defaults included.
    inputs: BTreeSet<String>,
    outputs: Vec<String>,
}

impl From<ort::Error> for RuntimeError {
    fn from(error: ort::Error) -> Self {
        Self::failed("ONNX Runtime", error.message())
    }
}

impl OnnxRuntime {
    /// Makes the sessions of `program` on `device`, with `threads` threads each; `None`: as many as the runtime chooses.
    ///
    /// # Errors
    /// No ONNX Runtime from 1.17 on, one that cannot use the device, or a program that it refuses.
    pub fn new(program: &Program, threads: Option<usize>, device: Device) -> Result<Self, RuntimeError> {
        let library = OnnxRuntimeLibrary::get()?;
        let session = |model: &Model| -> Result<Session, RuntimeError> {
            let mut options: SessionBuilder = library.session(device)?;
            if let Some(threads) = threads {
                options = options.with_intra_threads(threads).map_err(ort::Error::from)?;
            }
            options = options.with_deterministic_compute(true).map_err(ort::Error::from)?;
            Ok(options.commit_from_memory(&model.to_bytes(&Edit::default()))?)
        };
        let training = session(&program.training)?;
        let evaluation = match &program.evaluation {
            Some(Evaluation { model, outputs }) => {
                let inputs = model.graph().inputs().iter().map(|input| input.name().to_owned()).collect();
                Some(Evaluator { session: session(model)?, inputs, outputs: outputs.clone() })
            }
            None => None,
        };
        let loss = program.loss()?.to_owned();
        let carried = program.map.carried();
        let start = program.start()?;
        let placed = |tensor| device.place(copied(training.allocator(), tensor)?);
        let set = || start.iter().map(placed).collect::<Result<Vec<_>, _>>();
        let (mut even, mut odd) = (set()?, set()?);
        let bindings =
            [bind(&training, &carried, &loss, &even, &mut odd)?, bind(&training, &carried, &loss, &odd, &mut even)?];
        let buffers = [even, odd];
        let feeds = BTreeMap::new();
        Ok(Self {
            version: library.version(),
            device,
            training,
            evaluation,
            carried,
            loss,
            feeds,
            buffers,
            bindings,
            now: 0,
            before: 0,
        })
    }
}

/// A value with the elements of `tensor`.
fn copied(allocator: &Allocator, tensor: &Tensor) -> Result<DynTensor, ort::Error> {
    let mut value = allocate(allocator, tensor.elem(), tensor.shape())?;
    fill(&mut value, tensor);
    Ok(value)
}

/// A step that reads the values `from` and writes the values `to`.
fn bind(
    session: &Session,
    carried: &[Carried],
    loss: &str,
    from: &[DynTensor],
    to: &mut [DynTensor],
) -> Result<IoBinding, ort::Error> {
    let mut binding = session.create_binding()?;
    for ((carried, input), output) in carried.iter().zip(from).zip(to) {
        binding.bind_input(&carried.input, input)?;
        binding.bind_output(&carried.updated, output)?;
    }
    let cpu = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
    binding.bind_output_to_device(loss, &cpu)?;
    Ok(binding)
}

impl Engine for OnnxRuntime {
    fn runtime(&self) -> String {
        match self.device {
            Device::Cpu => format!("ONNX Runtime {}", self.version),
            Device::Cuda => format!("ONNX Runtime {} on CUDA", self.version),
        }
    }

    fn step(&mut self, feeds: &[(&str, Tensor)]) -> Result<f64, RuntimeError> {
        let binding = &mut self.bindings[self.now];
        for (name, tensor) in feeds {
            match self.feeds.get_mut(*name).filter(|value| fits(value, tensor)) {
                Some(value) => fill(value, tensor),
                None => {
                    self.feeds.insert((*name).to_owned(), copied(self.training.allocator(), tensor)?);
                }
            }
            binding.bind_input(*name, &self.feeds[*name])?;
        }
        let outputs = self.training.run_binding(binding)?;
        let loss = read_output(&outputs[self.loss.as_str()])?;
        drop(outputs);
        self.before = self.now;
        self.now = 1 - self.now;
        number(&loss)
    }

    fn evaluate(&mut self, feeds: &[(&str, Tensor)]) -> Result<Vec<Tensor>, RuntimeError> {
        let Some(Evaluator { session, inputs: known, outputs: wanted }) = &mut self.evaluation else {
            return Err(no_evaluation());
        };
        let allocator = session.allocator();
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::new();
        for (name, tensor) in feeds.iter().filter(|(name, _)| known.contains(*name)) {
            inputs.push((name, copied(allocator, tensor)?.into()));
        }
        for (carried, value) in self.carried.iter().zip(&self.buffers[self.now]) {
            if known.contains(&carried.name) {
                inputs.push((&carried.name, value.into()));
            }
        }
        let outputs = session.run(inputs)?;
        wanted.iter().map(|name| Ok(read_output(&outputs[name.as_str()])?)).collect()
    }

    fn carried(&self) -> Result<Vec<Tensor>, RuntimeError> {
        self.buffers[self.now].iter().map(|value| Ok(self.device.read(value)?)).collect()
    }

    fn carried_before(&self) -> Result<Vec<Tensor>, RuntimeError> {
        self.buffers[self.before].iter().map(|value| Ok(self.device.read(value)?)).collect()
    }

    fn restore(&mut self, carried: &[Tensor]) -> Result<(), RuntimeError> {
        let values = &mut self.buffers[self.now];
        check_restored(&self.carried, carried, |at, tensor| fits(&values[at], tensor))?;
        for (value, tensor) in values.iter_mut().zip(carried) {
            self.device.fill(value, tensor)?;
        }
        self.before = self.now;
        Ok(())
    }
}
