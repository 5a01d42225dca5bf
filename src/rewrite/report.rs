//! What was found and done: as JSON, as a table, and as explanations.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::error::RewriteError;
use super::{Analysis, Chosen, LayerGradient, NearMiss, Refusal};
use crate::model::{Dim, Model, ONNX_DOMAIN, TRAINING_METADATA, TrainingMap};

/// The object that `isaac-rewrite --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The model file.
    pub input: String,
    /// The file that was written; `null` with `--list`.
    pub output: Option<String>,
    /// What the model file holds.
    pub kind: Kind,
    /// The imported version of the default operator set.
    pub opset: Option<i64>,
    /// Every layer, in forward order.
    pub layers: Vec<LayerReport>,
    /// How many layers were rewritten.
    pub rewritten: usize,
    /// All tensors that are trained, of layers or not, where a map in the metadata or a recipe says which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained: Option<Vec<String>>,
}

/// What a model file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A training graph.
    TrainingGraph,
    /// A forward model, from which the training graph was made.
    Forward,
}

/// One layer of a [`Report`].
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// Position in forward order, from 1.
    pub index: usize,
    /// The parameter's name.
    pub weight: String,
    /// The values that its product nodes make in the input graph.
    pub product_outputs: Vec<String>,
    /// With `--with-bias`: the value with the gradient of a bias that is conditioned with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_gradient: Option<String>,
    /// How the products are written.
    pub pattern: String,
    /// n.
    pub in_features: Option<u64>,
    /// m.
    pub out_features: Option<u64>,
    /// Whether it was rewritten.
    pub rewritten: bool,
    /// Why not.
    pub reason_code: Option<&'static str>,
    /// The same in words.
    pub reason: Option<String>,
}

impl Report {
    /// The report of a decision.
    pub fn new(analysis: &Analysis<'_>, chosen: &Chosen<'_>, kind: Kind, output: Option<&Path>) -> Self {
        Self {
            input: analysis.model.path().display().to_string(),
            output: output.map(|path| path.display().to_string()),
            kind,
            opset: analysis.model.opset(ONNX_DOMAIN),
            layers: LayerReport::all(chosen),
            rewritten: chosen.rewritten().count(),
            // An analysis has read the map before.
            trained: training_map(analysis.model)
                .ok()
                .flatten()
                .map(|map| map.parameters.into_iter().map(|parameter| parameter.name).collect()),
        }
    }

    /// The trained tensors that keep their plain gradient, where it is known which are trained.
    pub fn plain(&self) -> Option<Vec<&str>> {
        let is_conditioned = |name: &str| self.layers.iter().any(|layer| layer.rewritten && layer.weight == name);
        let names = self.trained.as_ref()?.iter().map(String::as_str);
        Some(names.filter(|name| !is_conditioned(name)).collect())
    }
}

impl LayerReport {
    /// Every layer, in forward order.
    pub fn all(chosen: &Chosen<'_>) -> Vec<Self> {
        chosen.layers().map(|(layer, refusal)| Self::new(chosen, layer, refusal)).collect()
    }

    fn new(chosen: &Chosen<'_>, layer: &LayerGradient, refusal: Option<&Refusal>) -> Self {
        Self {
            bias_gradient: chosen.bias(layer).map(|bias| bias.gradient.clone()),
            index: layer.index,
            weight: layer.weight.clone(),
            product_outputs: layer.product_outputs.clone(),
            pattern: layer.pattern.clone(),
            in_features: layer.in_features,
            out_features: layer.out_features,
            rewritten: refusal.is_none(),
            reason_code: refusal.map(|refusal| refusal.reason.code()),
            reason: refusal.map(|refusal| refusal.detail.clone()),
        }
    }
}

/// The reasons for everything that was not taken, in words.
pub struct Explanation<'a>(pub &'a Analysis<'a>, pub &'a Chosen<'a>);

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (layer, refusal) in self.1.layers() {
            match refusal {
                None => {
                    writeln!(f, "{} {}: rewritten ({})", layer.index, layer.weight, layer.product_outputs.join(", "))?
                }
                Some(refusal) => {
                    write!(
                        f,
                        "{} {}: left alone ({}): {}",
                        layer.index,
                        layer.weight,
                        refusal.reason.code(),
                        refusal.detail
                    )?;
                    if refusal.reason.can_be_allowed() {
                        write!(f, "; --allow {} rewrites it, each product by itself", refusal.reason.code())?;
                    }
                    writeln!(f)?;
                }
            }
        }
        for NearMiss { products, factor, what } in self.0.near_misses() {
            match products.as_slice() {
                [product] => writeln!(f, "{product}: not taken: {what}")?,
                several => {
                    writeln!(f, "{} products with '{factor}', {} …: not taken: {what}", several.len(), several[0])?
                }
            }
        }
        Ok(())
    }
}

impl LayerGradient {
    /// The number of rows at this batch size, as far as it is known: the first axis without a number is the batch, further ones count as
    /// one.
    pub fn rows_at(&self, batch: u64) -> Option<u64> {
        let rows = self.rows.as_ref()?;
        let mut batch = Some(batch);
        let size = |dim: &Dim| dim.known().or_else(|| batch.take()).unwrap_or(1);
        rows.iter().map(size).try_fold(1_u64, u64::checked_mul)
    }
}

/// The inputs that the metadata `isaac.training` of a training graph lists as parameters.
pub(super) fn metadata_parameters(model: &Model) -> Result<Option<Vec<String>>, RewriteError> {
    let inputs = |map: TrainingMap| map.parameters.into_iter().map(|parameter| parameter.input).collect();
    Ok(training_map(model)?.map(inputs))
}

/// The metadata `isaac.training`.
fn training_map(model: &Model) -> Result<Option<TrainingMap>, RewriteError> {
    let map = model.metadata(TRAINING_METADATA).map(serde_json::from_str).transpose();
    map.map_err(|error| RewriteError::Metadata { path: model.path().to_owned(), what: error.to_string() })
}
