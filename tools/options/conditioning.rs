//! What takes the gradient's place, and in which layers.

use clap::{Args, ValueEnum};
use isaac::rewrite::{Analysis, Choice, Chosen, Reason, RewriteError, Selector};
use isaac::training_graph::{Method, TrainingGraphError};

/// Options that say which layers are conditioned, and how.
#[derive(Args)]
pub(crate) struct Conditioning {
    /// The direction that takes the gradient's place. [default: zeta-star]
    #[arg(long, value_enum)]
    pub(crate) method: Option<MethodName>,
    /// Which layers: all | first:K | last:K | odd | even | 1,3,5 | a glob on the weight's name. Layers count from 1 in forward order.
    #[arg(long, value_name = "SEL")]
    pub(crate) layers: Vec<Selector>,
    /// Rewrite layers that are left alone for this reason (see isaac-rewrite --explain), each product by itself.
    #[arg(long, value_name = "CODE", value_parser = reason)]
    pub(crate) allow: Vec<Reason>,
    /// Condition each layer's bias with its weight, as one matrix; by default biases keep their plain gradients, as in the paper.
    #[arg(long)]
    pub(crate) with_bias: bool,
    /// Which graph inputs or initializers are trained, where the graph does not tell.
    #[arg(long, value_name = "GLOB")]
    pub(crate) param: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MethodName {
    /// ζ*: curvature from the layer's input alone.
    ZetaStar,
    /// ζ: also curvature from output gradients of sampled labels; for forward models.
    Zeta,
    /// ζ the way K-FAC computes it; for forward models.
    Kfac,
    /// The plain gradient: nothing is rewritten.
    Gradient,
}

impl From<MethodName> for Method {
    fn from(name: MethodName) -> Self {
        match name {
            MethodName::ZetaStar => Self::ZetaStar,
            MethodName::Zeta => Self::Zeta,
            MethodName::Kfac => Self::Kfac,
            MethodName::Gradient => Self::Gradient,
        }
    }
}

impl Conditioning {
    /// The direction.
    pub(crate) fn method(&self) -> MethodName {
        self.method.unwrap_or(MethodName::ZetaStar)
    }

    /// Decides which layers are rewritten.
    ///
    /// # Errors
    /// A selector that matches nothing.
    pub(crate) fn choose<'a>(&self, analysis: &'a Analysis<'_>) -> Result<Chosen<'a>, RewriteError> {
        let choice = Choice {
            layers: self.layers.clone(),
            allow: self.allow.iter().copied().collect(),
            with_bias: self.with_bias,
        };
        let chosen = analysis.choose(&choice)?;
        let is_plain = self.method() == MethodName::Gradient;
        Ok(if is_plain { chosen.none("--method gradient keeps the plain product") } else { chosen })
    }

    /// What of these options the user may not have meant, for a model of so many layers, and of `more`: each whether it is given, of those
    /// that conditioned layers alone have a use for.
    pub(crate) fn doubts(&self, layers: usize, more: &[(&str, bool)]) -> Vec<String> {
        if self.method() != MethodName::Gradient {
            return self.layers.iter().filter_map(|selector| selector.doubt(layers)).collect();
        }
        let own = [
            ("--layers", !self.layers.is_empty()),
            ("--allow", !self.allow.is_empty()),
            ("--with-bias", self.with_bias),
        ];
        let given = own.iter().chain(more).filter(|(_, is_given)| *is_given);
        given.map(|(option, _)| format!("{option} has no effect: --method gradient conditions no layer")).collect()
    }
}

/// Whether another command line would help against a refusal to rewrite: it names what is not there.
pub(crate) fn is_usage(error: &RewriteError) -> bool {
    matches!(error, RewriteError::Select(_) | RewriteError::UnknownParameter { .. })
}

/// The same of a refusal to make a training graph.
pub(crate) fn is_usage_of_forward(error: &TrainingGraphError) -> bool {
    match error {
        TrainingGraphError::Name { .. } => true,
        TrainingGraphError::Rewrite(error) => is_usage(error),
        _ => false,
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    let allowable = || Reason::ALL.into_iter().filter(|reason| reason.can_be_allowed());
    allowable().find(|reason| reason.code() == text).ok_or_else(|| {
        let codes: Vec<&str> = allowable().map(Reason::code).collect();
        format!("these reasons can be lifted: {}", codes.join(", "))
    })
}
