//! Conditioning the gradients of a training graph: ζ\*, ζ, K-FAC.

use std::collections::{BTreeMap, BTreeSet};

use super::TrainingGraph;
use super::error::TrainingGraphError;
use super::random::Random;
use crate::autodiff::Backward;
use crate::model::{
    Builder, Edit, GraphEdit, GraphId, Index, ONNX_DOMAIN, TRAINING_METADATA, TrainingMap, Types, ValueId, needed_for,
};
use crate::proto::tensor_proto::DataType;
use crate::proto::{NodeProto, TensorProto};
use crate::rewrite::{Chosen, Direction};

/// What takes the place of a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The gradient itself.
    Gradient,
    /// ζ\*: curvature from the layer's input alone.
    ZetaStar,
    /// ζ: also curvature from the output gradients of sampled labels.
    Zeta,
    /// ζ the way K-FAC computes it.
    Kfac,
}

/// The default values of the damping inputs, each > 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Damping {
    /// λa, of the curvature from the layer's input.
    pub lambda_a: f32,
    /// λg, of the curvature from the output gradients.
    pub lambda_g: f32,
}

/// A backward pass for sampled labels.
struct SampledPass {
    nodes: Vec<NodeProto>,
    /// By value of the backward pass for the given labels: what it is here.
    twins: BTreeMap<String, String>,
}

impl TrainingGraph<'_> {
    /// The changes that finish [`TrainingGraph::model`]: they put the operator in the place of the chosen layers' products, and take the update of plain
    /// gradient descent into products. The dampings are scalar inputs, with these defaults; K-FAC takes one for both factors.
    ///
    /// # Errors
    /// ζ or K-FAC for a loss that is the negative logarithm of no distribution.
    pub fn conditioned(
        &self,
        chosen: &Chosen<'_>,
        method: Method,
        damping: Damping,
    ) -> Result<Edit, TrainingGraphError> {
        let index = self.model.index(GraphId::Main)?;
        let mut edit = self.with_operators(&index, chosen, method, damping)?;
        self.fuse_updates(&index, edit.graphs.entry(GraphId::Main).or_default());
        Ok(edit)
    }

    fn with_operators(
        &self,
        index: &Index,
        chosen: &Chosen<'_>,
        method: Method,
        damping: Damping,
    ) -> Result<Edit, TrainingGraphError> {
        if chosen.rewritten().next().is_none() {
            return Ok(Edit::default());
        }
        let mut scalars = Scalars { b: Builder::new(index, 0, ""), graph: GraphEdit::default(), map: self.map.clone() };
        let lambda_a = scalars.damping("lambda_a", damping.lambda_a);
        let (mut edit, sampled) = match method {
            Method::Gradient => return Ok(Edit::default()),
            Method::ZetaStar => (chosen.edit(&Direction::ZetaStar { lambda_a })?, Vec::new()),
            Method::Zeta | Method::Kfac => {
                let is_kfac = method == Method::Kfac;
                let lambda_g = if is_kfac { lambda_a.clone() } else { scalars.damping("lambda_g", damping.lambda_g) };
                let SampledPass { nodes, twins } = self.sampled_pass(&mut scalars)?;
                let gradients = &twins;
                let edit = chosen.edit(&Direction::Zeta { lambda_a, lambda_g, gradients, is_kronecker: is_kfac })?;
                (edit, nodes)
            }
        };
        let graph = edit.graphs.entry(GraphId::Main).or_default();
        let needed = needed_for(sampled, graph.nodes.values().flatten().flat_map(|node| node.input.clone()).collect());
        if !needed.is_empty() {
            let first = &self.model.graph().nodes()[self.backward_start];
            let at_start = graph.nodes.entry(self.backward_start).or_insert_with(|| vec![first.clone()]);
            at_start.splice(0..0, needed);
        }
        graph.more_inputs = scalars.graph.more_inputs;
        graph.more_initializers = scalars.graph.more_initializers;
        edit.metadata.insert(TRAINING_METADATA.to_owned(), scalars.map.to_json());
        Ok(edit)
    }

    /// The backward pass once more, from the gradient for sampled labels. As it has the same nodes as the first, each value of that has its twin.
    fn sampled_pass(&self, scalars: &mut Scalars<'_>) -> Result<SampledPass, TrainingGraphError> {
        let path = self.prepared.path();
        let Some(distribution) = &self.distribution else {
            let what = "ζ and K-FAC sample labels from the model's distribution, and this loss stands for none";
            return Err(TrainingGraphError::Request { path: path.to_owned(), what: what.into() });
        };
        let graph = self.prepared.graph();
        let index = self.prepared.index(GraphId::Main)?;
        let types = Types::infer(graph, &index);
        let opset = self.prepared.opset(ONNX_DOMAIN).unwrap_or(1);
        let mut random = self.random.clone().unwrap_or_else(|| Random::new(scalars.seed()));
        let mut b = Builder::new(&index, opset, "labels/");
        let seed = distribution.sampled_gradient(&mut b, &mut random);
        let mut nodes = b.into_nodes();
        let wanted: BTreeSet<ValueId> =
            self.map.parameters.iter().filter_map(|parameter| index.find(&parameter.name)).collect();
        let seeds: Vec<(ValueId, String)> =
            index.find(&self.prediction).map(|value| (value, seed.clone())).into_iter().collect();
        let mut b = Builder::new(&index, opset, "sampled/");
        Backward::new(&self.prepared, graph, &index, &types).gradients(&mut b, &seeds, &wanted)?;
        let backward = b.into_nodes();
        let outputs = |nodes: &[NodeProto]| nodes.iter().flat_map(|node| node.output.clone()).collect::<Vec<_>>();
        let mut twins: BTreeMap<String, String> = outputs(&self.backward).into_iter().zip(outputs(&backward)).collect();
        twins.insert(self.seed.clone(), seed);
        nodes.extend(backward);
        Ok(SampledPass { nodes, twins })
    }
}

/// New scalar inputs of a training graph.
struct Scalars<'a> {
    b: Builder<'a>,
    graph: GraphEdit,
    map: TrainingMap,
}

impl Scalars<'_> {
    fn damping(&mut self, role: &str, default: f32) -> String {
        let elem = DataType::Float as i32;
        self.add(role, TensorProto::of_float(default.into(), elem))
    }

    fn seed(&mut self) -> String {
        self.add("seed", TensorProto::of_int(0))
    }

    fn add(&mut self, role: &str, default: TensorProto) -> String {
        let name = self.b.named(role);
        self.graph.add_input(&name, default);
        self.map.scalars.insert(role.to_owned(), name.clone());
        name
    }
}
