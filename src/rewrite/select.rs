//! The grammar of `--layers`: `all | first:K | last:K | odd | even | 1,3,5 | GLOB`.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::model::fits;

/// Which layers to rewrite. Layers count from 1 in forward order; globs are matched against the weight's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Every layer.
    All,
    /// The first k.
    First(usize),
    /// The last k.
    Last(usize),
    /// 1, 3, 5, …
    Odd,
    /// 2, 4, 6, …
    Even,
    /// These.
    Indices(Vec<usize>),
    /// Those whose weight's name matches.
    Glob(String),
}

/// A selection that cannot be understood, or fits no layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// The count behind `first:` or `last:`, or a list of numbers, is no positive number.
    #[error("'{text}': layers are counted with whole numbers from 1")]
    Count {
        /// The selector.
        text: String,
    },
    /// Nothing fits.
    #[error("--layers '{text}' matches no layer; the layers are: {}", layers.join(", "))]
    NoMatch {
        /// The selector.
        text: String,
        /// Index and weight of each layer.
        layers: Vec<String>,
    },
}

impl FromStr for Selector {
    type Err = SelectError;

    fn from_str(text: &str) -> Result<Self, SelectError> {
        let count = |digits: &str| match digits.trim().parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(SelectError::Count { text: text.to_owned() }),
        };
        if let Some(digits) = text.strip_prefix("first:") {
            return Ok(Self::First(count(digits)?));
        }
        if let Some(digits) = text.strip_prefix("last:") {
            return Ok(Self::Last(count(digits)?));
        }
        if text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_digit() || c == ',' || c == ' ')
        {
            return Ok(Self::Indices(text.split(',').map(count).collect::<Result<_, _>>()?));
        }
        Ok(match text {
            "all" => Self::All,
            "odd" => Self::Odd,
            "even" => Self::Even,
            glob => Self::Glob(glob.to_owned()),
        })
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::First(count) => write!(f, "first:{count}"),
            Self::Last(count) => write!(f, "last:{count}"),
            Self::Odd => f.write_str("odd"),
            Self::Even => f.write_str("even"),
            Self::Indices(indices) => f.write_str(&indices.iter().map(usize::to_string).collect::<Vec<_>>().join(",")),
            Self::Glob(glob) => f.write_str(glob),
        }
    }
}

impl Selector {
    /// What speaks against this selector for a model of so many layers: that it counts further than they go.
    pub fn doubt(&self, count: usize) -> Option<String> {
        match self {
            Self::First(k) | Self::Last(k) if *k > count => {
                Some(format!("--layers '{self}' takes all layers, of which there are {count}"))
            }
            _ => None,
        }
    }

    fn fits(&self, index: usize, count: usize, weight: &str) -> bool {
        match self {
            Self::All => true,
            Self::First(k) => index <= *k,
            Self::Last(k) => index + k > count,
            Self::Odd => index % 2 == 1,
            Self::Even => index.is_multiple_of(2),
            Self::Indices(indices) => indices.contains(&index),
            Self::Glob(glob) => fits(glob, weight),
        }
    }
}

/// The indices of the layers that any of `selectors` fits; all of them if there is no selector.
///
/// # Errors
/// A selector that fits no layer, or a listed index that does not exist.
pub(super) fn select(selectors: &[Selector], weights: &[&str]) -> Result<BTreeSet<usize>, SelectError> {
    let mut selected = BTreeSet::new();
    for selector in selectors {
        let fits = |selector: &Selector| -> Vec<usize> {
            (1..=weights.len()).filter(|&index| selector.fits(index, weights.len(), weights[index - 1])).collect()
        };
        let found = fits(selector);
        let missing =
            matches!(selector, Selector::Indices(wanted) if wanted.iter().any(|index| !found.contains(index)));
        if found.is_empty() || missing {
            let layers = weights.iter().enumerate().map(|(i, weight)| format!("{} {weight}", i + 1)).collect();
            return Err(SelectError::NoMatch { text: selector.to_string(), layers });
        }
        selected.extend(found);
    }
    if selectors.is_empty() {
        selected.extend(1..=weights.len());
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHTS: [&str; 5] = ["fc0.weight", "fc1.weight", "fc2.weight", "enc/q.weight", "head"];

    fn selected(texts: &[&str]) -> Result<Vec<usize>, SelectError> {
        let selectors: Vec<Selector> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        Ok(select(&selectors, &WEIGHTS)?.into_iter().collect())
    }

    #[test]
    fn grammar() {
        for (texts, expected) in [
            (&["all"][..], &[1, 2, 3, 4, 5][..]),
            (&[], &[1, 2, 3, 4, 5]),
            (&["first:2"], &[1, 2]),
            (&["last:1"], &[5]),
            (&["last:9"], &[1, 2, 3, 4, 5]),
            (&["odd"], &[1, 3, 5]),
            (&["even"], &[2, 4]),
            (&["1,3,5"], &[1, 3, 5]),
            (&["2"], &[2]),
            (&["fc*"], &[1, 2, 3]),
            (&["fc1.weight", "head"], &[2, 5]),
            (&["*q.weight"], &[4]),
        ] {
            assert_eq!(selected(texts).as_deref(), Ok(expected), "{texts:?}");
        }
    }

    #[test]
    fn what_fits_nothing_is_an_error() {
        for text in ["conv*", "6", "1,6"] {
            assert!(matches!(selected(&[text]), Err(SelectError::NoMatch { .. })), "{text}");
        }
        for text in ["first:0", "first:x", "last:", "0", "1,,2"] {
            assert!(matches!(selected(&[text]), Err(SelectError::Count { .. })), "{text}");
        }
    }

    #[test]
    fn selectors_are_printed_as_they_are_written() {
        for text in ["all", "first:2", "last:3", "odd", "even", "1,3,5", "fc*.weight"] {
            assert_eq!(text.parse::<Selector>().map(|selector| selector.to_string()).as_deref(), Ok(text));
        }
    }
}
