//! What is run: the program of the model on the command line.

use isaac::model::Model;
use isaac::rewrite::{self, Analysis, LayerReport};
use isaac::runtime::Program;
use isaac::train::data::{Input, Role};
use isaac::train::metrics::Labels;
use isaac::training_graph::{Damping, Loss, TrainingGraph};
use isaac::upgrade::upgraded;

use crate::arguments::Arguments;
use crate::failure::Failure;

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
        let recipe = arguments.objective.recipe(&arguments.conditioning.param).map_err(Failure::Usage)?;
        let Some(recipe) = recipe else {
            if !rewrite::is_marked_for_training(model) {
                let what = "is a forward model: --loss or --loss-output says what is made small";
                return Err(Failure::Usage(format!("{} {what}", arguments.model.display())));
            }
            return Ok(Self { program: Program::new(model)?, layers: Vec::new(), labels: None });
        };
        if rewrite::is_marked_for_training(model) {
            let what = "has a loss and a backward pass; --loss is for forward models";
            return Err(Failure::Usage(format!("{} {what}", arguments.model.display())));
        }
        if recipe.update.is_none() {
            return Err(Failure::Usage("--optimizer none trains nothing".into()));
        }
        let model = upgraded(model.embedded()?)?;
        let graph = TrainingGraph::new(&model, &recipe)?;
        let analysis = Analysis::new(graph.model(), &[])?;
        let chosen = arguments.conditioning.choose(&analysis)?;
        // Both are inputs, which every step feeds.
        let damping = Damping { lambda_a: 1.0, lambda_g: f32::INFINITY };
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

    /// The inputs that examples are fed to.
    pub(crate) fn inputs(&self) -> Vec<Input> {
        let map = &self.program.map;
        let inputs = self.program.training.graph().inputs();
        let input = |name: &String, role| {
            let declared = inputs.iter().find(|input| input.name() == name)?;
            Some(Input { name: name.clone(), tensor_type: isaac::model::TensorType::of(declared)?, role })
        };
        let data = map.data.iter().filter_map(|name| input(name, Role::Data));
        // Labels come first, and if there is more, weights of the examples.
        let roles = std::iter::once(Role::Labels).chain(std::iter::repeat(Role::Weights));
        let labels = map.labels.iter().zip(roles).filter_map(|(name, role)| input(name, role));
        data.chain(labels).collect()
    }
}
