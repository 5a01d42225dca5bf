//! The element types that the mathematics is done in.

use pulp::Simd;

/// When to leave a precision for a better one; all of these are numbers that rounding errors are multiplied by.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest spectral norm of a damped matrix that is inverted in this precision.
    pub norm: f64,
    /// Largest condition number of a damped matrix that is formed in this precision.
    pub condition: f64,
    /// Largest magnification of errors by a product with the inverse V in this precision, ‖V‖·‖x‖/‖V x‖.
    pub magnification: f64,
    /// Largest spectral norm of a damped matrix that is factorised rather than inverted. What substitution loses grows with the
    /// condition number, which the norm bounds.
    pub substitution: f64,
}

impl Limits {
    /// Limits for an inverse of which the product is the last one: what substitution loses where the matrix x is small stays there.
    pub(super) fn of_last_products(self) -> Self {
        Self { substitution: 0.0, ..self }
    }

    /// Limits for an inverse that is multiplied by something else than the matrix x that it was made of, or of which
    /// the product is subtracted: then only the condition number bounds the magnification.
    pub(super) fn of_other_products(self) -> Self {
        Self { condition: self.magnification, substitution: 0.0, ..self }
    }
}

/// A floating-point type in which gradients are conditioned: `f32` or `f64`.
pub trait Scalar: faer::traits::RealField + Copy + Default + Send + Sync + 'static {
    /// Up to which this precision is enough; `None` if there is nothing better.
    const LIMITS: Option<Limits>;

    /// Rounds from double precision.
    fn from_f64(value: f64) -> Self;

    /// Widens to double precision.
    fn to_f64(self) -> f64;

    /// `self * factor + summand`, rounded once.
    fn mul_add(self, factor: Self, summand: Self) -> Self;

    /// As many elements as fill registers, and the rest.
    fn registers<S: Simd>(elements: &[Self]) -> (&[Self::SimdVec<S>], &[Self]);

    /// A register with elements that do not fill it, and zeros behind them.
    fn partial_register<S: Simd>(simd: S, elements: &[Self]) -> Self::SimdVec<S>;
}

impl Scalar for f32 {
    const LIMITS: Option<Limits> = Some(Limits { norm: 32.0, condition: 200.0, magnification: 8.0, substitution: 6.5 });

    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        f32::mul_add(self, factor, summand)
    }

    #[inline(always)]
    fn registers<S: Simd>(elements: &[Self]) -> (&[S::f32s], &[Self]) {
        S::as_simd_f32s(elements)
    }

    #[inline(always)]
    fn partial_register<S: Simd>(simd: S, elements: &[Self]) -> S::f32s {
        simd.partial_load_f32s(elements)
    }
}

impl Scalar for f64 {
    const LIMITS: Option<Limits> = None;

    fn from_f64(value: f64) -> Self {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        f64::mul_add(self, factor, summand)
    }

    #[inline(always)]
    fn registers<S: Simd>(elements: &[Self]) -> (&[S::f64s], &[Self]) {
        S::as_simd_f64s(elements)
    }

    #[inline(always)]
    fn partial_register<S: Simd>(simd: S, elements: &[Self]) -> S::f64s {
        simd.partial_load_f64s(elements)
    }
}
