//! The mathematics of ISAAC Newton on plain slices: forms, costs and factorisations.
//!
//! For a layer with b rows, output gradients g (b×m), inputs a (b×n), and output gradients ḡ for labels sampled from the
//! model, the conditioned weight gradients are
//!
//! ```text
//! ζ*  dW = gᵀ (I_b + a aᵀ/(b·λa))⁻¹ a = gᵀ a (I_n + aᵀa/(b·λa))⁻¹
//! ζ   dW = (I_m + ḡᵀḡ/(b·λg))⁻¹ gᵀ (I_b + a aᵀ/(b·λa))⁻¹ a
//! ```
//!
//! (Petersen et al., "ISAAC Newton: Input-based Approximate Curvature for Newton's Method", ICLR 2023; ζ is equation
//! 20). Inverses of b×b and of n×n or m×m matrices are interchangeable by Woodbury's identity; [`cost`] counts which
//! are cheaper for given shapes. Everything here is generic over `f32` and `f64`. Products are shared between the host's threads; the plain
//! gradient gᵀa, where all of it is needed, is the host's own product ([`Products`]). What is not a product is sequential.
//!
//! Data flows through `gradient` (one layer), `sampled` (the second factor of ζ), `damped` (an inverse, in the precision
//! that it needs), `spd` with `sweep` (quick inverses) or `cholesky` (accurate ones) or `factors` (substitution in place of an inverse),
//! `inverse` (its products), and `products` with `parts` (for threads and caches) and `dots` (those of long rows).

mod cholesky;
pub mod cost;
mod damped;
mod dots;
mod factors;
mod gradient;
#[cfg(test)]
mod identities;
mod inverse;
mod matrix;
mod parts;
mod products;
#[cfg(test)]
mod reference;
mod sampled;
mod scalar;
mod spd;
mod sweep;

pub use cost::Form;
pub use gradient::{Layer, Workspace, conditioned_gradient};
pub use matrix::Matrix;
pub use products::{ProductError, Products, TERMS_BESIDE_ADDEND, Threads};
pub use sampled::Sampled;
pub use scalar::{Limits, Scalar};

/// What the message of [`Error::NotPositiveDefinite`] says, and no other one.
pub(crate) const BREAKDOWN: &str = "is not positive definite even in double precision";

/// Why a conditioned gradient could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Rounding made the damped matrix indefinite even in double precision: the damping is too small for this input.
    #[error(
        "the curvature matrix of order {order}, damped by lambda = {lambda:e}, {BREAKDOWN}: pivot {pivot} failed; use a larger \
         lambda"
    )]
    NotPositiveDefinite {
        /// The damping that was asked for.
        lambda: f64,
        /// Number of rows of the factorised matrix.
        order: usize,
        /// Zero-based index of the pivot that was not positive.
        pivot: usize,
    },
    /// The host's dense product failed.
    #[error("a dense product failed: {0}")]
    Product(#[from] ProductError),
}
