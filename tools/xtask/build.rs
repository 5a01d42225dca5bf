//! Building the library and the tools.

use std::process::Command;

use crate::{command, paths};

/// A cargo command in the repository's root.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root());
    cargo
}

/// Builds libisaac.so and the tools.
pub(crate) fn release() -> Result<(), String> {
    command::run(cargo().args([
        "build",
        "--release",
        "--quiet",
        "--lib",
        "--bin",
        "isaac-rewrite",
        "--bin",
        "isaac-train",
    ]))
}
