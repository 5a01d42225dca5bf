use super::size;
use crate::model::Dim;

/// One element of an integer or boolean tensor, which exporters compute shapes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// A number; of a boolean, 0 or 1.
    Known(i64),
    /// The size of that name: equal names mean equal sizes.
    Symbol(String),
    /// Nothing is known.
    Unknown,
}

impl Element {
    /// The number, where there is one.
    pub fn known(&self) -> Option<i64> {
        match self {
            Self::Known(number) => Some(*number),
            _ => None,
        }
    }

    /// The element as the size of an axis. Negative numbers are none.
    pub fn size(&self) -> Dim {
        match self {
            Self::Known(number) => u64::try_from(*number).map_or(Dim::Unknown, Dim::Known),
            Self::Symbol(name) => Dim::Symbol(name.clone()),
            Self::Unknown => Dim::Unknown,
        }
    }

    fn number(number: Option<i64>) -> Self {
        number.map_or(Self::Unknown, Self::Known)
    }

    fn truth(truth: Option<bool>) -> Self {
        Self::number(truth.map(i64::from))
    }

    pub(super) fn to_bool(&self) -> Self {
        Self::truth(self.known().map(|number| number != 0))
    }

    /// An operator of one operand.
    pub(super) fn mapped(op_type: &str, a: &Self) -> Self {
        let known = a.known();
        match (op_type, a) {
            ("Abs", Self::Symbol(_)) => a.clone(),
            ("Abs", _) => Self::number(known.and_then(i64::checked_abs)),
            ("Neg", _) => Self::number(known.and_then(i64::checked_neg)),
            ("Not", _) => Self::truth(known.map(|number| number == 0)),
            _ => Self::Unknown,
        }
    }

    /// An operator of two operands.
    pub(super) fn combined(op_type: &str, a: &Self, b: &Self) -> Self {
        let known = a.known().zip(b.known());
        let compare = |test: fn(&i64, &i64) -> bool| Self::truth(known.map(|(a, b)| test(&a, &b)));
        match op_type {
            "Add" if a.known() == Some(0) => b.clone(),
            "Add" | "Sub" if b.known() == Some(0) => a.clone(),
            "Add" => Self::number(known.and_then(|(a, b)| a.checked_add(b))),
            "Sub" if a.is_same(b) => Self::Known(0),
            "Sub" => Self::number(known.and_then(|(a, b)| a.checked_sub(b))),
            "Mul" => match known {
                Some((a, b)) => Self::number(a.checked_mul(b)),
                None => Self::from(&size::product(&[a.size(), b.size()])),
            },
            "Div" => match known {
                Some((a, b)) => Self::number(a.checked_div(b)),
                None => size::quotient(&[a.size()], &[b.size()]).as_ref().map_or(Self::Unknown, Self::from),
            },
            // The two kinds of remainder are the same for these.
            "Mod" => Self::number(known.filter(|&(a, b)| a >= 0 && b > 0).map(|(a, b)| a % b)),
            "Max" => Self::number(known.map(|(a, b)| a.max(b))),
            "Min" => Self::number(known.map(|(a, b)| a.min(b))),
            "And" if a.known() == Some(0) || b.known() == Some(0) => Self::Known(0),
            "And" => Self::truth(known.map(|(a, b)| a != 0 && b != 0)),
            "Or" if a.known() == Some(1) || b.known() == Some(1) => Self::Known(1),
            "Or" => Self::truth(known.map(|(a, b)| a != 0 || b != 0)),
            "Equal" if a.is_same(b) => Self::Known(1),
            "Equal" if a.is_never(b) || b.is_never(a) => Self::Known(0),
            "Equal" => compare(i64::eq),
            "Less" => compare(i64::lt),
            "LessOrEqual" => compare(i64::le),
            "Greater" => compare(i64::gt),
            "GreaterOrEqual" => compare(i64::ge),
            _ => Self::Unknown,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self == other && *self != Self::Unknown
    }

    /// A size is not negative.
    fn is_never(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Symbol(_), Self::Known(..0)))
    }
}

impl From<&Dim> for Element {
    fn from(dim: &Dim) -> Self {
        match dim {
            Dim::Known(size) => Self::number(i64::try_from(*size).ok()),
            Dim::Symbol(name) => Self::Symbol(name.clone()),
            Dim::Unknown => Self::Unknown,
        }
    }
}
