use std::collections::{BTreeMap, BTreeSet};

use super::error::{AutodiffError, Blocked};
use super::expand;
use super::rules::{self, Gates, Rule};
use super::step::{Refusal, Step};
use crate::model::{Builder, Graph, Index, Model, NodeExt, NodeId, Types, ValueId, is_float, working_type};
use crate::proto::NodeProto;

/// The gradient of one value with respect to others.
pub struct Backward<'a> {
    pub(super) model: &'a Model,
    pub(super) graph: &'a Graph,
    pub(super) index: &'a Index,
    pub(super) types: &'a Types,
}

impl<'a> Backward<'a> {
    /// A backward pass through `graph`, which is one of the model's.
    pub fn new(model: &'a Model, graph: &'a Graph, index: &'a Index, types: &'a Types) -> Self {
        Self { model, graph, index, types }
    }

    /// Appends to `builder` the nodes that compute the gradients of `wanted`, given those of some values (`seeds`). A wanted value that no seed
    /// depends on is missing from the result.
    pub(crate) fn gradients(
        &self,
        builder: &mut Builder<'a>,
        seeds: &[(ValueId, String)],
        wanted: &BTreeSet<ValueId>,
    ) -> Result<BTreeMap<ValueId, String>, AutodiffError> {
        let depends = self.dependent(wanted);
        let mut arriving: BTreeMap<ValueId, Vec<String>> = BTreeMap::new();
        for (value, gradient) in seeds {
            arriving.entry(*value).or_default().push(gradient.clone());
        }
        let gates = Gates { graph: self.graph, index: self.index, types: self.types, wanted };
        let mut blocked = Vec::new();
        for &id in self.index.order().iter().rev() {
            let node = &self.graph.nodes()[id.0];
            let outputs: Vec<Option<ValueId>> =
                (0..node.output.len()).map(|slot| self.index.output(node, slot)).collect();
            let reached =
                outputs.iter().flatten().any(|output| arriving.contains_key(output) && depends[output.index()]);
            // With what only its subgraphs read.
            let reads: BTreeSet<ValueId> =
                self.index.reads(self.graph, id).filter(|read| depends[read.index()]).collect();
            if !reached || reads.is_empty() {
                continue;
            }
            let gradients: Vec<Option<String>> =
                outputs.iter().map(|output| Some(sum(builder, arriving.get(&(*output)?)?))).collect();
            for (output, gradient) in outputs.iter().zip(&gradients) {
                if let (Some(output), Some(gradient)) = (output, gradient) {
                    arriving.insert(*output, vec![gradient.clone()]);
                }
            }
            let made = match gates.ending_with(node) {
                Some((x, gate)) => Ok(vec![(x, gate.gradient(&mut self.step(builder, node, gradients, Vec::new())))]),
                None => self.differentiate(builder, node, gradients, &reads),
            };
            match made {
                Ok(made) => {
                    for (input, gradient) in made {
                        arriving.entry(input).or_default().push(gradient);
                    }
                }
                Err(why) => {
                    blocked.push((id, why));
                    // Go on as if all were well, to find the others.
                    for input in reads {
                        arriving.entry(input).or_default().push(String::new());
                    }
                }
            }
        }
        if !blocked.is_empty() {
            let blocked = self.report(blocked, wanted);
            return Err(AutodiffError::Unsupported { path: self.model.path().to_owned(), blocked });
        }
        let found = wanted.iter().filter_map(|value| Some((*value, sum(builder, arriving.get(value)?))));
        Ok(found.collect())
    }

    /// The gradients of the values among `wanted` that a node reads.
    fn differentiate(
        &self,
        builder: &mut Builder<'a>,
        node: &'a NodeProto,
        arriving: Vec<Option<String>>,
        wanted: &BTreeSet<ValueId>,
    ) -> Result<Vec<(ValueId, String)>, Refusal> {
        if node.is_onnx("If") {
            return self.through_branches(builder, node, &arriving, &wanted.iter().copied().collect::<Vec<_>>());
        }
        let (graph, index, types) = (self.graph, self.index, self.types);
        let rule = rules::find(node).ok_or_else(|| expand::why_not(graph, index, types, builder.opset(), node))?;
        let Rule { inputs, apply } = rule;
        let input = |slot| index.input(node, slot);
        let wanted: Vec<bool> =
            (0..node.input.len()).map(|slot| input(slot).is_some_and(|input| wanted.contains(&input))).collect();
        if let Some(slot) = (0..wanted.len()).find(|&slot| wanted[slot] && !inputs.contains(slot)) {
            return Err(format!("it is not differentiable with respect to its input {slot}"));
        }
        let mut step = self.step(builder, node, arriving, wanted);
        apply(&mut step)?;
        Ok(step.made.into_iter().enumerate().filter_map(|(slot, gradient)| Some((input(slot)?, gradient?))).collect())
    }

    fn step<'b>(
        &self,
        b: &'b mut Builder<'a>,
        node: &'a NodeProto,
        arriving: Vec<Option<String>>,
        wanted: Vec<bool>,
    ) -> Step<'a, 'b> {
        let made = vec![None; node.input.len()];
        Step { graph: self.graph, index: self.index, types: self.types, node, b, arriving, wanted, made }
    }

    /// By value: whether it depends on a wanted value in a way that has a gradient.
    pub(crate) fn dependent(&self, wanted: &BTreeSet<ValueId>) -> Vec<bool> {
        let mut depends = vec![false; self.index.values().count()];
        for value in wanted {
            depends[value.index()] = true;
        }
        for &id in self.index.order() {
            let node = &self.graph.nodes()[id.0];
            let mut reads = self.index.reads(self.graph, id);
            if rules::is_flat(node) || !reads.any(|input| depends[input.index()]) {
                continue;
            }
            for output in (0..node.output.len()).filter_map(|slot| self.index.output(node, slot)) {
                depends[output.index()] |= self.types.elem(output).is_none_or(is_float);
            }
        }
        depends
    }

    /// Whether all gradients of `wanted` values, and those on the way to them, are in types that are computed in as they are. Of what is inside of
    /// subgraphs, nothing is known here.
    pub(crate) fn is_in_working_types(&self, wanted: &BTreeSet<ValueId>) -> bool {
        let depends = self.dependent(wanted);
        let is_reached = |value: ValueId| depends[value.index()];
        let mut values = self.index.values().map(|(value, _)| value).filter(|value| is_reached(*value));
        let mut nodes = self.graph.nodes().iter().filter(|node| node.subgraphs().next().is_some());
        values.all(|value| self.elem(value).is_some_and(|elem| working_type(elem) == elem))
            && !nodes
                .any(|node| (0..node.output.len()).filter_map(|slot| self.index.output(node, slot)).any(is_reached))
    }

    /// The element type of a value.
    pub(crate) fn elem(&self, value: ValueId) -> Option<i32> {
        self.types.elem(value)
    }

    /// What is reported of blocked nodes: each with the wanted values that it depends on.
    fn report(&self, blocked: Vec<(NodeId, String)>, wanted: &BTreeSet<ValueId>) -> Vec<Blocked> {
        let depends: Vec<(&str, Vec<bool>)> = wanted
            .iter()
            .map(|value| (self.index.value(*value).name.as_str(), self.dependent(&BTreeSet::from([*value]))))
            .collect();
        // In forward order.
        let report = blocked.into_iter().rev().map(|(id, why)| {
            let reads: Vec<ValueId> = self.index.reads(self.graph, id).collect();
            let is_behind = |depends: &[bool]| reads.iter().any(|read| depends[read.index()]);
            let parameters =
                depends.iter().filter(|(_, depends)| is_behind(depends)).map(|(name, _)| (*name).to_owned());
            Blocked { node: self.graph.nodes()[id.0].label(), why, parameters: parameters.collect() }
        });
        report.collect()
    }
}

/// Two at a time: ONNX Runtime takes such a sum into the `Gemm` that makes one of the two, and a sum of more takes it longer than all of these.
fn sum(builder: &mut Builder<'_>, terms: &[String]) -> String {
    let [first, rest @ ..] = terms else { return String::new() };
    rest.iter().fold(first.clone(), |sum, term| builder.op("Sum", &[&sum, term]))
}
