//! What a training graph is to do: its loss and its update rule.

use clap::{Args, ValueEnum};
use isaac::model::{Model, ModelError};
use isaac::optimizer::{Moments, Optimizer, Update};
use isaac::rewrite::is_marked_for_training;
use isaac::training_graph::{ConstantWeights, Distance, Labelled, Loss, Recipe, Selection};

/// Options that say which training graph to make of a forward model. clap shows them under a heading of their own.
#[derive(Args)]
#[command(next_help_heading = "For forward models")]
pub(crate) struct Objective {
    /// Build the training graph, with this loss, a mean over the batch.
    #[arg(long, value_enum, group = "objective")]
    loss: Option<LossName>,
    /// Build the training graph, with this scalar output of the model as the loss.
    #[arg(long, value_name = "NAME", group = "objective")]
    loss_output: Option<String>,
    /// The output that the loss compares with labels, if there are several.
    #[arg(long, value_name = "NAME", requires = "loss")]
    prediction: Option<String>,
    /// The axis along which classes lie. [default: the last one, for up to three axes]
    #[arg(long, value_name = "AXIS", requires = "loss", allow_negative_numbers = true)]
    class_axis: Option<i64>,
    /// A label that does not count.
    #[arg(long, value_name = "LABEL", requires = "loss", allow_negative_numbers = true)]
    ignore_index: Option<i64>,
    /// Feed a weight for each example; the loss is the weighted mean.
    #[arg(long, requires = "loss")]
    example_weights: bool,
    /// The update rule; none gives gradients as outputs.
    #[arg(long, value_enum, default_value_t = OptimizerName::Sgd, requires = "objective")]
    optimizer: OptimizerName,
    /// How much of the last change momentum keeps. [default: 0.9]
    #[arg(long, value_name = "M", allow_negative_numbers = true, value_parser = fraction, requires = "objective")]
    momentum: Option<f64>,
    /// Nesterov's momentum.
    #[arg(long, requires = "objective")]
    nesterov: bool,
    /// The rates at which Adam's means of gradients and of their squares decay. [default: 0.9 0.999]
    #[arg(long, value_name = "B", num_args = 2, allow_negative_numbers = true, value_parser = fraction, requires = "objective")]
    betas: Option<Vec<f64>>,
    /// What Adam adds to the root of the mean square. [default: 1e-8]
    #[arg(long, value_name = "E", allow_negative_numbers = true, value_parser = non_negative, requires = "objective")]
    epsilon: Option<f64>,
    /// The part of each parameter that is added to its gradient; of adamw, the rate at which parameters decay. [default: 0]
    #[arg(long, value_name = "D", allow_negative_numbers = true, value_parser = non_negative, requires = "objective")]
    weight_decay: Option<f64>,
    /// Shorten gradients to this common 2-norm where it is larger.
    #[arg(long, value_name = "NORM", allow_negative_numbers = true, value_parser = positive, requires = "objective")]
    clip_norm: Option<f64>,
    /// Initializers that are not trained; for the statistics of a batch normalization, that it stays in inference mode.
    #[arg(long, value_name = "GLOB", requires = "objective")]
    freeze: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LossName {
    /// -log softmax of the class whose index is the label; the prediction are logits, or their log-softmax.
    CrossEntropy,
    /// The same for labels that are probabilities of the classes.
    SoftCrossEntropy,
    /// The mean squared error.
    Mse,
    /// Binary cross-entropy; the prediction is the logit.
    Bce,
    /// The mean absolute error.
    L1,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OptimizerName {
    /// No update: the outputs are gradients.
    None,
    /// Stochastic gradient descent.
    Sgd,
    /// With momentum.
    Momentum,
    /// Adam.
    Adam,
    /// Adam with decoupled weight decay.
    Adamw,
}

/// The weights of `model` that are not trained because Constant nodes hold them, unless the user said what is.
///
/// # Errors
/// A graph that cannot be executed.
pub(crate) fn constant_weights(recipe: &Recipe, model: &Model) -> Result<Option<ConstantWeights>, ModelError> {
    recipe.selection.trained.is_empty().then(|| ConstantWeights::of(model)).transpose()
}

impl Objective {
    /// What training graph of `model` is asked for; `None` if none is. `trained` are globs on names of initializers.
    ///
    /// # Errors
    /// Options that do not go together, or not with this model.
    pub(crate) fn recipe(&self, model: &Model, trained: &[String]) -> Result<Option<Recipe>, String> {
        let Some(loss) = self.loss()? else {
            return Ok(None);
        };
        if is_marked_for_training(model) {
            let path = model.path().display();
            return Err(format!("--loss makes a training graph of a forward model, and {path} has a backward pass"));
        }
        let selection = Selection { trained: trained.to_vec(), frozen: self.freeze.clone() };
        Ok(Some(Recipe { loss, update: self.update()?, selection }))
    }

    fn loss(&self) -> Result<Option<Loss>, String> {
        if let Some(name) = &self.loss_output {
            return Ok(Some(Loss::Output(name.clone())));
        }
        let Some(loss) = self.loss else {
            return Ok(None);
        };
        let Self { class_axis, ignore_index, .. } = *self;
        if ignore_index.is_some() && loss != LossName::CrossEntropy {
            return Err("--ignore-index belongs to --loss cross-entropy".into());
        }
        if class_axis.is_some() && !matches!(loss, LossName::CrossEntropy | LossName::SoftCrossEntropy) {
            return Err("--class-axis belongs to --loss cross-entropy and soft-cross-entropy".into());
        }
        let distance = match loss {
            LossName::CrossEntropy => Distance::CrossEntropy { class_axis, ignore_index },
            LossName::SoftCrossEntropy => Distance::SoftCrossEntropy { class_axis },
            LossName::Mse => Distance::MeanSquaredError,
            LossName::Bce => Distance::BinaryCrossEntropy,
            LossName::L1 => Distance::L1,
        };
        let (prediction, example_weights) = (self.prediction.clone(), self.example_weights);
        Ok(Some(Loss::Labelled(Labelled { distance, prediction, example_weights })))
    }

    fn update(&self) -> Result<Option<Update>, String> {
        self.check_update()?;
        let Moments { beta1, beta2, epsilon } = Moments::default();
        let (beta1, beta2) = self.betas.as_ref().map_or((beta1, beta2), |betas| (betas[0], betas[1]));
        let moments = Moments { beta1, beta2, epsilon: self.epsilon.unwrap_or(epsilon) };
        let momentum = self.momentum.unwrap_or(0.9);
        let optimizer = match self.optimizer {
            OptimizerName::None => return Ok(None),
            OptimizerName::Sgd => Optimizer::Sgd,
            OptimizerName::Momentum => Optimizer::Momentum { momentum, nesterov: self.nesterov },
            OptimizerName::Adam => Optimizer::Adam(moments),
            OptimizerName::Adamw => Optimizer::AdamW(moments),
        };
        Ok(Some(Update { optimizer, weight_decay: self.weight_decay.unwrap_or(0.0), clip_norm: self.clip_norm }))
    }

    /// Refuses options that the update rule would not read.
    fn check_update(&self) -> Result<(), String> {
        let is_momentum = self.optimizer == OptimizerName::Momentum;
        let is_adam = matches!(self.optimizer, OptimizerName::Adam | OptimizerName::Adamw);
        let is_update = self.optimizer != OptimizerName::None;
        let options = [
            ("--momentum", self.momentum.is_some(), is_momentum, "momentum"),
            ("--nesterov", self.nesterov, is_momentum, "momentum"),
            ("--betas", self.betas.is_some(), is_adam, "adam and adamw"),
            ("--epsilon", self.epsilon.is_some(), is_adam, "adam and adamw"),
            ("--weight-decay", self.weight_decay.is_some(), is_update, "sgd, momentum, adam and adamw"),
            ("--clip-norm", self.clip_norm.is_some(), is_update, "sgd, momentum, adam and adamw"),
        ];
        match options.into_iter().find(|&(_, is_given, is_read, _)| is_given && !is_read) {
            Some((option, .., rules)) => Err(format!("{option} belongs to --optimizer {rules}")),
            None => Ok(()),
        }
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..1.0).contains(&value), "from 0 to below 1")
}

fn non_negative(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0 && value.is_finite(), "of 0 or more")
}

fn positive(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value.is_finite(), "above 0")
}

fn number(text: &str, is_allowed: impl Fn(f64) -> bool, range: &str) -> Result<f64, String> {
    text.parse().ok().filter(|&value| is_allowed(value)).ok_or_else(|| format!("this is a number {range}"))
}
