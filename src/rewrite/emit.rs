//! Writing `IsaacGemm` in the place of products.

use std::collections::{BTreeMap, BTreeSet};

use super::bias::Bias;
use super::contraction::{Axes, Operand};
use super::direction::Direction;
use super::error::RewriteError;
use super::flow::{Flow, is_layout};
use super::layer::Conditioning;
use super::stack::without_terms;
use super::unit::{Delivery, Unit};
use crate::model::{GraphEdit, NodeExt, NodeId, ValueId};
use crate::proto::{NodeProto, TensorProto};

/// The operator's domain.
pub const DOMAIN: &str = "ai.isaac";
/// The operator's name.
pub(crate) const OPERATOR: &str = "IsaacGemm";
/// The position of the operator's input `C`.
pub(crate) const ADDEND: usize = 5;
/// The version of [`DOMAIN`] that rewritten models import.
pub const VERSION: i64 = 1;

/// The inputs of the operator that come from a product's operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The gradient of the layer's output.
    Gradient,
    /// The layer's input.
    Input,
    /// The gradient of the layer's output for sampled labels, which lies as the other gradient does.
    Sampled,
}

impl Side {
    /// What new values of this side are called.
    fn name(self) -> &'static str {
        match self {
            Self::Gradient => "gradient",
            Self::Input => "input",
            Self::Sampled => "sampled",
        }
    }

    /// The operand of the product.
    fn of(self, unit: &Unit) -> &Operand {
        match self {
            Self::Gradient | Self::Sampled => &unit.gradient,
            Self::Input => &unit.input,
        }
    }

    /// The position of the operand in the unit's lists.
    fn index(self) -> usize {
        match self {
            Self::Gradient | Self::Sampled => 0,
            Self::Input => 1,
        }
    }
}

/// Collects the changes of one graph.
pub(super) struct Emitter<'a> {
    pub(super) flow: &'a Flow<'a>,
    direction: &'a Direction<'a>,
    opset: i64,
    /// New values.
    names: BTreeSet<String>,
    /// All nodes, new ones too.
    node_names: BTreeSet<String>,
    edit: GraphEdit,
    terms: BTreeMap<NodeId, BTreeSet<usize>>,
}

impl<'a> Emitter<'a> {
    /// `opset` is the imported version of the default domain.
    pub(super) fn new(flow: &'a Flow<'a>, direction: &'a Direction<'a>, opset: i64) -> Self {
        let node_names = flow.graph.nodes().iter().map(|node| node.name().to_owned()).collect();
        let (names, edit, terms) = (BTreeSet::new(), GraphEdit::default(), BTreeMap::new());
        Self { flow, direction, opset, names, node_names, edit, terms }
    }

    /// Puts one operator in the place of the products that are conditioned together.
    ///
    /// # Errors
    /// A gradient that ζ needs and that is not there.
    pub(super) fn replace(&mut self, conditioning: &Conditioning, bias: Option<&Bias>) -> Result<(), RewriteError> {
        let Some((carrier, _)) = conditioning.units.last() else {
            return Ok(());
        };
        let last = carrier.nodes.iter().max().copied().unwrap_or(carrier.nodes[0]);
        let place = bias.map_or(last, |bias| bias.place);
        let name = self.flow.name(carrier.result).to_owned();
        let mut nodes = Vec::new();
        let gradient = self.operand(&conditioning.units, Side::Gradient, &name, &mut nodes)?;
        let mut input = self.operand(&conditioning.units, Side::Input, &name, &mut nodes)?;
        if bias.is_some() {
            input = self.with_ones(carrier, &input, &name, &mut nodes);
        }
        let sampled = match self.direction {
            Direction::Zeta { .. } => Some(self.operand(&conditioning.units, Side::Sampled, &name, &mut nodes)?.0),
            _ => None,
        };
        let is_plain = carrier.delivery == Delivery::Plain && carrier.addend.is_none();
        let conditioned = if is_plain { name.clone() } else { self.fresh(&name, "conditioned") };
        match bias {
            None => self.operator(carrier, &name, [&gradient, &input], sampled, &conditioned, &mut nodes),
            Some(bias) => {
                let both = self.fresh(&name, "weight_and_bias");
                self.operator(carrier, &name, [&gradient, &input], sampled, &both, &mut nodes);
                self.split(carrier, bias, &name, &both, &conditioned, &mut nodes);
            }
        }
        self.deliver(carrier, &name, &conditioned, &mut nodes);
        let products = conditioning.units.iter().flat_map(|(unit, _)| &unit.nodes);
        for node in products.chain(&conditioning.dropped.nodes).chain(bias.map(|bias| &bias.sum)) {
            self.edit.nodes.insert(node.0, Vec::new());
        }
        self.edit.nodes.insert(place.0, nodes);
        for (node, slots) in &conditioning.dropped.terms {
            self.terms.entry(*node).or_default().extend(slots);
        }
        Ok(())
    }

    /// The changes, with sums that lost a term and nodes that nobody reads any more.
    pub(super) fn finish(mut self) -> GraphEdit {
        for (node, slots) in std::mem::take(&mut self.terms) {
            if !self.edit.nodes.contains_key(&node.0) {
                self.edit.nodes.insert(node.0, vec![without_terms(self.flow.node(node), &slots)]);
            }
        }
        self.sweep();
        self.edit
    }

    /// The name of a value that does not exist yet.
    pub(super) fn fresh(&mut self, base: &str, what: &str) -> String {
        let mut name = format!("{base}/isaac/{what}");
        while self.flow.index.find(&name).is_some() || !self.names.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    /// A name that no node has yet, for the operator that makes `result`.
    fn node_name(&mut self, result: &str) -> String {
        let mut name = format!("{result}/{OPERATOR}");
        while !self.node_names.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    /// One input of the operator: its name, and whether it is stored features first.
    fn operand(
        &mut self,
        units: &[(Unit, f64)],
        side: Side,
        name: &str,
        nodes: &mut Vec<NodeProto>,
    ) -> Result<(String, bool), RewriteError> {
        match units {
            [(unit, _)] => self.single(unit, side, name, nodes),
            units => self.stacked(units, side, name, nodes),
        }
    }

    /// The value on one side of a product.
    fn source(&self, operand: &Operand, side: Side) -> Result<String, RewriteError> {
        let value = self.flow.name(operand.value);
        match (side, self.direction) {
            (Side::Sampled, Direction::Zeta { gradients, .. }) => {
                gradients.get(value).cloned().ok_or_else(|| RewriteError::NotSampled { value: value.to_owned() })
            }
            _ => Ok(value.to_owned()),
        }
    }

    /// Brings one operand of a single product to the layout that the operator takes.
    fn single(
        &mut self,
        unit: &Unit,
        side: Side,
        name: &str,
        nodes: &mut Vec<NodeProto>,
    ) -> Result<(String, bool), RewriteError> {
        let operand = side.of(unit);
        let mut value = self.source(operand, side)?;
        let what = side.name();
        let Some(rank) = unit.rank else {
            if operand.axes == Axes::KeptFirst {
                value = self.swap_last_axes(&value, what, name, nodes);
            }
            return Ok((value, false));
        };
        if rank == 2 {
            return Ok((value, operand.axes == Axes::KeptFirst));
        }
        // [batch axes of separate layers, batch axes that are rows, rows, features]
        let order: Vec<usize> = unit.batched.iter().chain(&unit.merged).copied().chain([rank - 2, rank - 1]).collect();
        let own_rank = self.flow.shape(operand.value).map_or(rank, <[_]>::len);
        let stored = operand.axes.permutation(own_rank);
        if own_rank < rank || unit.expand[side.index()].is_some() {
            if !stored.iter().copied().eq(0..own_rank) {
                value = self.transpose(&value, &stored, name, what, nodes);
            }
            if let Some(sizes) = unit.expand[side.index()].clone() {
                let shape = self.constant(&sizes, &format!("{what}_sizes"), name, nodes);
                let expanded = self.fresh(name, &format!("{what}_expanded"));
                nodes.push(NodeProto::build("", "Expand", &[&value, &shape], &[&expanded]));
                value = expanded;
            }
            if !order.iter().copied().eq(0..rank) {
                value = self.transpose(&value, &order, name, &format!("{what}_rows"), nodes);
            }
        } else {
            let permutation: Vec<usize> = order.iter().map(|&axis| stored[axis]).collect();
            if !permutation.iter().copied().eq(0..rank) {
                value = self.transpose(&value, &permutation, name, what, nodes);
            }
        }
        Ok((value, false))
    }

    /// The rows of several products, one below the other.
    fn stacked(
        &mut self,
        units: &[(Unit, f64)],
        side: Side,
        name: &str,
        nodes: &mut Vec<NodeProto>,
    ) -> Result<(String, bool), RewriteError> {
        let mut all_rows = Vec::new();
        for (unit, ratio) in units {
            let rows = self.rows(unit, side, name, nodes)?;
            let is_scaled = side != Side::Input && *ratio != 1.0;
            all_rows.push(if is_scaled { self.scaled(&rows, *ratio, unit.gradient.value, name, nodes) } else { rows });
        }
        let all = self.fresh(name, &format!("{}_rows", side.name()));
        let rows: Vec<&str> = all_rows.iter().map(String::as_str).collect();
        let axis = units[0].0.batched.len() as i64;
        nodes.push(NodeProto::build("", "Concat", &rows, &[&all]).with_int("axis", axis));
        Ok((all, false))
    }

    /// An operand of one product of several as [batch axes, rows, features].
    fn rows(
        &mut self,
        unit: &Unit,
        side: Side,
        name: &str,
        nodes: &mut Vec<NodeProto>,
    ) -> Result<String, RewriteError> {
        let (value, features_first) = self.single(unit, side, name, nodes)?;
        if features_first {
            return Ok(self.transpose(&value, &[1, 0], name, side.name(), nodes));
        }
        if unit.rank == Some(2) || !unit.batched.is_empty() {
            return Ok(value);
        }
        // Flatten keeps the last axis and makes rows of all others, whatever their sizes.
        let flat = self.fresh(name, &format!("{}_flat", side.name()));
        nodes.push(
            NodeProto::build("", "Flatten", &[&value], &[&flat])
                .with_int("axis", unit.rank.map_or(1, |rank| rank as i64 - 1)),
        );
        Ok(flat)
    }

    /// `value`, of the element type of `like`, times a number.
    fn scaled(&mut self, value: &str, ratio: f64, like: ValueId, name: &str, nodes: &mut Vec<NodeProto>) -> String {
        let (factor, scaled) = (self.fresh(name, "ratio"), self.fresh(name, "gradient_scaled"));
        // Without a known type, a float: of any other type the file would have said so.
        let tensor = TensorProto::of_float(ratio, self.flow.elem(like).unwrap_or_default());
        nodes.push(constant_node(tensor, &factor));
        nodes.push(NodeProto::build("", "Mul", &[value, &factor], &[&scaled]));
        scaled
    }

    /// The operator itself.
    fn operator(
        &mut self,
        unit: &Unit,
        name: &str,
        [gradient, input]: [&(String, bool); 2],
        sampled: Option<String>,
        conditioned: &str,
        nodes: &mut Vec<NodeProto>,
    ) {
        let node_name = self.node_name(name);
        let mut operator =
            NodeProto::build(DOMAIN, OPERATOR, &[&gradient.0, &input.0], &[conditioned]).named(&node_name);
        match self.direction {
            Direction::Fixed { lambda_a } => operator = operator.with_float("lambda_a", *lambda_a),
            Direction::ZetaStar { lambda_a } => operator.input.push(lambda_a.clone()),
            Direction::Zeta { lambda_a, lambda_g, is_kronecker, .. } => {
                operator.input.extend([lambda_a.clone(), sampled.unwrap_or_default(), lambda_g.clone()]);
                if *is_kronecker {
                    operator = operator.with_string("form", "kronecker");
                }
            }
        }
        if unit.alpha != 1.0 {
            operator = operator.with_float("alpha", unit.alpha);
        }
        for (flag, is_set) in [("transG", gradient.1), ("transA", input.1), ("transY", unit.input_first)] {
            if is_set {
                operator = operator.with_int(flag, 1);
            }
        }
        if !unit.batched.is_empty() {
            operator = operator.with_int("batched", unit.batched.len() as i64);
        }
        nodes.push(operator);
    }

    /// Brings the operator's result into the form that the rest of the graph expects.
    fn deliver(&mut self, unit: &Unit, name: &str, conditioned: &str, nodes: &mut Vec<NodeProto>) {
        match &unit.delivery {
            Delivery::Plain => {}
            Delivery::Unsqueezed(axes) if self.opset < 13 => {
                nodes.push(NodeProto::build("", "Unsqueeze", &[conditioned], &[name]).with_ints("axes", axes));
            }
            Delivery::Unsqueezed(axes) => {
                let axes = self.constant(axes, "axes", name, nodes);
                nodes.push(NodeProto::build("", "Unsqueeze", &[conditioned, &axes], &[name]));
            }
            Delivery::Reshaped(shape) => {
                nodes.push(NodeProto::build("", "Reshape", &[conditioned, self.flow.name(*shape)], &[name]));
            }
        }
        if let Some((addend, beta)) = unit.addend {
            let mut term = self.flow.name(addend).to_owned();
            if beta != 1.0 {
                term = self.scaled(&term, beta.into(), addend, name, nodes);
            }
            nodes.push(NodeProto::build("", "Add", &[conditioned, &term], &[name]));
        }
    }

    /// Brings a tensor of unknown rank from [..., features, rows] to [all others, rows, features].
    fn swap_last_axes(&mut self, value: &str, what: &str, name: &str, nodes: &mut Vec<NodeProto>) -> String {
        let [shape, sizes, target, flat] =
            ["shape", "sizes", "target", "flat"].map(|part| self.fresh(name, &format!("{what}_{part}")));
        let [two_last, end, rest] = [-2, i64::MAX, -1].map(|index| self.constant(&[index], what, name, nodes));
        nodes.push(NodeProto::build("", "Shape", &[value], &[&shape]));
        nodes.push(NodeProto::build("", "Slice", &[&shape, &two_last, &end], &[&sizes]));
        nodes.push(NodeProto::build("", "Concat", &[&rest, &sizes], &[&target]).with_int("axis", 0));
        nodes.push(NodeProto::build("", "Reshape", &[value, &target], &[&flat]));
        self.transpose(&flat, &[0, 2, 1], name, what, nodes)
    }

    fn transpose(
        &mut self,
        value: &str,
        permutation: &[usize],
        name: &str,
        what: &str,
        nodes: &mut Vec<NodeProto>,
    ) -> String {
        let transposed = self.fresh(name, &format!("{what}_transposed"));
        let permutation: Vec<i64> = permutation.iter().map(|&axis| axis as i64).collect();
        nodes.push(NodeProto::build("", "Transpose", &[value], &[&transposed]).with_ints("perm", &permutation));
        transposed
    }

    pub(super) fn constant(&mut self, values: &[i64], what: &str, name: &str, nodes: &mut Vec<NodeProto>) -> String {
        let constant = self.fresh(name, what);
        nodes.push(constant_node(TensorProto::of_ints(values), &constant));
        constant
    }

    /// Removes layout nodes whose results were read before the edit, and are not any more.
    fn sweep(&mut self) {
        let new = self.edit.nodes.values().flatten();
        let read: BTreeSet<String> = new.flat_map(|node| &node.input).cloned().collect();
        let mut gone: BTreeSet<usize> = self.edit.nodes.keys().copied().collect();
        let mut pending: Vec<usize> = gone.iter().copied().collect();
        while let Some(at) = pending.pop() {
            for input in self.flow.index.inputs(self.flow.node(NodeId(at))) {
                let value = self.flow.index.value(input);
                let Some((maker, _)) = self.flow.maker(input) else {
                    continue;
                };
                let is_read = value.is_output
                    || !value.captured_by.is_empty()
                    || read.contains(&value.name)
                    || value.consumers.iter().any(|(reader, _)| !gone.contains(&reader.0));
                if !is_read && is_layout(self.flow.node(maker)) && gone.insert(maker.0) {
                    self.edit.nodes.insert(maker.0, Vec::new());
                    pending.push(maker.0);
                }
            }
        }
    }
}

fn constant_node(tensor: TensorProto, output: &str) -> NodeProto {
    NodeProto::build("", "Constant", &[], &[output]).with_tensor("value", tensor)
}
