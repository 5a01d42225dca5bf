//! Products and quotients of sizes that may have names.

use crate::model::Dim;

/// A number times named sizes.
struct Monomial {
    number: u64,
    /// In alphabetical order.
    names: Vec<String>,
}

impl Monomial {
    /// `None` where nothing is known.
    fn of(dim: &Dim) -> Option<Self> {
        match dim {
            Dim::Known(number) => Some(Self { number: *number, names: Vec::new() }),
            // A name that this file wrote, or one that means the same.
            Dim::Symbol(name) if name.split('*').all(is_plain) => {
                let mut product = Self { number: 1, names: Vec::new() };
                for factor in name.split('*') {
                    match factor.parse::<u64>() {
                        Ok(number) => product.number = product.number.checked_mul(number)?,
                        Err(_) => product.names.push(factor.to_owned()),
                    }
                }
                product.names.sort();
                Some(product)
            }
            Dim::Symbol(name) => Some(Self { number: 1, names: vec![name.clone()] }),
            Dim::Unknown => None,
        }
    }

    fn of_all(dims: &[Dim]) -> Option<Self> {
        let mut product = Self { number: 1, names: Vec::new() };
        for dim in dims {
            let Self { number, names } = Self::of(dim)?;
            product.number = product.number.checked_mul(number)?;
            product.names.extend(names);
        }
        product.names.sort();
        Some(product)
    }

    fn over(mut self, divisor: &Self) -> Option<Self> {
        for name in &divisor.names {
            let at = self.names.iter().position(|own| own == name)?;
            self.names.remove(at);
        }
        self.number = self.number.checked_div(divisor.number).filter(|_| self.number.is_multiple_of(divisor.number))?;
        Some(self)
    }

    fn dim(self) -> Dim {
        match (self.number, self.names.as_slice()) {
            (number, []) => Dim::Known(number),
            (0, _) => Dim::Known(0),
            (1, [name]) => Dim::Symbol(name.clone()),
            (_, names) if !names.iter().all(|name| is_plain(name)) => Dim::Unknown,
            (1, names) => Dim::Symbol(names.join("*")),
            (number, names) => Dim::Symbol(format!("{number}*{}", names.join("*"))),
        }
    }
}

/// Whether a name is no expression of which a factor would be something else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':'))
}

/// How many elements a tensor of these sizes has.
pub(super) fn product(dims: &[Dim]) -> Dim {
    match dims {
        [single] => single.clone(),
        _ => Monomial::of_all(dims).map_or(Dim::Unknown, Monomial::dim),
    }
}

/// The size that makes `others` as many elements as `whole`.
pub(super) fn quotient(whole: &[Dim], others: &[Dim]) -> Option<Dim> {
    // What is on both sides cancels, whatever is known of the rest.
    let mut whole = whole.to_vec();
    let mut divisors = Vec::new();
    for dim in others {
        match whole.iter().position(|own| own == dim && *dim != Dim::Unknown && *dim != Dim::Known(0)) {
            Some(at) => drop(whole.remove(at)),
            None => divisors.push(dim.clone()),
        }
    }
    match (whole.as_slice(), divisors.as_slice()) {
        ([single], []) => Some(single.clone()),
        _ => Some(Monomial::of_all(&whole)?.over(&Monomial::of_all(&divisors)?)?.dim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(text: &str) -> Vec<Dim> {
        let dim = |word: &str| match word {
            "?" => Dim::Unknown,
            _ => word.parse().map_or_else(|_| Dim::Symbol(word.into()), Dim::Known),
        };
        text.split(' ').filter(|word| !word.is_empty()).map(dim).collect()
    }

    #[test]
    fn products_keep_names() {
        for (sizes, expected) in
            [("", "1"), ("2 3", "6"), ("N 7 2", "14*N"), ("S N", "N*S"), ("2*N 3", "6*N"), ("N 0", "0"), ("N ?", "?")]
        {
            assert_eq!(product(&dims(sizes)), dims(expected)[0], "{sizes}");
        }
        // Three times "N + 1" is not "3*N + 1".
        assert_eq!(product(&dims("3 N+1")), Dim::Unknown);
        assert_eq!(product(&dims("N+1")), dims("N+1")[0]);
    }

    #[test]
    fn quotients_cancel_names() {
        for (whole, others, expected) in [
            ("N 7 48", "48", Some("7*N")),
            ("7*N 48", "N 7", Some("48")),
            ("N 7 48", "N 7 3", Some("16")),
            ("N+1 4", "N+1", Some("4")),
            ("? 4", "4", Some("?")),
            ("N 4", "M", None),
            ("N 4", "3", None),
            ("0 4", "0", None),
        ] {
            assert_eq!(
                quotient(&dims(whole), &dims(others)),
                expected.map(|e| dims(e)[0].clone()),
                "{whole} / {others}"
            );
        }
    }
}
