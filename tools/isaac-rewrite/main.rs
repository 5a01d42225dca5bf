//! `isaac-rewrite`: puts `ai.isaac::IsaacGemm` in the place of the weight-gradient products of a training graph.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use isaac::model::{Edit, Model};
use isaac::rewrite::{
    Analysis, Choice, Chosen, Explanation, Reason, Report, RewriteError, Selector,
};

mod table;

/// Second-order training for ONNX: replaces the weight-gradient products of a training graph by ai.isaac::IsaacGemm.
///
/// Exit status: 0 done; 1 the model or a file is at fault; 2 the command line is; 3 --expect was not met.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The training graph (.onnx).
    model: PathBuf,
    /// Where to write the rewritten graph.
    #[arg(
        short,
        long,
        value_name = "OUT",
        required_unless_present = "list",
        conflicts_with = "list"
    )]
    output: Option<PathBuf>,
    /// The damping λ of ζ*: > 0; inf gives the plain gradient.
    #[arg(long, value_name = "LAMBDA", default_value = "1.0", value_parser = damping)]
    lambda: f32,
    /// The direction that takes the gradient's place.
    #[arg(long, value_enum, default_value_t = Method::ZetaStar)]
    method: Method,
    /// Which layers: all | first:K | last:K | odd | even | 1,3,5 | a glob on the weight's name. Layers count from 1 in forward order.
    #[arg(long, value_name = "SEL")]
    layers: Vec<Selector>,
    /// Rewrite layers that are left alone for this reason (see --explain), each product by itself.
    #[arg(long, value_name = "CODE", value_parser = reason)]
    allow: Vec<Reason>,
    /// Which graph inputs or initializers are trained, where the graph does not tell.
    #[arg(long, value_name = "GLOB")]
    param: Vec<String>,
    /// Print the layers and write nothing.
    #[arg(long)]
    list: bool,
    /// The batch size for which --list estimates costs.
    #[arg(long, value_name = "B", requires = "list", value_parser = clap::value_parser!(u64).range(1..))]
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
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// ζ*: curvature from the layer's input alone.
    ZetaStar,
    /// The plain gradient: nothing is rewritten.
    Gradient,
}

fn damping(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(lambda) if lambda > 0.0 => Ok(lambda),
        _ => Err("the damping is a number above 0, or inf".into()),
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    let allowable = || {
        Reason::ALL
            .into_iter()
            .filter(|reason| reason.can_be_allowed())
    };
    allowable()
        .find(|reason| reason.code() == text)
        .ok_or_else(|| {
            let codes: Vec<&str> = allowable().map(Reason::code).collect();
            format!("these reasons can be lifted: {}", codes.join(", "))
        })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(status) => status,
        Err(RewriteError::Select(error)) => usage(&error),
        Err(error @ RewriteError::UnknownParameter { .. }) => usage(&error),
        Err(error) => {
            eprintln!("isaac-rewrite: {}", with_sources(&error));
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, RewriteError> {
    let model = Model::load(&arguments.model)?;
    let analysis = Analysis::new(&model, &arguments.param)?;
    let choice = Choice {
        layers: arguments.layers.clone(),
        allow: arguments.allow.iter().copied().collect(),
    };
    let mut chosen = analysis.choose(&choice)?;
    if arguments.method == Method::Gradient {
        chosen = chosen.none("--method gradient keeps the plain product");
    }
    let count = chosen.rewritten().count();
    let met = arguments.expect.is_none_or(|expected| expected == count);
    let output = arguments.output.as_deref().filter(|_| met);
    if let Some(output) = output {
        let edit = if count > 0 {
            chosen.edit(arguments.lambda)
        } else {
            Edit::default()
        };
        model.save(&edit, output)?;
    }
    print(
        arguments,
        &analysis,
        &chosen,
        &Report::new(&analysis, &chosen, output),
    );
    if let Some(expected) = arguments.expect.filter(|_| !met) {
        eprintln!(
            "isaac-rewrite: {count} layers can be rewritten, --expect says {expected}; nothing was written"
        );
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(arguments: &Arguments, analysis: &Analysis<'_>, chosen: &Chosen<'_>, report: &Report) {
    if arguments.json {
        println!(
            "{}",
            serde_json::to_string_pretty(report).expect("a report is plain data")
        );
    } else if arguments.list {
        print!(
            "{}",
            table::Table {
                chosen,
                batch: arguments.batch
            }
        );
    } else if let Some(output) = &report.output {
        println!(
            "{} of {} layers rewritten: {output}",
            report.rewritten,
            report.layers.len()
        );
    }
    if arguments.explain {
        let explanation = Explanation(analysis, chosen);
        // With --json, standard output is one object.
        if arguments.json {
            eprint!("{explanation}")
        } else {
            print!("{explanation}")
        }
    }
}

/// An error of the command line that only the model can show.
fn usage(error: &dyn std::error::Error) -> ExitCode {
    let error = Arguments::command().error(ErrorKind::ValueValidation, error);
    // Nothing can be done about a standard error that cannot be written.
    let _ = error.print();
    ExitCode::from(2)
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
