//! What tells one run from another.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::data::Batches;
use super::evaluation::Examination;
use crate::model::Carried;
use crate::runtime::Program;

/// What a run is resumed with: all of it has to be as it was for the same steps to follow. Of models and data, it has digests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// The seed.
    pub seed: u64,
    /// The number of examples in a step.
    pub batch_size: usize,
    /// The number of examples.
    pub examples: usize,
    /// The graph that evaluates, without what is trained; `None` if there is none.
    pub model: Option<String>,
    /// The training graph, without what it carries.
    pub training: String,
    /// The examples, in their order.
    pub data: String,
    /// Those that the run is evaluated with; `None` if it is not evaluated.
    pub evaluated: Option<String>,
}

impl Identity {
    /// Of a run of `program`.
    pub fn new(program: &Program, batches: Batches<'_>, examination: Option<&Examination<'_>>, seed: u64) -> Self {
        let carried = program.map.carried();
        let names = |of: fn(&Carried) -> &String| carried.iter().map(|carried| of(carried).as_str()).collect();
        let (inputs, parameters): (BTreeSet<&str>, BTreeSet<&str>) =
            (names(|carried| &carried.input), names(|carried| &carried.name));
        Self {
            seed,
            batch_size: batches.size(),
            examples: batches.examples().len(),
            model: program.evaluation.as_ref().map(|evaluation| evaluation.model.digest(&parameters)),
            training: program.training.digest(&inputs),
            data: batches.examples().digest(),
            evaluated: examination.map(|examination| examination.batches.examples().digest()),
        }
    }

    /// What of this run is not as in `other`, if anything: the message of a checkpoint that is not resumed.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let numbers = [
            ("seed", self.seed, other.seed),
            ("batch size", self.batch_size as u64, other.batch_size as u64),
            ("number of examples", self.examples as u64, other.examples as u64),
        ];
        if let Some((what, there, here)) = numbers.into_iter().find(|(_, there, here)| there != here) {
            return Some(format!("its {what} is {there}, that of this run {here}"));
        }
        let others = [
            ("model, its loss or what of it is trained", self.model != other.model),
            (
                "training graph: the optimizer, the method or the layers that are conditioned",
                self.training != other.training,
            ),
            ("data or their order", self.data != other.data),
            ("data that the run is evaluated with", self.evaluated != other.evaluated),
        ];
        let differs = others.into_iter().find(|(_, differs)| *differs);
        differs.map(|(what, _)| format!("this run differs in the {what}"))
    }
}
