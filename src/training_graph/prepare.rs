//! A forward model as it runs in training: dropout drops, batch normalization uses the batch's statistics, and layer normalization is one operator.

use std::collections::BTreeMap;

use super::error::TrainingGraphError;
use super::layer_normalization;
use super::parameters::Selection;
use super::random::Random;
use crate::autodiff;
use crate::model::{Builder, GraphEdit, GraphId, Index, Model, NodeExt, ONNX_DOMAIN, StateEntry, Types};
use crate::proto::tensor_proto::DataType;
use crate::proto::{NodeProto, TensorProto};

/// The oldest version of the default domain in whose operators training graphs are written.
const OLDEST_OPSET: i64 = 14;

/// A model that is ready to be differentiated.
pub(super) struct Prepared {
    pub(super) model: Model,
    /// Where random numbers come from, if the model draws any.
    pub(super) random: Option<Random>,
    /// Statistics that a step updates.
    pub(super) statistics: Vec<StateEntry>,
}

/// The model with the operators in training mode whose results differ there, and what is made of others as its gradients need it.
///
/// # Errors
/// An operator set that is too old, or a dropout whose ratio is not constant.
pub(super) fn prepare(model: &Model, selection: &Selection) -> Result<Prepared, TrainingGraphError> {
    let expanded = autodiff::expanded(model)?.map(|edit| model.edited(&edit)).transpose()?;
    let model = expanded.as_ref().unwrap_or(model);
    let normalized = layer_normalization::gathered(model)?.map(|edit| model.edited(&edit)).transpose()?;
    in_training_mode(normalized.as_ref().unwrap_or(model), selection)
}

fn in_training_mode(model: &Model, selection: &Selection) -> Result<Prepared, TrainingGraphError> {
    let path = model.path();
    let opset = model.opset(ONNX_DOMAIN).unwrap_or(1);
    if opset < OLDEST_OPSET {
        return Err(TrainingGraphError::Opset { path: path.to_owned(), opset });
    }
    let graph = model.graph();
    let index = model.index(GraphId::Main)?;
    let types = Types::infer(graph, &index);
    let mut preparation = Preparation {
        model,
        index: &index,
        types: &types,
        b: Builder::new(&index, opset, "training/"),
        edit: GraphEdit::default(),
        random: None,
        latest: BTreeMap::new(),
    };
    for &id in index.order() {
        let node = &graph.nodes()[id.0];
        let done = if node.is_onnx("Dropout") {
            preparation.dropout(id.0, node)
        } else if node.is_onnx("BatchNormalization") {
            preparation.batch_normalization(id.0, node, selection)
        } else {
            Ok(())
        };
        done.map_err(|what| TrainingGraphError::Request { path: path.to_owned(), what })?;
    }
    let statistics = preparation.declare_statistics();
    let Preparation { edit, random, .. } = preparation;
    Ok(Prepared { model: model.edited(&edit.into())?, random, statistics })
}

struct Preparation<'a> {
    model: &'a Model,
    index: &'a Index,
    types: &'a Types,
    b: Builder<'a>,
    edit: GraphEdit,
    random: Option<Random>,
    /// By statistic: its newest value.
    latest: BTreeMap<String, String>,
}

impl Preparation<'_> {
    /// y = x · (1 where kept, 0 where dropped) / (1 - ratio).
    fn dropout(&mut self, at: usize, node: &NodeProto) -> Result<(), String> {
        let ratio = match node.input_name(1).and_then(|name| self.index.find(name)) {
            None => 0.5,
            Some(ratio) => self
                .model
                .graph()
                .constant_scalar(self.index, ratio)
                .ok_or_else(|| format!("{}: its ratio is not constant", node.label()))?,
        };
        if ratio == 0.0 {
            return Ok(());
        }
        let [x, y] = [node.input_name(0).unwrap_or_default(), node.output.first().map_or("", String::as_str)];
        let elem = self.index.find(x).and_then(|x| self.types.elem(x)).unwrap_or(DataType::Float as i32);
        let b = &mut self.b;
        let random = match &mut self.random {
            Some(random) => random,
            none => {
                let seed = b.named("seed");
                self.edit.add_input(&seed, TensorProto::of_int(0));
                none.insert(Random::new(seed))
            }
        };
        let float = DataType::Float as i32;
        let uniform = random.uniform(b, x, float);
        let threshold = b.scalar(ratio, float);
        let is_kept = match node.output.get(1).filter(|name| !name.is_empty()) {
            Some(mask) => {
                b.push(NodeProto::build("", "GreaterOrEqual", &[&uniform, &threshold], &[mask]));
                mask.clone()
            }
            None => b.op("GreaterOrEqual", &[&uniform, &threshold]),
        };
        let kept = b.cast(&is_kept, elem);
        let factor = b.scalar(1.0 / (1.0 - ratio), elem);
        let factor = b.op("Mul", &[&kept, &factor]);
        b.push(NodeProto::build("", "Mul", &[x, &factor], &[y]));
        self.edit.nodes.insert(at, b.take_nodes());
        Ok(())
    }

    /// Normalizes with the statistics of the batch, and updates the running ones, where those are initializers that are not frozen.
    fn batch_normalization(&mut self, at: usize, node: &NodeProto, selection: &Selection) -> Result<(), String> {
        let statistics = [3, 4].map(|slot| node.input_name(slot).unwrap_or_default());
        let initializers = self.model.graph().initializers();
        let is_stored = |name: &&str| initializers.iter().any(|i| i.name() == *name) && !selection.is_frozen(name);
        if !statistics.iter().all(is_stored) {
            return Ok(());
        }
        let mut training = node.clone();
        training.attribute.retain(|attribute| attribute.name() != "training_mode");
        training.output.truncate(1);
        for (slot, name) in [3, 4].into_iter().zip(statistics) {
            // A layer that is applied twice updates its statistics twice.
            let updated = self.b.named(&format!("{name}.updated"));
            if let Some(latest) = self.latest.insert(name.to_owned(), updated.clone()) {
                training.input[slot] = latest;
            }
            training.output.push(updated);
        }
        self.edit.nodes.insert(at, vec![training.with_int("training_mode", 1)]);
        Ok(())
    }

    /// Makes inputs of the statistics and outputs of their newest values.
    fn declare_statistics(&mut self) -> Vec<StateEntry> {
        let declare = |(name, updated): (&String, &String)| {
            let value = self.index.value(self.index.find(name)?);
            let tensor = value.tensor_type.as_ref()?;
            self.edit.feed(value, tensor);
            self.edit.more_outputs.push(tensor.declare(updated));
            Some(StateEntry { name: name.clone(), input: name.clone(), updated: updated.clone(), statistic: true })
        };
        self.latest.iter().filter_map(declare).collect()
    }
}
