//! Plain gradient descent, taken into the products that make gradients.
//!
//! W′ = W - lr·dW goes over all of a weight twice, once to scale its gradient and once to subtract that. But dW is a product, linear in
//! the gradient of the layer's output, which has a row for each example: with that times lr, the product is lr·dW, and a Gemm, or the
//! operator that stands in its place, subtracts it from W as it goes. Some updates stand alone:
//! - with momentum, weight decay or clipping, which need dW itself;
//! - in 16 bits, where lr times the layer's gradient may underflow, and there is a Cast between product and update;
//! - where rows are many, examples or tokens, and the weight is what is small.

use std::collections::BTreeSet;

use super::TrainingGraph;
use crate::model::{Builder, Dim, GraphEdit, Index, NodeExt, NodeId, ONNX_DOMAIN, ParameterEntry, Types};
use crate::proto::NodeProto;
use crate::rewrite::{ADDEND, DOMAIN, OPERATOR};

impl TrainingGraph<'_> {
    /// Fuses updates with products, some of which `edit` has replaced by the operator.
    pub(super) fn fuse_updates(&self, index: &Index, edit: &mut GraphEdit) {
        let types = Types::infer(self.model.graph(), index);
        let b = Builder::new(index, self.model.opset(ONNX_DOMAIN).unwrap_or(1), "update/");
        let gradients = self.dependent_on_seed();
        let mut fusion = Fusion { nodes: self.model.graph().nodes(), index, types: &types, gradients, b, edit };
        for parameter in &self.map.parameters {
            if let Some(descent) = fusion.descent(parameter)
                && let Some((product, factor)) = fusion.take_product(&descent)
            {
                fusion.replace(&descent, product, factor);
            }
        }
    }

    /// The gradients of activations, and what the backward pass makes of them.
    fn dependent_on_seed(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::from([self.seed.as_str()]);
        for node in &self.backward {
            if node.input.iter().any(|input| found.contains(input.as_str())) {
                found.extend(node.output.iter().map(String::as_str));
            }
        }
        found
    }
}

/// The update of one parameter: updated = parameter - change, with change = rate · gradient.
struct Descent<'a> {
    subtraction: NodeId,
    scaling: NodeId,
    parameter: &'a str,
    rate: &'a str,
    gradient: &'a str,
    updated: &'a str,
}

struct Fusion<'a> {
    nodes: &'a [NodeProto],
    index: &'a Index,
    types: &'a Types,
    /// What depends on the gradient of the loss.
    gradients: BTreeSet<&'a str>,
    b: Builder<'a>,
    edit: &'a mut GraphEdit,
}

impl<'a> Fusion<'a> {
    /// The update of a parameter, if it is one of these, and nobody else reads what lies between.
    fn descent(&self, entry: &'a ParameterEntry) -> Option<Descent<'a>> {
        let updated = entry.updated.as_deref()?;
        let (subtraction, node) = self.maker(updated, "Sub")?;
        let (parameter, change) = (node.input_name(0)?, node.input_name(1)?);
        let (scaling, node) = self.maker(change, "Mul")?;
        let (rate, gradient) = (node.input_name(0)?, node.input_name(1)?);
        let is_between = |name: &str| self.index.find(name).and_then(|value| self.index.only_reader(value)).is_some();
        (parameter == entry.input && is_between(change) && is_between(gradient)).then_some(Descent {
            subtraction,
            scaling,
            parameter,
            rate,
            gradient,
            updated,
        })
    }

    /// The node that makes a value, if it is of this operator.
    fn maker(&self, value: &str, op_type: &str) -> Option<(NodeId, &'a NodeProto)> {
        self.index.made_by(self.nodes, self.index.find(value)?, op_type)
    }

    /// The position of the node that makes a value.
    fn place(&self, value: &str) -> Option<NodeId> {
        Some(self.index.maker(self.index.find(value)?)?.0)
    }

    /// Takes out the node that makes a parameter's gradient, if it is a product, and says which of its factors is to be scaled.
    fn take_product(&mut self, descent: &Descent<'_>) -> Option<(NodeProto, usize)> {
        let makes_it = |node: &NodeProto| node.output.first().is_some_and(|output| output == descent.gradient);
        let place = self.place(descent.gradient)?;
        let written = self.edit.nodes.iter().find_map(|(&at, nodes)| Some((at, nodes.iter().position(makes_it)?)));
        let node = written.map_or(&self.nodes[place.0], |(at, i)| &self.edit.nodes[&at][i]);
        let factor =
            self.gradient_factor(node).filter(|&slot| self.is_smaller(&node.input[slot], descent.parameter))?;
        let node = node.clone();
        match written {
            Some((at, _)) => self.edit.nodes.entry(at).or_default().retain(|node| !makes_it(node)),
            None => {
                self.edit.nodes.insert(place.0, Vec::new());
            }
        }
        Some((node, factor))
    }

    /// The input of a product that is the gradient of a layer's output. `None` for other nodes, and for products that no Gemm can take
    /// the place of.
    fn gradient_factor(&self, node: &NodeProto) -> Option<usize> {
        if node.is(DOMAIN, OPERATOR) {
            return Some(0);
        }
        let rank = |slot| Some(self.types.shape(self.index.input(node, slot)?)?.len());
        let is_product = node.is_onnx("Gemm") && node.input_name(2).is_none()
            || node.is_onnx("MatMul") && rank(0) == Some(2) && rank(1) == Some(2);
        let is_gradient = |slot| node.input_name(slot).is_some_and(|factor| self.gradients.contains(factor));
        match [0, 1].map(is_gradient) {
            [true, false] if is_product => Some(0),
            [false, true] if is_product => Some(1),
            _ => None,
        }
    }

    /// Whether a matrix has no more elements than a parameter. Examples are counted by a name, and taken to be few; tokens by a product
    /// (`N*T`), or by something that is not known.
    fn is_smaller(&self, matrix: &str, parameter: &str) -> bool {
        let shape = |name| self.types.shape(self.index.find(name)?);
        let size = |shape: &[Dim]| shape.iter().filter_map(Dim::known).try_fold(1_u64, u64::checked_mul);
        let is_short = |dim: &Dim| match dim {
            Dim::Known(_) => true,
            Dim::Symbol(name) => !name.contains('*'),
            Dim::Unknown => false,
        };
        match (shape(matrix), shape(parameter)) {
            (Some(matrix @ [_, _]), Some(parameter)) if matrix.iter().all(is_short) => {
                size(matrix).is_some_and(|count| Some(count) <= size(parameter))
            }
            _ => false,
        }
    }

    /// Scales the gradient of the layer's output in the place of that of the parameter.
    fn replace(&mut self, descent: &Descent<'_>, mut product: NodeProto, factor: usize) {
        product.input[factor] = self.b.op("Mul", &[descent.rate, &product.input[factor]]);
        self.b.push(subtracted(product, descent));
        self.edit.nodes.insert(descent.scaling.0, Vec::new());
        self.edit.nodes.insert(descent.subtraction.0, self.b.take_nodes());
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
