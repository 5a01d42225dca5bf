//! Where things are. Everything that is made lies under `target/`.

use std::env;
use std::fs;
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

/// The names under which ONNX Runtime's CUDA provider and we load CUDA's libraries.
const CUDA_LIBRARIES: [&str; 5] =
    ["libcuda.so.1", "libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"];

/// A folder in which the stand-ins for CUDA's libraries lie under the names of these. They are one file, which the loader
/// then loads once.
pub(crate) fn cuda_standins() -> Result<PathBuf, String> {
    let folder = target().join("cuda");
    let standin = built("examples").join(format!("{}cuda_standin{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX));
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(fail)?;
    for name in CUDA_LIBRARIES {
        let link = folder.join(name);
        if link.is_symlink() {
            fs::remove_file(&link).map_err(fail)?;
        }
        std::os::unix::fs::symlink(&standin, &link).map_err(fail)?;
    }
    Ok(folder)
}

/// Downloads that are kept, so that they happen once.
pub(crate) fn downloads() -> PathBuf {
    target().join("downloads")
}
