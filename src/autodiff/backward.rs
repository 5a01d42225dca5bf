use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::error::{AutodiffError, Blocked};
use super::expand;
use super::rules::{self, Rule};
use super::step::Step;
use crate::model::{Builder, Graph, Index, NodeExt, NodeId, Types, ValueId, is_float};

/// The gradient of one value with respect to others.
pub struct Backward<'a> {
    graph: &'a Graph,
    index: &'a Index,
    types: &'a Types,
    path: &'a Path,
}

impl<'a> Backward<'a> {
    /// A backward pass through `graph`; errors name the file at `path`.
    pub fn new(graph: &'a Graph, index: &'a Index, types: &'a Types, path: &'a Path) -> Self {
        Self { graph, index, types, path }
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
        let mut blocked = Vec::new();
        for &id in self.index.order().iter().rev() {
            let node = &self.graph.nodes()[id.0];
            let outputs: Vec<Option<ValueId>> =
                (0..node.output.len()).map(|slot| self.index.output(node, slot)).collect();
            let reached =
                outputs.iter().flatten().any(|output| arriving.contains_key(output) && depends[output.index()]);
            let inputs: Vec<bool> = (0..node.input.len())
                .map(|slot| self.index.input(node, slot).is_some_and(|input| depends[input.index()]))
                .collect();
            // What only its subgraphs read stands in the way as well.
            if !reached || !self.index.reads(self.graph, id).any(|read| depends[read.index()]) {
                continue;
            }
            let gradients: Vec<Option<String>> =
                outputs.iter().map(|output| Some(sum(builder, arriving.get(&(*output)?)?))).collect();
            for (output, gradient) in outputs.iter().zip(&gradients) {
                if let (Some(output), Some(gradient)) = (output, gradient) {
                    arriving.insert(*output, vec![gradient.clone()]);
                }
            }
            match self.differentiate(builder, id, gradients, inputs) {
                Ok(made) => {
                    for (slot, gradient) in made.into_iter().enumerate() {
                        if let (Some(input), Some(gradient)) = (self.index.input(node, slot), gradient) {
                            arriving.entry(input).or_default().push(gradient);
                        }
                    }
                }
                Err(why) => {
                    blocked.push((id, why));
                    // Go on as if all were well, to find the others.
                    for input in self.index.reads(self.graph, id).filter(|input| depends[input.index()]) {
                        arriving.entry(input).or_default().push(String::new());
                    }
                }
            }
        }
        if !blocked.is_empty() {
            let blocked = self.report(blocked, wanted);
            return Err(AutodiffError::Unsupported { path: self.path.to_owned(), blocked });
        }
        let found = wanted.iter().filter_map(|value| Some((*value, sum(builder, arriving.get(value)?))));
        Ok(found.collect())
    }

    fn differentiate(
        &self,
        builder: &mut Builder<'a>,
        id: NodeId,
        arriving: Vec<Option<String>>,
        wanted: Vec<bool>,
    ) -> Result<Vec<Option<String>>, String> {
        let node = &self.graph.nodes()[id.0];
        let rule = rules::find(node)
            .ok_or_else(|| expand::why_not(self.graph, self.index, self.types, builder.opset(), node))?;
        let Rule { inputs, apply } = rule;
        if let Some(slot) = (0..wanted.len()).find(|&slot| wanted[slot] && !inputs.contains(slot)) {
            return Err(format!("it is not differentiable with respect to its input {slot}"));
        }
        let made = vec![None; node.input.len()];
        let (graph, index, types) = (self.graph, self.index, self.types);
        let mut step = Step { graph, index, types, node, b: builder, arriving, wanted, made };
        apply(&mut step)?;
        Ok(step.made)
    }

    /// By value: whether it depends on a wanted value in a way that has a gradient.
    fn dependent(&self, wanted: &BTreeSet<ValueId>) -> Vec<bool> {
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

fn sum(builder: &mut Builder<'_>, terms: &[String]) -> String {
    match terms {
        [single] => single.clone(),
        _ => {
            let terms: Vec<&str> = terms.iter().map(String::as_str).collect();
            builder.op("Sum", &terms)
        }
    }
}
