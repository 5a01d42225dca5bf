use std::collections::BTreeMap;

/// What takes the place of a weight gradient, and where its damping comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Direction<'a> {
    /// ζ\*, with this damping λa > 0 for good.
    Fixed {
        /// λa.
        lambda_a: f32,
    },
    /// ζ\*, with the damping in a scalar of the graph.
    ZetaStar {
        /// The value λa.
        lambda_a: String,
    },
    /// ζ, with dampings in scalars of the graph.
    Zeta {
        /// The value λa.
        lambda_a: String,
        /// The value λg.
        lambda_g: String,
        /// By gradient of a layer's output: the same for sampled labels, unscaled.
        gradients: &'a BTreeMap<String, String>,
        /// Whether it is computed with both Kronecker factors, as K-FAC does.
        is_kronecker: bool,
    },
}
