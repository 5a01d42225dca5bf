//! Writing a file whole or not at all.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// The random characters at the end of a temporary file's name.
const RANDOM: usize = 6;

/// Puts what `write` writes in the place of the file at `path`: a temporary file beside it, then a rename. Whoever reads `path`
/// meanwhile, or after a crash, finds the old content or the new one.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<()> {
    Written::new(path, write)?.put()
}

/// A file that is written, and not yet in its place; what is dropped is removed.
pub(crate) struct Written {
    file: NamedTempFile,
    target: PathBuf,
}

impl Written {
    /// Writes a file beside `path`.
    pub(crate) fn new(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<Self> {
        let target = target(path)?;
        let mut file = temporary(&target)?;
        write(file.as_file_mut())?;
        file.as_file().sync_all()?;
        Ok(Self { file, target })
    }

    /// Puts it in its place.
    pub(crate) fn put(self) -> std::io::Result<()> {
        self.file.persist(&self.target)?;
        // So that the rename survives a crash too. The file is complete where a file system does not sync folders.
        let _ = File::open(folder(&self.target)).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

/// A new file beside `path`, in the place of those that were killed programs' and are nobody's any more.
fn temporary(path: &Path) -> std::io::Result<NamedTempFile> {
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    let prefix = format!(".isaac-{name}-");
    for entry in std::fs::read_dir(folder(path)).into_iter().flatten().flatten() {
        let is_left = entry.file_name().to_str().is_some_and(|name| {
            let random = name.strip_prefix(&prefix);
            random.is_some_and(|end| end.len() == RANDOM && end.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        });
        if is_left {
            // A file that stays is in nobody's way.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    // The usual permissions of a new file (the umask is applied), not the private ones of a temporary file.
    let permissions = Permissions::from_mode(0o666);
    Builder::new().permissions(permissions).prefix(&prefix).rand_bytes(RANDOM).tempfile_in(folder(path))
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
/// What a killed program has left there of an unfinished file is removed.
///
/// # Errors
/// Something else than a file in its place, or a folder that nothing can be written to.
pub fn check_writable(path: &Path) -> std::io::Result<()> {
    temporary(&target(path)?).map(|_| ())
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
    fn what_killed_programs_left_of_the_same_file_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let names = [".isaac-a-0aZ9bc", ".isaac-a-b-0aZ9bc", ".isaac-b-0aZ9bc", ".isaac-a-notes.", "a-0aZ9bc"];
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), b"half").expect("a file"));
        check_writable(&path).expect("a folder that can be written to");
        let left = |name: &&str| folder.path().join(name).exists();
        assert_eq!(names.map(|name| left(&name)), [false, true, true, true, true]);
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), names.len() - 1);
    }

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
