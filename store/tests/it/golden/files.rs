//! Which golden files there are, and that none is changed, removed or unread.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hanshu_core::Digest;
use serde_json::Value;
use sha2::Digest as _;

/// Every version that landed, and the SHA-256 of its `SHA256SUMS`. A line is never changed or
/// removed.
const LANDED: &[(&str, &str)] =
    &[("v1", "ddfe02ceb41e19c27aa3d19cddbc6a17479877eeee439624183e0f05cb2591cd")];

/// One version of the formats, as the program of its time wrote it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GoldenVersion {
    /// The folder's name: `v1`, `v2`, …
    pub(crate) name: &'static str,
}

impl GoldenVersion {
    pub(crate) fn path(self, file: &str) -> PathBuf {
        root().join(self.name).join(file)
    }

    pub(crate) fn text(self, file: &str) -> String {
        let path = self.path(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn json(self, file: &str) -> Value {
        serde_json::from_str(&self.text(file)).unwrap()
    }
}

/// All versions, the oldest first.
pub(crate) fn versions() -> impl Iterator<Item = GoldenVersion> {
    LANDED.iter().map(|(name, _)| GoldenVersion { name })
}

/// The version whose format is written now.
pub(crate) fn newest() -> GoldenVersion {
    versions().last().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Paths of all files under a folder, relative to it, in order.
fn files_under(folder: &Path) -> BTreeSet<String> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn sha256(path: &Path) -> String {
    Digest::from_bytes(sha2::Sha256::digest(fs::read(path).unwrap()).into()).to_string()
}

#[test]
fn no_golden_file_is_ever_changed_or_removed() {
    let folders = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    let names = folders.map(|entry| entry.file_name().into_string().unwrap());
    let present: BTreeSet<String> = names.filter(|name| name.starts_with('v')).collect();
    let landed: BTreeSet<String> = LANDED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(present, landed, "every version has its line in LANDED");
    for (name, sums_digest) in LANDED {
        let folder = root().join(name);
        assert_eq!(sha256(&folder.join("SHA256SUMS")), *sums_digest, "{name}/SHA256SUMS");
        let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
        let listed: BTreeMap<&str, &str> = sums
            .lines()
            .map(|line| line.split_once("  ").map(|(sum, file)| (file, sum)).unwrap())
            .collect();
        let mut files = files_under(&folder);
        files.remove("SHA256SUMS");
        assert!(files.iter().map(String::as_str).eq(listed.keys().copied()), "{name}: {files:?}");
        for (file, sum) in listed {
            assert_eq!(sha256(&folder.join(file)), sum, "{name}/{file} was changed");
        }
    }
}

/// A test reads a file where its source names it: the file itself, or its folder with a `/`.
#[test]
fn every_golden_file_is_read_by_a_test() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = String::new();
    for folder in ["store/tests/it", "controller/src", "triggers/src"] {
        let folder = workspace.join(folder);
        for file in files_under(&folder).iter().filter(|file| file.ends_with(".rs")) {
            sources += &fs::read_to_string(folder.join(file)).unwrap();
        }
    }
    for version in versions() {
        for file in files_under(&version.path("")) {
            let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
            let read = [file.clone(), format!("{folder}/")];
            assert!(
                read.iter().any(|name| sources.contains(&format!("\"{name}\""))),
                "{}/{file} is not read by any test",
                version.name
            );
        }
    }
}
