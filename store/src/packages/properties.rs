//! What holds of every package, however it was packed: the fuzzer's target `package`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "what does not hold must be seen; this is no part of the program"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hanshu_core::ports::PackageError;

use super::files::remove_tree;
use super::unpack::{plan, unpack};
use super::unpack_plan::{UnpackLimits, UnpackStep};

const LIMITS: UnpackLimits = UnpackLimits { bytes_max: 256 * 1024, entries_max: 32 };
/// Longer than any refusal: it names an entry by its start.
const MESSAGE_BYTES_MAX: usize = 1_000;

/// Folders of this process, so that two at once do not meet.
static FOLDERS: AtomicU64 = AtomicU64::new(0);

/// Unpacks `zip` into a folder of its own. Either all that it says is there, within the limits and
/// nowhere else, or nothing is.
///
/// # Panics
/// Something does not hold.
pub fn package(zip: &[u8]) {
    let zip = Bytes::copy_from_slice(zip);
    let planned = match plan(&zip, LIMITS) {
        Ok((_, planned)) => planned,
        Err(error) => return is_a_refusal(&error),
    };
    for entry in &planned {
        let (UnpackStep::File { path, .. } | UnpackStep::Folder { path }) = entry;
        let plain = |part: &str| !["", ".", ".."].contains(&part) && !part.contains(['\\', '\0']);
        assert!(path.is_empty() || path.split('/').all(plain), "`{path}`");
    }
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let around = std::env::temp_dir().join(format!("hanshu-fuzz-{}-{number}", std::process::id()));
    fs::create_dir(&around).expect("a temporary folder can be made");
    let folder = around.join("package");
    match unpack(&zip, &folder, LIMITS) {
        Ok(()) => {
            assert_eq!(
                names(&around),
                std::slice::from_ref(&folder),
                "something is beside the package"
            );
            holds_what_was_planned(&folder, &planned);
        }
        Err(error) => {
            is_a_refusal(&error);
            assert!(names(&around).is_empty(), "a refused package left something");
        }
    }
    remove_tree(&around).expect("a temporary folder can be removed");
}

fn is_a_refusal(error: &PackageError) {
    let PackageError::Refused(text) = error else { panic!("{error}") };
    assert!((1..MESSAGE_BYTES_MAX).contains(&text.len()), "{text}");
}

fn holds_what_was_planned(folder: &Path, planned: &[UnpackStep]) {
    let mut files = Vec::new();
    let (mut nodes, mut bytes) = (0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(each) = folders.pop() {
        assert_eq!(mode(&each), 0o555);
        for path in names(&each) {
            nodes += 1;
            let kind = fs::symlink_metadata(&path).expect("it was listed");
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            assert!(kind.is_file(), "{} is neither file nor folder", path.display());
            assert!([0o444, 0o555].contains(&mode(&path)));
            bytes += kind.len();
            files.push(path);
        }
    }
    files.sort();
    let mut expected: Vec<PathBuf> = planned
        .iter()
        .filter_map(|entry| match entry {
            UnpackStep::File { path, .. } => Some(folder.join(path)),
            UnpackStep::Folder { path } => {
                assert!(folder.join(path).is_dir());
                None
            }
        })
        .collect();
    expected.sort();
    assert_eq!(files, expected);
    assert!(nodes <= LIMITS.entries_max && bytes <= LIMITS.bytes_max, "{nodes}, {bytes} bytes");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it was listed").permissions().mode() & 0o7777
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of ours can be read");
    entries.map(|entry| entry.expect("a folder of ours can be read").path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::replay;

    #[test]
    fn what_holds_of_packages_holds_of_the_corpus() {
        replay("package", package);
    }
}
