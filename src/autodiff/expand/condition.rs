//! Conditions that follow from the graph: exporters compare sizes that are known.

use super::scene::Scene;
use crate::model::ValueId;

/// The value of a boolean scalar, where it can be told.
pub(super) fn truth(scene: &Scene<'_>, value: ValueId) -> Option<bool> {
    match scene.types.content(value)? {
        [truth] => truth.known().map(|truth| truth != 0),
        _ => None,
    }
}
