//! The element types that the mathematics is done in.

/// A floating-point type in which gradients are conditioned: `f32` or `f64`.
pub trait Scalar: faer::traits::RealField + Copy + Default + Send + Sync + 'static {
    /// Largest condition number (‖M‖∞·‖M⁻¹‖∞ of the damped matrix M) at which results in this precision are kept;
    /// beyond it the work is repeated in double. A relative error of about `condition * epsilon` is to be expected.
    const MAX_CONDITION: f64;

    /// Rounds from double precision.
    fn from_f64(value: f64) -> Self;

    /// Widens to double precision.
    fn to_f64(self) -> f64;
}

impl Scalar for f32 {
    const MAX_CONDITION: f64 = 30.0;

    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Scalar for f64 {
    const MAX_CONDITION: f64 = f64::INFINITY;

    fn from_f64(value: f64) -> Self {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }
}
