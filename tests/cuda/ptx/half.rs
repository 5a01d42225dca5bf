//! IEEE half precision, as the device converts it.

/// The float of the same value.
pub(super) fn widen(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, mantissa) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => mantissa as f32 * 2f32.powi(-24),
        0x1f => f32::from_bits(0x7f80_0000 | mantissa << 13),
        _ => f32::from_bits((exponent + 112) << 23 | mantissa << 13),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// The nearest half, ties to even.
pub(super) fn narrow(value: f32) -> u16 {
    let sign = (value.to_bits() >> 31 << 15) as u16;
    let magnitude = value.abs();
    if value.is_nan() {
        return 0x7fff;
    }
    if magnitude >= 65520.0 {
        return sign | 0x7c00;
    }
    // Adding this pushes what a half has no place for out of the float, which rounds it.
    let exponent = (magnitude.to_bits() >> 23).max(113);
    let step = f32::from_bits((exponent + 13) << 23);
    let rounded = (magnitude + step) - step;
    let bits = rounded.to_bits();
    if rounded < 2f32.powi(-14) {
        return sign | (rounded * 2f32.powi(24)) as u16;
    }
    sign | ((bits >> 13) - (112 << 10)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_there_and_back() {
        for bits in 0..=u16::MAX {
            let value = widen(bits);
            if value.is_nan() {
                assert!(::half::f16::from_bits(bits).is_nan());
            } else {
                assert_eq!(value, ::half::f16::from_bits(bits).to_f32());
                assert_eq!(narrow(value), bits);
                let next = value * (1.0 + 2f32.powi(-11));
                assert_eq!(narrow(next), ::half::f16::from_f32(next).to_bits(), "{next}");
            }
        }
    }
}
