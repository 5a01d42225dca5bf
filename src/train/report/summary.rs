//! The JSON object that ends a run.

use serde::Serialize;

use super::record::EpochRecord;
use crate::rewrite::LayerReport;

/// What became of a run, as `isaac-train --json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Every epoch; of the last one, only a part where the run ended within it.
    pub epochs: Vec<EpochRecord>,
    /// The mean time of a training step; `null` if there was none.
    pub seconds_per_step: Option<f64>,
    /// The layers of the model, in forward order.
    pub layers: Vec<LayerReport>,
}

impl Summary {
    /// Of a run of so many steps, which took so many seconds.
    pub fn new(epochs: Vec<EpochRecord>, steps: u64, seconds: f64, layers: Vec<LayerReport>) -> Self {
        Self { epochs, seconds_per_step: (steps > 0).then(|| seconds / steps as f64), layers }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::epoch;
    use super::*;

    #[test]
    fn as_json() {
        let mut diverged = epoch(2);
        (diverged.train_loss, diverged.eval) = (f64::NAN, None);
        let summary = Summary::new(vec![epoch(1), diverged], 4, 1.0, Vec::new());
        let expected = serde_json::json!({
            "epochs": [
                {"epoch": 1, "step": 2, "train_loss": 1.0, "eval": {"loss": 0.5, "accuracy": 0.5}, "seconds": 0.5},
                {"epoch": 2, "step": 4, "train_loss": "NaN", "eval": null, "seconds": 1.0},
            ],
            "seconds_per_step": 0.25,
            "layers": [],
        });
        assert_eq!(serde_json::to_value(&summary).unwrap(), expected);
    }

    #[test]
    fn of_a_run_without_steps() {
        let value = serde_json::to_value(Summary::new(Vec::new(), 0, 0.0, Vec::new())).unwrap();
        assert_eq!(value, serde_json::json!({"epochs": [], "seconds_per_step": null, "layers": []}));
    }
}
