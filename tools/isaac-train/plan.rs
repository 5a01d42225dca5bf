//! What is run: the program of the model on the command line.

use isaac::model::{Edit, Model};
use isaac::rewrite::{self, Analysis, LayerReport};
use isaac::runtime::Program;
use isaac::train::metrics::Labels;
use isaac::training_graph::{Damping, Loss, TrainingGraph};
use isaac::upgrade::upgraded;

use crate::arguments::Arguments;
use crate::failure::Failure;

/// The damping λa of a forward model's layers, if none is given.
pub(crate) const LAMBDA: f32 = 1.0;

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
            return Ok(Self {
                program: Program::new(model.edited(&Edit::default())?)?,
                layers: Vec::new(),
                labels: None,
            });
        };
        if recipe.update.is_none() {
            return Err(Failure::Usage("--optimizer none trains nothing".into()));
        }
        let newer = upgraded(model)?;
        let graph = TrainingGraph::new(newer.as_ref().unwrap_or(model), &recipe)?;
        let analysis = Analysis::new(graph.model(), &[])?;
        let chosen = arguments.conditioning.choose(&analysis)?;
        // What a step feeds takes their place.
        let damping = Damping { lambda_a: LAMBDA, lambda_g: f32::INFINITY };
        let conditioned = graph.conditioned(&chosen, arguments.conditioning.method.into(), damping)?;
        let program = isaac::train::program(&graph, &recipe, &conditioned)?;
        let labels = match &recipe.loss {
            Loss::Labelled(labelled) => Some(labelled.distance.into()),
            Loss::Output(_) => None,
        };
        Ok(Self { program, layers: LayerReport::all(&chosen), labels })
    }

    /// Refuses dampings that the program has no use for.
    pub(crate) fn check(&self, arguments: &Arguments) -> Result<(), Failure> {
        if arguments.run.lambda_g.is_some() && !self.program.map.scalars.contains_key("lambda_g") {
            return Err(Failure::Usage("--lambda-g belongs to --method zeta; kfac has one damping, --lambda".into()));
        }
        Ok(())
    }
}
