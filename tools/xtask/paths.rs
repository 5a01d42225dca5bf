//! Where things are. Everything that is made lies under `target/`.

use std::env;
use std::path::{Path, PathBuf};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's target directory: the one that this program was started from.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// A file that `cargo build --release` makes.
pub(crate) fn built(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// The operator library, as the platform names it.
pub(crate) fn library() -> PathBuf {
    built(&format!("{}isaac{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX))
}

/// The rewriter.
pub(crate) fn rewriter() -> PathBuf {
    built(&format!("isaac-rewrite{}", env::consts::EXE_SUFFIX))
}

/// The trainer.
pub(crate) fn trainer() -> PathBuf {
    built(&format!("isaac-train{}", env::consts::EXE_SUFFIX))
}

/// Downloads that are kept, so that they happen once.
pub(crate) fn downloads() -> PathBuf {
    target().join("downloads")
}
