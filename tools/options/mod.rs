//! Command-line options that the tools share.

pub(crate) mod conditioning;
mod objective;

pub(crate) use conditioning::Conditioning;
pub(crate) use objective::Objective;

/// An error and its causes, in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
