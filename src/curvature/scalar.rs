//! The element types that the mathematics is done in.

/// When to leave a precision for a better one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest spectral norm of a damped matrix that is inverted in this precision.
    pub norm: f64,
    /// Largest condition number of a damped matrix that is formed, and multiplied, in this precision.
    pub condition: f64,
}

impl Limits {
    /// Limits for an inverse of which the product is subtracted, so that the condition number counts twice.
    pub(super) fn of_differences(self) -> Self {
        Self {
            condition: self.condition.sqrt(),
            ..self
        }
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
}

impl Scalar for f32 {
    const LIMITS: Option<Limits> = Some(Limits {
        norm: 16.0,
        condition: 64.0,
    });

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
}
