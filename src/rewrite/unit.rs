//! A weight-gradient product with the sum over batch axes behind it, ready to be written as one operator.

use super::contraction::{Axes, Contraction, Operand, rank};
use super::flow::Flow;
use super::layer::{Reason, Refusal};
use super::matching::Product;
use crate::model::{Dim, NodeExt, NodeId, ValueId, from_front};
use crate::proto::NodeProto;

/// Under which name, and in which form, the rest of the graph expects the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delivery {
    /// As it is.
    Plain,
    /// With axes of size one, where a ReduceSum kept those that it summed over.
    Unsqueezed(Vec<i64>),
    /// In the shape that this value holds.
    Reshaped(ValueId),
}

/// One product that becomes one operator.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// The nodes that it stands for, the product first.
    pub(super) nodes: Vec<NodeId>,
    pub(super) gradient: Operand,
    pub(super) input: Operand,
    /// The rank of the product; `None` where it is unknown (then all axes but the features are rows).
    pub(super) rank: Option<usize>,
    /// Batch axes that are rows of one layer, because their slices are summed.
    pub(super) merged: Vec<usize>,
    /// Batch axes that index independent layers.
    pub(super) batched: Vec<usize>,
    /// Sizes to which an operand has to be repeated along the batch axes: (gradient, input).
    pub(super) expand: [Option<Vec<i64>>; 2],
    pub(super) alpha: f32,
    pub(super) addend: Option<(ValueId, f32)>,
    /// Whether the result is `[…, n, m]`: input features first.
    pub(super) input_first: bool,
    pub(super) delivery: Delivery,
    pub(super) result: ValueId,
}

impl Unit {
    /// Plans the replacement of `product`, whose parameter has this shape.
    pub(super) fn plan(flow: &Flow<'_>, product: &Product, parameter: Option<&[Dim]>) -> Result<Self, Refusal> {
        let Contraction { node, operands, alpha, addend, output, .. } = &product.contraction;
        let mut unit = Self {
            nodes: vec![*node],
            gradient: operands[1 - product.input].clone().straightened(flow),
            input: operands[product.input].clone().straightened(flow),
            rank: product_rank(flow, &product.contraction),
            merged: Vec::new(),
            batched: Vec::new(),
            expand: [None, None],
            alpha: *alpha,
            addend: addend.filter(|(_, beta)| *beta != 0.0),
            input_first: product.input == 0,
            delivery: Delivery::Plain,
            result: *output,
        };
        match unit.rank {
            Some(2) => {}
            Some(rank) => {
                unit.sum_batches(flow, rank, parameter.map(<[Dim]>::len))?;
                unit.batched = (0..rank - 2).filter(|axis| !unit.merged.contains(axis)).collect();
                unit.match_batches(flow, rank)?;
            }
            None => unit.flatten_all(flow, parameter)?,
        }
        Ok(unit)
    }

    /// Without a rank, all leading axes can only be rows: the parameter must be a single matrix.
    fn flatten_all(&mut self, flow: &Flow<'_>, parameter: Option<&[Dim]>) -> Result<(), Refusal> {
        let stacks = parameter.and_then(|shape| shape.len().checked_sub(2).map(|count| &shape[..count]));
        let is_matrix = stacks.is_some_and(|stacks| stacks.iter().all(|dim| dim.known() == Some(1)));
        let is_simple = |operand: &Operand| !matches!(operand.axes, Axes::Permuted(_));
        if !is_matrix || !is_simple(&self.gradient) || !is_simple(&self.input) {
            return Err(unsupported("its operands have an unknown rank, and the weight is no single matrix"));
        }
        if let Some((sum, axes)) = sum_behind(flow, self.result) {
            return self.absorb_sum(flow, sum, axes, None);
        }
        // Axes that are computed from the shape of the product adapt to a product that is summed already.
        let product = self.nodes[0];
        let adapts = |&(reader, slot): &(NodeId, usize)| {
            let node = flow.node(reader);
            let axes = flow.index.input(node, 1).filter(|_| slot == 0);
            !node.is_onnx("ReduceSum") || axes.is_some_and(|axes| flow.ancestors(axes)[product.0])
        };
        if !flow.index.value(self.result).consumers.iter().all(adapts) {
            return Err(unsupported(
                "its operands have an unknown rank, and it is summed over axes that do not depend on it",
            ));
        }
        let axes: Vec<i64> = (0..).take(stacks.map_or(0, <[Dim]>::len)).collect();
        if !axes.is_empty() {
            self.delivery = Delivery::Unsqueezed(axes);
        }
        Ok(())
    }

    /// Takes the ReduceSum behind a batched product into the unit.
    fn sum_batches(&mut self, flow: &Flow<'_>, rank: usize, parameter_rank: Option<usize>) -> Result<(), Refusal> {
        match sum_behind(flow, self.result) {
            Some((sum, axes)) => self.absorb_sum(flow, sum, axes, Some(rank))?,
            None if parameter_rank.is_some_and(|parameter| parameter < rank) && !self.single_batch(flow, rank) => {
                return Err(unsupported("its batch axes are summed in a way that is not recognised"));
            }
            None => {}
        }
        Ok(())
    }

    fn single_batch(&self, flow: &Flow<'_>, rank: usize) -> bool {
        // A file can declare fewer axes than the product has.
        let is_one = |shape: &[Dim]| {
            shape.get(..rank - 2).is_some_and(|batches| batches.iter().all(|dim| dim.known() == Some(1)))
        };
        flow.shape(self.result).is_none_or(is_one)
    }

    fn absorb_sum(
        &mut self,
        flow: &Flow<'_>,
        sum: NodeId,
        axes: Option<Vec<i64>>,
        rank: Option<usize>,
    ) -> Result<(), Refusal> {
        let node = flow.node(sum);
        let result = flow.index.output(node, 0).ok_or_else(|| unsupported("its sum has no result"))?;
        self.nodes.push(sum);
        self.result = result;
        let keeps = node.int("keepdims", 1) != 0;
        match (rank, axes) {
            (Some(rank), Some(axes)) => {
                self.merged =
                    axes.iter().filter_map(|&axis| from_front(axis, rank).filter(|&axis| axis + 2 < rank)).collect();
                if self.merged.len() != axes.len() || axes.is_empty() {
                    return Err(unsupported("it is summed over its own rows or columns"));
                }
                if keeps {
                    self.delivery = Delivery::Unsqueezed(self.merged.iter().map(|&axis| axis as i64).collect());
                }
            }
            // Axes that are computed at run time bring a broadcast product back to the parameter's shape.
            (rank, _) => {
                let reshape = flow
                    .index
                    .only_reader(result)
                    .filter(|&(node, slot)| slot == 0 && flow.node(node).is_onnx("Reshape"))
                    .ok_or_else(|| unsupported("it is summed over axes that are computed at run time"))?
                    .0;
                let node = flow.node(reshape);
                let (Some(shape), Some(result)) = (flow.index.input(node, 1), flow.index.output(node, 0)) else {
                    return Err(unsupported("the Reshape behind its sum is incomplete"));
                };
                self.merged = (0..rank.unwrap_or(2) - 2).collect();
                self.nodes.push(reshape);
                self.delivery = Delivery::Reshaped(shape);
                self.result = result;
            }
        }
        Ok(())
    }

    /// Both operands need the same batch axes; one that is broadcast has to be repeated.
    fn match_batches(&mut self, flow: &Flow<'_>, rank: usize) -> Result<(), Refusal> {
        let sizes = |operand: &Operand| -> Option<Vec<Dim>> {
            let shape = flow.shape(operand.value)?;
            let order = operand.axes.permutation(shape.len());
            Some(order[..shape.len() - 2].iter().map(|&axis| shape[axis].clone()).collect())
        };
        let (Some(gradient), Some(input)) = (sizes(&self.gradient), sizes(&self.input)) else {
            return Ok(());
        };
        let pad = |sizes: Vec<Dim>| [vec![Dim::Known(1); rank - 2 - sizes.len()], sizes].concat();
        let padded = [pad(gradient.clone()), pad(input.clone())];
        for (side, own) in [gradient, input].into_iter().enumerate() {
            let other = &padded[1 - side];
            let repeated = padded[side].iter().zip(other).any(|(a, b)| a.known() == Some(1) && b.known() != Some(1));
            if repeated || own.len() < rank - 2 {
                let sizes: Option<Vec<i64>> = other.iter().map(|dim| i64::try_from(dim.known()?).ok()).collect();
                let sizes =
                    sizes.ok_or_else(|| unsupported("one operand is broadcast along an axis of unknown size"))?;
                self.expand[side] = Some([sizes, vec![1, 1]].concat());
            }
        }
        Ok(())
    }

    /// The sizes of the axes that are summed over: the layer's rows.
    pub(super) fn rows(&self, flow: &Flow<'_>) -> Option<Vec<Dim>> {
        // In front of a Reshape to two dimensions the rows are still told apart.
        let root = flow.root(self.input.value);
        let shape = flow.shape(self.input.value)?;
        let order = self.input.axes.permutation(shape.len());
        let axes = self.merged.iter().copied().chain([order.len().checked_sub(2)?]);
        let rows: Vec<Dim> = axes.map(|axis| shape.get(*order.get(axis)?).cloned()).collect::<Option<_>>()?;
        match flow.shape(root) {
            Some(full) if shape.len() == 2 && full.len() > 2 && full.last() == shape.last() => {
                Some(full[..full.len() - 1].to_vec())
            }
            _ => Some(rows),
        }
    }
}

pub(super) fn unsupported(what: &str) -> Refusal {
    Refusal { reason: Reason::Unsupported, detail: what.to_owned() }
}

fn product_rank(flow: &Flow<'_>, contraction: &Contraction) -> Option<usize> {
    let operands = contraction.operands.each_ref().map(|operand| rank(flow, operand.value));
    match operands {
        [Some(left), Some(right)] => Some(left.max(right)),
        _ => rank(flow, contraction.output),
    }
}

/// The ReduceSum that alone reads `value`, and its axes where they are constant.
fn sum_behind(flow: &Flow<'_>, value: ValueId) -> Option<(NodeId, Option<Vec<i64>>)> {
    let (reader, slot) = flow.index.only_reader(value)?;
    let node = flow.node(reader);
    if slot != 0 || !node.is_onnx("ReduceSum") {
        return None;
    }
    Some((reader, constant_axes(flow, node)))
}

/// The axes of a ReduceSum, where they are constant.
pub(super) fn constant_axes(flow: &Flow<'_>, node: &NodeProto) -> Option<Vec<i64>> {
    match node.ints("axes") {
        Some(axes) => Some(axes.to_vec()),
        None => flow.index.input(node, 1).and_then(|axes| flow.constant_ints(axes)),
    }
}
