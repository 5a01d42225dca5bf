//! `isaac-rewrite`: puts `ai.isaac::IsaacGemm` in the place of the weight-gradient products of a training graph.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use isaac::autodiff::{self, AutodiffError};
use isaac::model::{Edit, Model, ModelError};
use isaac::optimizer::{self, OptimizerError, Update};
use isaac::rewrite::{Analysis, Chosen, Direction, Explanation, Kind, Report, RewriteError};
use isaac::training_graph::{ConstantWeights, Damping, Recipe, TrainingGraph, TrainingGraphError};
use isaac::upgrade::{UpgradeError, upgraded};
use isaac::weights::{Weights, WeightsError};

#[path = "../options/mod.rs"]
mod options;
mod table;

use options::conditioning::{MethodName, is_usage, is_usage_of_forward};
use options::{Conditioning, Objective};
use table::Table;

/// Second-order training for ONNX: replaces the weight-gradient products of a training graph by ai.isaac::IsaacGemm, and makes
/// the training graph itself from a forward model and a loss. Gradient, Adam, Adagrad and Momentum of ai.onnx.preview.training are
/// written out in standard operators.
///
/// Exit status: 0 done; 1 the model or a file is at fault; 2 the command line is; 3 --expect was not met.
#[derive(Parser)]
#[command(name = "isaac-rewrite", version)]
struct Arguments {
    /// The training graph, or the forward model (.onnx).
    model: PathBuf,
    /// Where to write the rewritten graph.
    #[arg(short, long, value_name = "OUT", required_unless_present = "list")]
    output: Option<PathBuf>,
    /// The damping λ of ζ*: > 0; inf gives the plain gradient. [default: 1]
    #[arg(long, value_name = "LAMBDA", allow_negative_numbers = true, value_parser = damping)]
    lambda: Option<f32>,
    /// The damping λg of ζ; K-FAC takes --lambda for both factors.
    #[arg(long, value_name = "LAMBDA", default_value = "inf", allow_negative_numbers = true, value_parser = damping)]
    lambda_g: f32,
    #[command(flatten)]
    conditioning: Conditioning,
    /// Print the layers and write nothing.
    #[arg(long)]
    list: bool,
    /// The batch size for which --list estimates costs.
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..))]
    batch: Option<u64>,
    /// Print, for everything that was not taken, the reason.
    #[arg(long)]
    explain: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Fail with status 3, and write nothing, unless exactly N layers are rewritten.
    #[arg(long, value_name = "N")]
    expect: Option<usize>,
    /// Put the tensors of a .safetensors, .npz or .npy file in the place of the model's initializers of the same names, and do nothing else.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["lambda", "lambda_g", "Conditioning", "list", "batch", "explain", "json", "expect", "Objective", "update_out", "eval_out"]
    )]
    weights: Option<PathBuf>,
    #[command(flatten)]
    objective: Objective,
    /// Write the update to a graph of its own, here; OUT then gives gradients.
    #[arg(long, value_name = "FILE", requires = "objective")]
    update_out: Option<PathBuf>,
    /// Write a graph that evaluates the trained parameters: the forward model and the loss.
    #[arg(long, value_name = "FILE", requires = "objective")]
    eval_out: Option<PathBuf>,
}

/// The damping λ, if none is given.
const LAMBDA: f32 = 1.0;

/// What keeps the tool from doing what it was asked to.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    #[error(transparent)]
    Autodiff(#[from] AutodiffError),
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    #[error(transparent)]
    TrainingGraph(#[from] TrainingGraphError),
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("{0}")]
    Usage(String),
    #[error("cannot write to standard output")]
    Print(#[from] std::io::Error),
}

impl Failure {
    /// Whether another command line would help.
    fn is_usage(&self) -> bool {
        match self {
            Self::Usage(_) => true,
            Self::Rewrite(error) => is_usage(error),
            Self::TrainingGraph(error) => is_usage_of_forward(error),
            Self::Model(_)
            | Self::Autodiff(_)
            | Self::Optimizer(_)
            | Self::Upgrade(_)
            | Self::Weights(_)
            | Self::Print(_) => false,
        }
    }
}

/// A damping: above 0, or inf.
fn damping(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(lambda) if lambda > 0.0 => Ok(lambda),
        _ => Err("the damping is a number above 0, or inf".into()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(status) => status,
        // The reader had enough: `isaac-rewrite … | head`.
        Err(Failure::Print(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => options::failed::<Arguments>(&error, error.is_usage()),
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    arguments.check()?;
    let loaded = Model::load(&arguments.model)?;
    if let (Some(weights), Some(output)) = (&arguments.weights, &arguments.output) {
        loaded.save(&Weights::load(weights)?.edit(&loaded)?, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(recipe) = arguments.objective.recipe(&loaded, &arguments.conditioning.param).map_err(Failure::Usage)? {
        return train(arguments, &loaded, &recipe);
    }
    let lowered = if autodiff::has_gradient_operator(&loaded) {
        Some(loaded.edited(&autodiff::lower_gradients(&loaded)?)?)
    } else {
        None
    };
    let model = lowered.as_ref().unwrap_or(&loaded);
    // The operators say whose gradients they are fed, so they are analysed as they are.
    let updates = optimizer::lower_optimizers(model)?;
    let mut analysis = Analysis::new(model, &arguments.conditioning.param)?;
    if lowered.is_none() {
        analysis = analysis.require_training_graph()?;
    }
    if matches!(arguments.conditioning.method(), MethodName::Zeta | MethodName::Kfac) {
        return Err(Failure::Usage(
            "--method zeta and kfac need a second backward pass, with sampled labels, which a training graph does not hold: they take a forward model and a --loss"
                .into(),
        ));
    }
    let chosen = arguments.choose(&analysis)?;
    let direction = Direction::Fixed { lambda_a: arguments.lambda() };
    arguments.finish(&analysis, &chosen, Kind::TrainingGraph, &[], |output| {
        Ok(model.save(&chosen.edit(&direction)?.and(updates), output)?)
    })
}

/// Makes a training graph of a forward model, and conditions its gradients.
fn train(arguments: &Arguments, model: &Model, recipe: &Recipe) -> Result<ExitCode, Failure> {
    if arguments.files().any(|file| file == place(&arguments.model)) {
        return Err(Failure::Usage(
            "the forward model stays as it is, for trained weights to go into: write another file".into(),
        ));
    }
    let separate = arguments.separate_update(recipe)?;
    let delivering = separate.is_some().then(|| Recipe { update: None, ..recipe.clone() });
    let recipe = delivering.as_ref().unwrap_or(recipe);
    let newer = upgraded(model)?;
    let model = newer.as_ref().unwrap_or(model);
    let graph = TrainingGraph::new(model, recipe)?;
    let analysis = Analysis::new(graph.model(), &[])?;
    let chosen = arguments.choose(&analysis)?;
    let damping = Damping { lambda_a: arguments.lambda(), lambda_g: arguments.lambda_g };
    options::warn::<Arguments>(recipe.loss.doubt(model));
    let constants = options::constant_weights(recipe, model)?;
    if !arguments.prints_table() {
        options::warn::<Arguments>(constants.as_ref().and_then(ConstantWeights::doubt));
    }
    let constants = constants.as_ref().map_or(&[][..], ConstantWeights::names);
    arguments.finish(&analysis, &chosen, Kind::Forward, constants, |output| {
        let edit = graph.conditioned(&chosen, arguments.conditioning.method().into(), damping)?;
        let evaluation = arguments.eval_out.as_ref().map(|_| graph.evaluation(recipe)).transpose()?;
        let update = separate.map(|(_, update)| graph.separate_update(update)).transpose()?;
        let unchanged = Edit::default();
        let mut files = vec![(graph.model(), &edit, output)];
        files.extend(arguments.eval_out.as_deref().zip(evaluation.as_ref()).map(|(path, edit)| (model, edit, path)));
        files.extend(separate.zip(update.as_ref()).map(|((path, _), update)| (update, &unchanged, path)));
        Ok(Model::save_all(&files)?)
    })
}

/// The path of a file without links and detours, as far as the file or its folder is there.
fn place(path: &Path) -> PathBuf {
    let in_folder = || {
        let folder = path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    path.canonicalize().ok().or_else(in_folder).unwrap_or_else(|| path.to_owned())
}

impl Arguments {
    fn check(&self) -> Result<(), Failure> {
        if self.batch.is_some() && !self.list {
            return Err(Failure::Usage("--batch belongs to --list".into()));
        }
        let files: Vec<PathBuf> = self.files().collect();
        if (1..files.len()).any(|at| files[..at].contains(&files[at])) {
            return Err(Failure::Usage("OUT, --eval-out and --update-out are different files".into()));
        }
        if self.lambda_g.is_finite() && self.conditioning.method() != MethodName::Zeta {
            return Err(Failure::Usage("--lambda-g belongs to --method zeta; kfac has one damping, --lambda".into()));
        }
        Ok(())
    }

    fn lambda(&self) -> f32 {
        self.lambda.unwrap_or(LAMBDA)
    }

    /// Decides which layers are rewritten.
    fn choose<'a>(&self, analysis: &'a Analysis<'_>) -> Result<Chosen<'a>, RewriteError> {
        let chosen = self.conditioning.choose(analysis)?;
        let dampings = [("--lambda", self.lambda.is_some())];
        options::warn::<Self>(self.conditioning.doubts(analysis.layers().len(), &dampings));
        Ok(chosen)
    }

    /// Where files are to be written, each with one path for all ways to say it.
    fn files(&self) -> impl Iterator<Item = PathBuf> {
        [&self.output, &self.eval_out, &self.update_out].into_iter().flatten().map(|path| place(path))
    }

    /// The update that is a graph of its own, with the file to write it to.
    ///
    /// # Errors
    /// A file for no update.
    fn separate_update<'a>(&'a self, recipe: &'a Recipe) -> Result<Option<(&'a Path, &'a Update)>, Failure> {
        let Some(path) = &self.update_out else {
            return Ok(None);
        };
        let update = recipe
            .update
            .as_ref()
            .ok_or_else(|| Failure::Usage("--optimizer none has no update that --update-out could write".into()))?;
        Ok(Some((path, update)))
    }

    fn prints_table(&self) -> bool {
        self.list && !self.json
    }

    /// Writes the edited model and the report, if --expect is met. `constants` are weights that Constant nodes hold.
    fn finish(
        &self,
        analysis: &Analysis<'_>,
        chosen: &Chosen<'_>,
        kind: Kind,
        constants: &[String],
        write: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<ExitCode, Failure> {
        let count = chosen.rewritten().count();
        let met = self.expect.is_none_or(|expected| expected == count);
        let output = self.output.as_deref().filter(|_| met && !self.list);
        if let Some(output) = output {
            write(output)?;
        }
        let report = Report::new(analysis, chosen, kind, output);
        std::io::stdout().write_all(self.text(analysis, chosen, constants, &report).as_bytes())?;
        if let Some(expected) = self.expect.filter(|_| !met) {
            eprintln!(
                "isaac-rewrite: {count} layers are to be rewritten, --expect says {expected}; nothing was written"
            );
            return Ok(ExitCode::from(3));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What goes to standard output.
    fn text(&self, analysis: &Analysis<'_>, chosen: &Chosen<'_>, constants: &[String], report: &Report) -> String {
        let mut text = if self.prints_table() {
            let has_costs = self.conditioning.method() != MethodName::Gradient;
            Table { chosen, batch: self.batch, has_costs, plain: report.plain(), constants }.to_string()
        } else if self.json {
            serde_json::to_string_pretty(report).expect("a report is plain data") + "\n"
        } else if let Some(output) = &report.output {
            let before = match analysis.conditioned() {
                0 => String::new(),
                count => format!(", {count} products were before"),
            };
            format!("{} of {} layers rewritten{before}: {output}\n", report.rewritten, report.layers.len())
        } else {
            String::new()
        };
        if self.explain {
            let explanation = Explanation(analysis, chosen);
            // With --json, standard output is one object.
            if self.json { eprint!("{explanation}") } else { text += &explanation.to_string() }
        }
        text
    }
}
