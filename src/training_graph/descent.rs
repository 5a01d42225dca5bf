//! Plain gradient descent: the learning rate and the update as parts of the backward pass.
//!
//! W′ = W - lr·dW goes over all of a weight twice, once to scale its gradient and once to subtract that. But all gradients are linear
//! in the one that the backward pass begins with: with that times lr, it makes lr·dW. Where this is a product of matrices that nobody
//! else reads, a Gemm, or the operator that stands in its place, subtracts it from W as it goes. Some rates and updates stand alone:
//! - with momentum, weight decay or clipping, which need dW itself;
//! - where gradients have 16 bits, in which lr times a layer's may underflow;
//! - subtractions of a Gemm's sums over many rows ([`TERMS_BESIDE_ADDEND`]); the operator sees to that itself.

use std::collections::BTreeSet;

use super::TrainingGraph;
use crate::autodiff::Backward;
use crate::curvature::TERMS_BESIDE_ADDEND;
use crate::model::{Builder, Dim, GraphEdit, Index, NodeExt, NodeId, ParameterEntry, Types, ValueId};
use crate::optimizer::Update;
use crate::proto::NodeProto;
use crate::proto::tensor_proto::DataType;
use crate::rewrite::{ADDEND, DOMAIN, OPERATOR};

/// The learning rate of a training graph.
pub(super) struct Rate {
    /// The scalar input, a float.
    pub(super) input: String,
    /// Whether gradients come multiplied by it.
    pub(super) is_in_gradients: bool,
}

impl Rate {
    /// One that multiplies what becomes of finished gradients.
    pub(super) fn apart(b: &mut Builder<'_>) -> Self {
        Self { input: b.named("lr"), is_in_gradients: false }
    }

    /// That of `update`, which multiplies the gradient of a value, with which `backward` begins, if that is all that the update does with the gradients
    /// of what is trained.
    pub(super) fn new(
        b: &mut Builder<'_>,
        update: &Update,
        backward: &Backward<'_>,
        trained: &BTreeSet<ValueId>,
        (value, gradient): &mut (ValueId, String),
    ) -> Self {
        let rate = Self::apart(b);
        if !update.is_plain() || !backward.is_in_working_types(trained) {
            return rate;
        }
        let float = DataType::Float as i32;
        let factor = b.converted(&rate.input, float, backward.elem(*value).unwrap_or(float));
        *gradient = b.op("Mul", &[&factor, gradient]);
        Self { is_in_gradients: true, ..rate }
    }
}

impl TrainingGraph<'_> {
    /// Fuses updates with products, some of which `edit` has replaced by the operator.
    pub(super) fn fuse_updates(&self, index: &Index, edit: &mut GraphEdit) {
        let types = Types::infer(self.model.graph(), index);
        let mut fusion = Fusion { nodes: self.model.graph().nodes(), index, types: &types, edit };
        for parameter in &self.map.parameters {
            if let Some(descent) = fusion.descent(parameter)
                && let Some(product) = fusion.take_product(&descent)
            {
                fusion.edit.nodes.insert(descent.subtraction.0, vec![subtracted(product, &descent)]);
            }
        }
    }
}

/// The update of one parameter: updated = parameter - change, with change = lr · gradient.
struct Descent<'a> {
    subtraction: NodeId,
    parameter: &'a str,
    change: ValueId,
    updated: &'a str,
}

struct Fusion<'a> {
    nodes: &'a [NodeProto],
    index: &'a Index,
    types: &'a Types,
    edit: &'a mut GraphEdit,
}

impl<'a> Fusion<'a> {
    /// The update of a parameter, if it is one of these, and nobody else reads the change.
    fn descent(&self, entry: &'a ParameterEntry) -> Option<Descent<'a>> {
        let updated = entry.updated.as_deref()?;
        let (subtraction, node) = self.index.made_by(self.nodes, self.index.find(updated)?, "Sub")?;
        let (parameter, change) = (node.input_name(0)?, self.index.input(node, 1)?);
        let is_descent = parameter == entry.input && self.index.only_reader(change).is_some();
        is_descent.then_some(Descent { subtraction, parameter, change, updated })
    }

    /// Takes out the node that makes the change, if a Gemm or the operator can subtract it.
    fn take_product(&mut self, descent: &Descent<'_>) -> Option<NodeProto> {
        let name = &self.index.value(descent.change).name;
        let makes_it = |node: &NodeProto| node.output.first() == Some(name);
        let written = self.edit.nodes.iter().find_map(|(&at, nodes)| Some((at, nodes.iter().position(makes_it)?)));
        if let Some((at, i)) = written {
            let nodes = self.edit.nodes.entry(at).or_default();
            return nodes[i].is(DOMAIN, OPERATOR).then(|| nodes.remove(i));
        }
        let place = self.index.maker(descent.change)?.0;
        let product = self.nodes[place.0].clone();
        self.is_of_few_rows(&product).then(|| {
            self.edit.nodes.insert(place.0, Vec::new());
            product
        })
    }

    /// Whether a node is a product of two matrices, and sums over few rows. Examples are counted by a name, and taken to be few; tokens by a product (`N*T`),
    /// or by something that is not known.
    fn is_of_few_rows(&self, node: &NodeProto) -> bool {
        let shape = |slot| self.index.input(node, slot).and_then(|input| self.types.shape(input));
        let is_product = node.is_onnx("Gemm") && node.input_name(2).is_none() || node.is_onnx("MatMul");
        let (Some([rows, cols]), Some([_, _])) = (shape(0), shape(1)) else { return false };
        let summed = if node.int("transA", 0) != 0 { rows } else { cols };
        let is_few = match summed {
            Dim::Known(count) => *count <= TERMS_BESIDE_ADDEND as u64,
            Dim::Symbol(name) => !name.contains('*'),
            Dim::Unknown => false,
        };
        is_product && is_few
    }
}

/// The node that subtracts a product from the parameter: a Gemm, or the operator.
fn subtracted(mut product: NodeProto, descent: &Descent<'_>) -> NodeProto {
    let alpha = product.float("alpha", 1.0);
    product.attribute.retain(|attribute| !["alpha", "beta"].contains(&attribute.name()));
    let addend = if product.is(DOMAIN, OPERATOR) {
        ADDEND
    } else {
        "Gemm".clone_into(product.op_type.get_or_insert_default());
        2
    };
    product.input.resize(addend, String::new());
    product.input.push(descent.parameter.to_owned());
    descent.updated.clone_into(&mut product.output[0]);
    product.with_float("alpha", -alpha)
}
