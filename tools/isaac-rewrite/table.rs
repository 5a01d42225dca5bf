//! The table of `--list`.

use std::fmt;

use isaac::curvature::cost::LayerShape;
use isaac::model::Dim;
use isaac::rewrite::{Chosen, LayerGradient};

use crate::options::aligned;

const HEAD: [&str; 8] = ["#", "weight", "pattern", "in", "out", "rows", "extra cost", "status"];
/// The column of the extra cost.
const COST: usize = 6;

/// One line for each layer, with its estimated extra cost at a batch size.
pub(crate) struct Table<'a> {
    /// The layers and the decision.
    pub(crate) chosen: &'a Chosen<'a>,
    /// The batch size.
    pub(crate) batch: Option<u64>,
    /// Whether there are extra costs: the plain gradient has none.
    pub(crate) has_costs: bool,
    /// Trained tensors that keep their plain gradient, where it is known which are trained.
    pub(crate) plain: Option<Vec<&'a str>>,
    /// Weights that are not trained, because Constant nodes hold them.
    pub(crate) constants: &'a [String],
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![HEAD.map(String::from).to_vec()];
        lines.extend(self.chosen.layers().map(|(layer, refusal)| {
            let size = |size: Option<u64>| size.map_or("?".into(), |size| size.to_string());
            let count = layer.product_outputs.len();
            vec![
                layer.index.to_string(),
                layer.weight.clone(),
                if count > 1 { format!("{} x{count}", layer.pattern) } else { layer.pattern.clone() },
                size(layer.in_features),
                size(layer.out_features),
                rows(layer),
                self.cost(layer),
                refusal.map_or("rewritten".into(), |refusal| refusal.reason.code().into()),
            ]
        }));
        if !self.has_costs {
            lines.iter_mut().for_each(|line| drop(line.remove(COST)));
        }
        f.write_str(&aligned(&lines))?;
        if !self.has_costs {
            writeln!(f, "(--method gradient costs nothing beyond the plain products)")?;
        } else if self.batch.is_none() {
            writeln!(f, "(--batch B estimates the extra cost: flops beyond the plain product, relative to it)")?;
        }
        if let Some(plain) = self.plain.as_ref().filter(|plain| !plain.is_empty()) {
            writeln!(f, "trained with the plain gradient: {}", plain.join(", "))?;
        }
        if !self.constants.is_empty() {
            writeln!(f, "not trained, because Constant nodes hold them: {}", self.constants.join(", "))?;
        }
        Ok(())
    }
}

impl Table<'_> {
    /// The flops of ζ* beyond the plain product, relative to it.
    fn cost(&self, layer: &LayerGradient) -> String {
        let shape = || {
            Some(LayerShape {
                rows: layer.rows_at(self.batch?)?.try_into().ok()?,
                in_features: layer.in_features?.try_into().ok()?,
                out_features: layer.out_features?.try_into().ok()?,
            })
        };
        shape().map_or("-".into(), |shape| format!("+{:.1} %", 100.0 * (shape.relative_cost() - 1.0)))
    }
}

fn rows(layer: &LayerGradient) -> String {
    match &layer.rows {
        Some(rows) => rows.iter().map(Dim::to_string).collect::<Vec<_>>().join("*"),
        None => "?".into(),
    }
}
