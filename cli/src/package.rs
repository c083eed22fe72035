//! A folder or zip becomes a package: the same files always give the same bytes.

use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hanshu_core::Digest;
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::error::Error;
use crate::manifest::FILE_NAME;

/// What a folder must not send, in the syntax of `.gitignore`.
const IGNORE_FILE: &str = ".hanshuignore";

/// The zip's bytes and their SHA-256 in hexadecimal.
#[derive(Debug)]
pub(crate) struct Package {
    /// The zip's bytes.
    pub(crate) zip: Vec<u8>,
    /// SHA-256 of the zip, which names the package.
    pub(crate) digest: Digest,
}

/// One file of a package.
#[derive(Debug)]
struct PackageEntry {
    name: String,
    path: PathBuf,
    executable: bool,
}

impl Package {
    /// Packs a folder, or takes a zip as it is. A Go folder without its binary is built first.
    pub(crate) fn make(code: &Path, runtime: &str, handler: &str) -> Result<Self, Error> {
        if code.is_file() {
            return Ok(Self::of(fs::read(code).map_err(|error| Error::file(code, error))?));
        }
        if !code.is_dir() {
            return Err(Error::file(code, "no such folder or zip (`code` in hanshu.toml)"));
        }
        let mut entries = entries(code)?;
        let is_go = matches!(runtime.to_ascii_lowercase().as_str(), "go" | "go1");
        let mut built_in = None;
        if is_go && !entries.iter().any(|entry| entry.name == handler) {
            let (path, folder) = crate::go::build(code, handler)?;
            entries.retain(|entry| !is_go_source(&entry.name));
            entries.push(PackageEntry { name: handler.into(), path, executable: true });
            built_in = Some(folder);
            entries.sort_by(|a, b| a.name.cmp(&b.name));
        }
        if entries.is_empty() {
            return Err(Error::file(code, "the folder has no files to send"));
        }
        let zip = zip_of(&entries)?;
        // The binary's folder goes when it has been read.
        drop(built_in);
        Ok(Self::of(zip))
    }

    fn of(zip: Vec<u8>) -> Self {
        let digest = Digest::from_bytes(Sha256::digest(&zip).into());
        Self { zip, digest }
    }
}

fn is_go_source(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    Path::new(name).extension().is_some_and(|end| end == "go")
        || ["go.mod", "go.sum"].contains(&base)
}

/// All files below `folder`, sorted by name, without what is ignored.
fn entries(folder: &Path) -> Result<Vec<PackageEntry>, Error> {
    let root = folder.canonicalize().map_err(|error| Error::file(folder, error))?;
    let walk = ignore::WalkBuilder::new(&root)
        .standard_filters(false)
        .follow_links(true)
        .add_custom_ignore_filename(IGNORE_FILE)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    let mut entries = Vec::new();
    for found in walk {
        let found = found.map_err(|error| Error::file(folder, error))?;
        if found.file_type().is_none_or(|kind| kind.is_dir()) {
            continue;
        }
        let relative = found.path().strip_prefix(&root).unwrap_or(found.path());
        let name = relative.to_str().ok_or_else(|| {
            Error::file(
                relative,
                "the file's name is not UTF-8: rename it, or list it in .hanshuignore",
            )
        })?;
        if [FILE_NAME, IGNORE_FILE].contains(&name) {
            continue;
        }
        entries.push(entry(&root, name, found.path())?);
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn entry(root: &Path, name: &str, path: &Path) -> Result<PackageEntry, Error> {
    let real = path.canonicalize().map_err(|error| Error::file(path, error))?;
    if !real.starts_with(root) {
        let what = format!("a link that leads out of the folder, to {}", real.display());
        return Err(Error::file(path, what));
    }
    let meta = fs::metadata(&real).map_err(|error| Error::file(path, error))?;
    if !meta.is_file() {
        return Err(Error::file(path, "neither a file nor a folder: list it in .hanshuignore"));
    }
    let executable = meta.permissions().mode() & 0o111 != 0;
    Ok(PackageEntry { name: name.into(), path: real, executable })
}

/// Sorted names, one fixed time, and of the modes the x bit alone: equal files, equal bytes.
fn zip_of(entries: &[PackageEntry]) -> Result<Vec<u8>, Error> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for entry in entries {
        let failed = |error: &dyn std::fmt::Display| Error::file(&entry.path, error);
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(if entry.executable { 0o755 } else { 0o644 });
        let bytes = fs::read(&entry.path).map_err(|error| failed(&error))?;
        zip.start_file(entry.name.as_str(), options).map_err(|error| failed(&error))?;
        zip.write_all(&bytes).map_err(|error| failed(&error))?;
    }
    let done =
        zip.finish().map_err(|error| Error::Usage(format!("the zip cannot be made: {error}")))?;
    Ok(done.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        entries(dir).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn equal_files_make_equal_packages() {
        let files = [("index.py", "x = 1"), ("lib/a.py", ""), (".env", "kept")];
        let (one, two) = (folder(&files), folder(&files));
        let make = |dir: &Path| Package::make(dir, "python", "index.main").unwrap();
        assert_eq!(make(one.path()).digest, make(two.path()).digest);
        fs::write(two.path().join("index.py"), "x = 2").unwrap();
        assert_ne!(make(one.path()).digest, make(two.path()).digest);
    }

    #[test]
    fn what_is_ignored_is_not_sent_and_gitignore_does_not_count() {
        let dir = folder(&[
            (".hanshuignore", "*.log\nbuild/\n"),
            (".gitignore", "index.py\n"),
            ("hanshu.toml", ""),
            ("index.py", ""),
            ("a.log", ""),
            ("build/x", ""),
            (".git/config", ""),
        ]);
        assert_eq!(names(dir.path()), [".gitignore", "index.py"]);
    }

    #[test]
    fn a_link_out_of_the_folder_is_refused_by_name() {
        let dir = folder(&[("index.py", "")]);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("leak")).unwrap();
        let message = entries(dir.path()).unwrap_err().to_string();
        assert!(message.contains("leak"), "{message}");
    }

    #[test]
    fn a_zip_is_taken_as_it_is() {
        let dir = folder(&[("code.zip", "not looked into")]);
        let package = Package::make(&dir.path().join("code.zip"), "python", "x.y").unwrap();
        assert_eq!(package.zip, b"not looked into");
    }
}
