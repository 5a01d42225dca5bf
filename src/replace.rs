//! Writing a file whole or not at all.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::Builder;

/// Puts what `write` writes in the place of the file at `path`: a temporary file beside it, then a rename. Whoever reads `path`
/// meanwhile, or after a crash, finds the old content or the new one.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<()> {
    let path = &target(path)?;
    let folder = folder(path);
    // The usual permissions of a new file (the umask is applied), not the private ones of a temporary file.
    let permissions = Permissions::from_mode(0o666);
    let mut file = Builder::new().permissions(permissions).prefix(".isaac-").tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // So that the rename survives a crash too. The file is complete where a file system does not sync folders.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// What is replaced: the file at `path`, or that which a link there leads to.
///
/// # Errors
/// Something else than a file, or a folder that nothing can be written to.
pub(crate) fn target(path: &Path) -> std::io::Result<PathBuf> {
    let target = if path.is_symlink() { path.canonicalize()? } else { path.to_owned() };
    match std::fs::metadata(&target) {
        Ok(there) if !there.is_file() => {
            Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "what is there is no file, and is left alone"))
        }
        _ => Ok(target),
    }
}

/// Checks that a file can be put there, whole or not at all, as far as that can be told: for what is written at the end of long work.
///
/// # Errors
/// Something else than a file in its place, or a folder that nothing can be written to.
pub fn check_writable(path: &Path) -> std::io::Result<()> {
    tempfile::tempfile_in(folder(&target(path)?)).map(|_| ())
}

/// The folder that holds `path`.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, Write};

    use super::*;

    #[test]
    fn what_fails_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        replace(&path, |file| file.write_all(b"old")).expect("a new file");
        let failed = replace(&path, |file| file.write_all(b"half").and(Err(Error::other("no more"))));
        assert_eq!(failed.expect_err("what the closure says").to_string(), "no more");
        assert_eq!(std::fs::read(&path).expect("the old file"), b"old");
        replace(&path, |file| file.write_all(b"new")).expect("a replacement");
        assert_eq!(std::fs::read(&path).expect("the new file"), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
        let fresh = File::create(folder.path().join("fresh")).expect("another file");
        let mode = |file: &File| file.metadata().expect("of an open file").permissions().mode();
        assert_eq!(mode(&File::open(&path).expect("the file")), mode(&fresh), "the usual permissions");
    }
}
