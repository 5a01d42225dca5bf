//! Shapes of recurrent networks.

use super::{Call, Shape};
use crate::model::{Dim, NodeExt};

impl Call<'_> {
    /// The states after all steps; after the last one; of an LSTM, its cells after the last one.
    pub(super) fn recurrent(&self) -> Vec<Shape> {
        let (Some([first, second, _]), Some([directions, _, hidden])) = (self.shape(0), self.shape(2)) else {
            return Vec::new();
        };
        let (d, h) = (directions.clone(), hidden.clone());
        let (all, last): (Vec<Dim>, Vec<Dim>) = if self.node.int("layout", 0) == 0 {
            let batch = second.clone();
            (vec![first.clone(), d.clone(), batch.clone(), h.clone()], vec![d, batch, h])
        } else {
            let batch = first.clone();
            (vec![batch.clone(), second.clone(), d.clone(), h.clone()], vec![batch, d, h])
        };
        vec![Some(all), Some(last.clone()), Some(last)]
    }
}
