//! A forward model as it runs in training: dropout drops, and batch normalization uses the batch's statistics. Of what is trained or depends on it,
//! operators tell what their gradients need: layer normalization, which is one operator here, its statistics, and pooling the places of what it took.

use std::collections::BTreeMap;

use super::error::TrainingGraphError;
use super::layer_normalization::{self, Normalization};
use super::parameters::Selection;
use super::random::Random;
use crate::autodiff::{self, Backward};
use crate::model::{Builder, GraphEdit, GraphId, Index, Model, NodeExt, NodeId, ONNX_DOMAIN, StateEntry, Types};
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
    let path = model.path();
    let opset = model.opset(ONNX_DOMAIN).unwrap_or(1);
    if opset < OLDEST_OPSET {
        return Err(TrainingGraphError::Opset { path: path.to_owned(), opset });
    }
    let graph = model.graph();
    let index = model.index(GraphId::Main)?;
    let types = Types::infer(graph, &index);
    let request = |what| TrainingGraphError::Request { path: path.to_owned(), what };
    let name = |what| TrainingGraphError::Name { path: path.to_owned(), what };
    let trained = selection.candidates(graph, &index).map_err(name)?;
    let depends = Backward::new(model, graph, &index, &types).dependent(&trained);
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
        if node.is_onnx("Dropout") {
            preparation.dropout(id.0, node).map_err(request)?;
        } else if node.is_onnx("BatchNormalization") {
            preparation.batch_normalization(id.0, node, selection);
        } else if index.output(node, 0).is_some_and(|output| depends[output.index()]) {
            preparation.tell_its_gradient(id, node);
        }
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
    fn batch_normalization(&mut self, at: usize, node: &NodeProto, selection: &Selection) {
        let statistics = [3, 4].map(|slot| node.input_name(slot).unwrap_or_default());
        let initializers = self.model.graph().initializers();
        let is_stored = |name: &&str| initializers.iter().any(|i| i.name() == *name) && !selection.is_frozen(name);
        if !statistics.iter().all(is_stored) {
            return;
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
    }

    /// Has an operator tell what its gradient needs.
    fn tell_its_gradient(&mut self, id: NodeId, node: &NodeProto) {
        let search = layer_normalization::Search { graph: self.model.graph(), index: self.index, types: self.types };
        if let Some(Normalization { operator, inner }) = search.ending_with(id, node, &mut self.b) {
            self.edit.nodes.extend(inner.iter().map(|inner| (inner.0, Vec::new())));
            self.edit.nodes.insert(id.0, vec![operator]);
        } else if node.is_onnx("MaxPool") && node.output.get(1).is_none_or(String::is_empty) && self.b.scatters_add() {
            self.max_pool(id, node);
        }
    }

    /// Pools before a Relu that nobody else reads, if windows are fewer than elements: then fewer are compared with zero, on the way back too. The largest
    /// of a window is the same one, but in windows that see nothing but padding, as dilated ones can.
    fn max_pool(&mut self, id: NodeId, node: &NodeProto) {
        let mut pool = autodiff::telling_places(node, &self.b.fresh("places"));
        let rectified = self.index.input(node, 0).filter(|&x| self.index.only_reader(x).is_some());
        let relu = rectified.and_then(|x| self.index.made_by(self.model.graph().nodes(), x, "Relu"));
        let goes_beyond_one = |attribute| node.ints(attribute).is_some_and(|ints| ints.iter().any(|&int| int > 1));
        let nodes = match relu.filter(|_| goes_beyond_one("strides") && !goes_beyond_one("dilations")) {
            None => vec![pool],
            Some((at, relu)) => {
                self.edit.nodes.insert(at.0, Vec::new());
                let mut relu = relu.clone();
                pool.input[0] = std::mem::replace(&mut relu.input[0], self.b.fresh("pooled"));
                relu.output[0] = std::mem::replace(&mut pool.output[0], relu.input[0].clone());
                vec![pool, relu]
            }
        };
        self.edit.nodes.insert(id.0, nodes);
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
