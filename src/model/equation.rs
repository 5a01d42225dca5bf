use std::collections::BTreeSet;

/// The equation of an Einsum: which letter each axis has.
///
/// The axes behind an ellipsis get letters that the equation does not use: the same for all operands, counted from the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equation {
    /// The letters of each operand's axes.
    pub inputs: Vec<Vec<char>>,
    /// The letters of the result's axes.
    pub output: Vec<char>,
    /// The letters of axes behind an ellipsis, along which operands may be repeated.
    pub ellipsis: BTreeSet<char>,
}

impl Equation {
    /// The equation that `text` is for operands of these ranks; what is wrong with it otherwise.
    ///
    /// # Errors
    /// An equation that is none, or is for other operands.
    pub fn parse(text: &str, ranks: &[usize]) -> Result<Self, String> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let wrong = |what: &str| format!("equation '{text}': {what}");
        let (left, right) = text.split_once("->").map_or((text.as_str(), None), |(left, right)| (left, Some(right)));
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(wrong(&format!("{} terms for {} operands", terms.len(), ranks.len())));
        }
        let is_term = |term: &str| term.replacen("...", "", 1).chars().all(|c| c.is_ascii_alphabetic());
        if !terms.iter().copied().chain(right).all(is_term) {
            return Err(wrong("letters and one ellipsis a term are expected"));
        }
        let mut hidden = 0;
        for (term, &rank) in terms.iter().zip(ranks) {
            let letters = term.chars().filter(char::is_ascii_alphabetic).count();
            let rest = rank.checked_sub(letters).filter(|&rest| rest == 0 || term.contains("..."));
            hidden = hidden.max(rest.ok_or_else(|| wrong(&format!("term '{term}' for an operand with {rank} axes")))?);
        }
        let mut free = ('A'..='Z').chain('a'..='z').filter(|c| !text.contains(*c));
        let behind: Vec<char> = free.by_ref().take(hidden).collect();
        if behind.len() < hidden {
            return Err(wrong("there are not enough letters"));
        }
        let spelled = |term: &str, count: usize| -> Vec<char> {
            let letters: String = behind[behind.len() - count..].iter().collect();
            term.replacen("...", &letters, 1).chars().collect()
        };
        let inputs: Vec<Vec<char>> = terms
            .iter()
            .zip(ranks)
            .map(|(term, rank)| spelled(term, rank - term.chars().filter(char::is_ascii_alphabetic).count()))
            .collect();
        let output = match right {
            Some(right) => spelled(right, hidden),
            None => {
                let once = |c: &char| left.matches(*c).count() == 1;
                let letters: BTreeSet<char> = left.chars().filter(char::is_ascii_alphabetic).filter(once).collect();
                behind.iter().copied().chain(letters).collect()
            }
        };
        let known: BTreeSet<char> = inputs.iter().flatten().copied().collect();
        let distinct: BTreeSet<char> = output.iter().copied().collect();
        if distinct.len() != output.len() || !distinct.is_subset(&known) {
            return Err(wrong("each axis of the result is one of the operands', once"));
        }
        Ok(Self { inputs, output, ellipsis: behind.into_iter().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    #[test]
    fn an_ellipsis_is_the_axes_without_a_letter() {
        let equation = Equation::parse("...ij, jk -> ...ik", &[4, 2]).expect("an equation");
        assert_eq!(equation.inputs, [letters("ABij"), letters("jk")]);
        assert_eq!(equation.output, letters("ABik"));
        let equation = Equation::parse("i...,...", &[2, 3]).expect("an equation");
        assert_eq!(equation.inputs, [letters("iC"), letters("ABC")]);
        assert_eq!(equation.output, letters("ABCi"));
    }

    #[test]
    fn without_an_arrow_the_result_has_the_letters_that_occur_once() {
        assert_eq!(Equation::parse("bij,bjk", &[3, 3]).expect("an equation").output, letters("ik"));
    }

    #[test]
    fn equations_for_other_operands_are_refused() {
        for (text, ranks) in [
            ("ij", &[3][..]),
            ("ij,jk->ik", &[2]),
            ("i1->i", &[2]),
            ("ij->ii", &[2]),
            ("ij->k", &[2]),
            ("......", &[2]),
        ] {
            assert!(Equation::parse(text, ranks).is_err(), "{text}");
        }
    }
}
