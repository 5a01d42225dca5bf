//! tract as an engine: it is part of this program, so that nothing else has to be installed.
//!
//! | file | job |
//! |---|---|
//! | `graph` | a graph, and a plan for each set of shapes that it is run with |
//! | `gemm`, `products` | `ai.isaac::IsaacGemm` as an operator of tract, and its products |
//! | `normalization` | batch normalization in training |
//! | `convert` | tensors from and to tract's |

mod convert;
mod gemm;
mod graph;
mod normalization;
mod products;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use isaac::model::Carried;
use isaac::runtime::{Engine, Evaluation, Program, RuntimeError, check_restored, no_evaluation, number};
use isaac::tensors::Tensor;
use tract_onnx::prelude::TractError;

use convert::{from_tract, to_tract};
use graph::Graph;

/// tract's own kind of tensor.
type Value = Arc<tract_onnx::prelude::Tensor>;

/// The version of tract, as in `Cargo.toml`.
const VERSION: &str = "0.23.9";

/// A program in tract. A step replaces what is carried by the values that it gives out.
#[derive(Debug)]
pub(crate) struct Tract {
    training: Graph,
    evaluation: Option<Graph>,
    carried: Vec<Carried>,
    now: Vec<Value>,
    before: Vec<Value>,
}

/// What tract says.
fn failed(error: TractError) -> RuntimeError {
    // With `#`, the causes follow the error.
    RuntimeError::failed("tract", &format!("{error:#}"))
}

impl Tract {
    /// Reads the graphs of `program`. What tract makes of them depends on the shapes that they are fed with, so that most of
    /// what it cannot run is an error of the first step.
    ///
    /// # Errors
    /// A program that is incomplete, or that tract cannot read.
    pub(crate) fn new(program: &Program) -> Result<Self, RuntimeError> {
        let Program { training, map, evaluation } = program;
        let loss = program.loss()?;
        let carried = map.carried();
        let names = |of: fn(&Carried) -> &String| carried.iter().map(move |carried| of(carried).as_str());
        let outputs: Vec<&str> = std::iter::once(loss).chain(names(|carried| &carried.updated)).collect();
        let fed: Vec<&str> = names(|carried| &carried.input).chain(map.scalars.values().map(String::as_str)).collect();
        let now: Vec<Value> = program.start()?.iter().map(to_tract).collect::<Result<_, _>>()?;
        let training = Graph::new(training, &fed, &outputs)?;
        let evaluation = evaluation.as_ref().map(|Evaluation { model, outputs }| {
            let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
            Graph::new(model, &names(|carried| &carried.name).collect::<Vec<_>>(), &outputs)
        });
        let evaluation = evaluation.transpose()?;
        Ok(Self { training, evaluation, carried, before: now.clone(), now })
    }
}

impl Engine for Tract {
    fn runtime(&self) -> String {
        format!("tract {VERSION}")
    }

    fn step(&mut self, feeds: &[(&str, Tensor)]) -> Result<f64, RuntimeError> {
        let carried = self.carried.iter().map(|carried| carried.input.as_str()).zip(&self.now);
        let mut outputs = self.training.run(carried, feeds)?.into_iter();
        // The loss is the first output that was asked for.
        let loss = outputs.next().map(|loss| from_tract(&loss)).transpose()?;
        let loss = number(&loss.unwrap_or_else(|| Tensor::of::<f32>(&[0], &[])))?;
        let updated: Vec<Value> = outputs.collect();
        for ((carried, now), updated) in self.carried.iter().zip(&self.now).zip(&updated) {
            if !is_alike(now, updated) {
                let what = format!("'{}' became {updated:?} in a step from {now:?}", carried.name);
                return Err(RuntimeError::Program(what));
            }
        }
        self.before = std::mem::replace(&mut self.now, updated);
        Ok(loss)
    }

    fn evaluate(&mut self, feeds: &[(&str, Tensor)]) -> Result<Vec<Tensor>, RuntimeError> {
        let graph = self.evaluation.as_mut();
        let graph = graph.ok_or_else(no_evaluation)?;
        let carried = self.carried.iter().map(|carried| carried.name.as_str()).zip(&self.now);
        let feeds: Vec<(&str, Tensor)> = feeds.iter().filter(|(name, _)| graph.has_input(name)).cloned().collect();
        graph.run(carried, &feeds)?.iter().map(|value| from_tract(value)).collect()
    }

    fn carried(&self) -> Result<Vec<Tensor>, RuntimeError> {
        self.now.iter().map(|value| from_tract(value)).collect()
    }

    fn carried_before(&self) -> Result<Vec<Tensor>, RuntimeError> {
        self.before.iter().map(|value| from_tract(value)).collect()
    }

    fn restore(&mut self, carried: &[Tensor]) -> Result<(), RuntimeError> {
        let values: Vec<Value> = carried.iter().map(to_tract).collect::<Result<_, _>>()?;
        check_restored(&self.carried, carried, |at, _| is_alike(&values[at], &self.now[at]))?;
        self.before.clone_from(&values);
        self.now = values;
        Ok(())
    }
}

fn is_alike(one: &Value, other: &Value) -> bool {
    one.datum_type() == other.datum_type() && one.shape() == other.shape()
}
