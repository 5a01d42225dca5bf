//! What is run: the program of the model on the command line.

use isaac::model::{Classes, Edit, Model};
use isaac::rewrite::{self, LayerReport};
use isaac::runtime::Program;
use isaac::train::metrics::Labels;
use isaac::train::sweep::Axis;
use isaac::training_graph::Loss;
use isaac::upgrade::upgraded;

use crate::arguments::{Arguments, Run};
use crate::failure::Failure;
use crate::options::{Conditioning, constant_weights, warn};

/// A program, and what is known of its model.
pub(crate) struct Plan {
    pub(crate) program: Program,
    /// The layers that were found; of a training graph that is given, none.
    pub(crate) layers: Vec<LayerReport>,
    /// What labels say; `None` if the loss has none, or is not known.
    pub(crate) labels: Option<Labels>,
}

impl Plan {
    /// Builds the training graph of a forward model, or takes the one that is given.
    pub(crate) fn new(arguments: &Arguments, model: &Model) -> Result<Self, Failure> {
        let recipe = arguments.objective.recipe(model, &arguments.conditioning.param).map_err(Failure::Usage)?;
        let Some(recipe) = recipe else {
            if !rewrite::is_marked_for_training(model) {
                let what = "is a forward model: --loss or --loss-output says what is made small";
                return Err(Failure::Usage(format!("{} {what}", arguments.model.display())));
            }
            check_training_graph(&arguments.conditioning)?;
            let program = Program::new(model.edited(&Edit::default())?)?;
            // Along which axis classes lie matters to what evaluates, and a training graph has nothing that does.
            let classes = program.map.classes;
            let labels = classes.map(|classes| Labels::Classes { class_axis: None, ignore_index: classes.ignored });
            return Ok(Self { program, layers: Vec::new(), labels });
        };
        if recipe.update.is_none() {
            return Err(Failure::Usage("--optimizer none trains nothing".into()));
        }
        let newer = upgraded(model)?;
        let model = newer.as_ref().unwrap_or(model);
        warn::<Arguments>(recipe.loss.doubt(model));
        warn::<Arguments>(constant_weights(&recipe, model)?.and_then(|weights| weights.doubt()));
        let conditioning = &arguments.conditioning;
        let method = conditioning.method().into();
        let (program, layers) =
            isaac::train::program(model, &recipe, method, |analysis| conditioning.choose(analysis))?;
        warn::<Arguments>(conditioning.doubts(layers.len(), &[]));
        let labels = match &recipe.loss {
            Loss::Labelled(labelled) => Some(labelled.distance.into()),
            Loss::Output(_) => None,
        };
        Ok(Self { program, layers, labels })
    }

    /// Refuses dampings that the program has no use for; `varied` are those of a sweep.
    pub(crate) fn check(&self, run: &Run, varied: &[Axis]) -> Result<(), Failure> {
        let is_fed = |scalar: &str| self.program.map.scalars.contains_key(scalar);
        let varies = |is_one: fn(&Axis) -> bool| varied.iter().any(is_one);
        if (run.lambda.is_some() || varies(|axis| matches!(axis, Axis::Lambda(_)))) && !is_fed("lambda_a") {
            return Err(Failure::Usage("--lambda belongs to layers that are conditioned, and there are none".into()));
        }
        if (run.lambda_g.is_some() || varies(|axis| matches!(axis, Axis::LambdaG(_)))) && !is_fed("lambda_g") {
            return Err(Failure::Usage("--lambda-g belongs to --method zeta; kfac has one damping, --lambda".into()));
        }
        Ok(())
    }

    /// The input of the labels and which they can be, if they are classes.
    pub(crate) fn classes(&self) -> Option<(&str, Classes)> {
        let map = &self.program.map;
        Some((map.labels.first()?, map.classes?))
    }
}

/// Refuses options that would have no effect on a training graph.
fn check_training_graph(conditioning: &Conditioning) -> Result<(), Failure> {
    let Conditioning { method, layers, allow, with_bias, param } = conditioning;
    let given = [
        ("--method", method.is_some()),
        ("--layers", !layers.is_empty()),
        ("--allow", !allow.is_empty()),
        ("--with-bias", *with_bias),
        ("--param", !param.is_empty()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => {
            let what = "is for forward models: isaac-rewrite conditions the layers of a training graph";
            Err(Failure::Usage(format!("{option} {what}")))
        }
        None => Ok(()),
    }
}
