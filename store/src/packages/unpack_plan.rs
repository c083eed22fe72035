//! What a zip's directory says it holds, checked before anything is written: names, kinds, number
//! and size. Pure.

use std::collections::BTreeMap;

use hanshu_core::{CODE_BYTES_MAX, PACKAGE_ENTRIES_MAX};

/// The longest path within a package. Linux' own bound is 4,096 bytes, the mount point included.
const PATH_BYTES_MAX: usize = 2048;
/// The longest name of a file or folder: Linux' own bound.
const NAME_BYTES_MAX: usize = 255;

/// How much a package may hold.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    /// Bytes of all files together, unpacked.
    pub bytes_max: u64,
    /// Files and folders, those included that only paths name.
    pub entries_max: usize,
}

/// An entry, as the zip's directory describes it.
#[derive(Debug)]
pub(super) struct ZipEntryHeader<'a> {
    pub(super) name: &'a [u8],
    pub(super) encrypted: bool,
    /// With the file type's bits; `None` where the zip keeps no Unix mode.
    pub(super) mode: Option<u32>,
    /// Unpacked, as announced.
    pub(super) bytes: u64,
}

/// What to make of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UnpackStep {
    /// A file, relative to the package's root, and whether it is marked as executable.
    File { path: String, executable: bool },
    /// A folder; empty for the root itself.
    Folder { path: String },
}

/// The entries so far.
#[derive(Debug)]
pub(super) struct UnpackPlan {
    limits: UnpackLimits,
    bytes: u64,
    /// Every file and folder, those included that only paths name. True for folders.
    nodes: BTreeMap<String, bool>,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { bytes_max: CODE_BYTES_MAX, entries_max: PACKAGE_ENTRIES_MAX }
    }
}

impl UnpackPlan {
    /// A plan for a zip of so many entries.
    pub(super) fn new(limits: UnpackLimits, entries: usize) -> Result<Self, String> {
        if entries == 0 {
            return Err("the zip holds no file".into());
        }
        if limits.entries_max < entries {
            return Err(too_many(limits.entries_max, entries));
        }
        Ok(Self { limits, bytes: 0, nodes: BTreeMap::new() })
    }

    /// Takes the next entry, or says which rule it breaks.
    pub(super) fn add(&mut self, entry: &ZipEntryHeader<'_>) -> Result<UnpackStep, String> {
        let shown = String::from_utf8_lossy(entry.name);
        let refuse = |rule: &str| Err(format!("entry `{}` {rule}", shorten(&shown)));
        let Ok(name) = std::str::from_utf8(entry.name) else {
            return refuse("has a name that is not UTF-8");
        };
        if entry.encrypted {
            return refuse("is encrypted");
        }
        let path = match clean(name) {
            Ok(path) => path,
            Err(rule) => return refuse(rule),
        };
        // POSIX file types: the rest are links, devices, pipes and sockets.
        let is_folder = match entry.mode.unwrap_or(0) & 0o170_000 {
            0 | 0o100_000 => name.ends_with('/'),
            0o040_000 => true,
            0o120_000 => return refuse("is a symbolic link; only files and folders are taken"),
            _ => return refuse("is neither a file nor a folder"),
        };
        if path.is_empty() && !is_folder {
            return refuse("has no name");
        }
        if let Err(rule) = self.place(&path, is_folder) {
            return refuse(&rule);
        }
        if is_folder {
            return Ok(UnpackStep::Folder { path });
        }
        self.bytes = self.bytes.saturating_add(entry.bytes);
        if self.limits.bytes_max < self.bytes {
            return refuse(&too_large(self.limits.bytes_max));
        }
        let executable = entry.mode.is_some_and(|mode| mode & 0o111 != 0);
        Ok(UnpackStep::File { path, executable })
    }

    /// Every folder, parents before children.
    pub(super) fn folders(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.nodes.iter().filter(|(_, is_folder)| **is_folder).map(|(path, _)| path.as_str())
    }

    fn place(&mut self, path: &str, is_folder: bool) -> Result<(), String> {
        let parents = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        for parent in parents {
            if self.nodes.get(parent) == Some(&false) {
                return Err(format!("lies in `{}`, which is a file", shorten(parent)));
            }
            self.nodes.entry(parent.into()).or_insert(true);
        }
        if !path.is_empty() {
            match (self.nodes.get(path), is_folder) {
                (None, _) => {
                    self.nodes.insert(path.into(), is_folder);
                }
                (Some(true), true) => {}
                (Some(false), false) => return Err("comes twice".into()),
                (Some(_), _) => return Err("is both a file and a folder".into()),
            }
        }
        if self.limits.entries_max < self.nodes.len() {
            return Err(too_many(self.limits.entries_max, self.nodes.len()));
        }
        Ok(())
    }
}

/// The path without `.` and doubled slashes, or the rule that it breaks.
fn clean(name: &str) -> Result<String, &'static str> {
    let drive = matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if name.starts_with('/') || drive {
        return Err("has an absolute path; only paths within the package are taken");
    }
    if name.contains('\\') {
        return Err("has a `\\` in its path; folders are separated by `/`");
    }
    if name.contains('\0') {
        return Err("has a zero byte in its name");
    }
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("leads out of the package (`..`)"),
            _ if NAME_BYTES_MAX < part.len() => return Err("has a name of over 255 bytes"),
            _ => parts.push(part),
        }
    }
    let path = parts.join("/");
    if PATH_BYTES_MAX < path.len() { Err("has a path of over 2048 bytes") } else { Ok(path) }
}

pub(super) fn too_large(bytes_max: u64) -> String {
    format!("makes the package larger than {bytes_max} bytes, unpacked")
}

fn too_many(max: usize, found: usize) -> String {
    format!("the package has {found} files and folders or more; at most {max} are taken")
}

/// For messages: names may be long.
pub(super) fn shorten(name: &str) -> String {
    match name.char_indices().nth(120) {
        Some((at, _)) => format!("{}…", name.get(..at).unwrap_or_default()),
        None => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> ZipEntryHeader<'_> {
        ZipEntryHeader { name: name.as_bytes(), encrypted: false, mode: None, bytes: 10 }
    }

    fn check(names: &[&str]) -> Result<Vec<UnpackStep>, String> {
        let limits = UnpackLimits { bytes_max: 100, entries_max: 8 };
        let mut plan = UnpackPlan::new(limits, names.len())?;
        names.iter().map(|name| plan.add(&entry(name))).collect()
    }

    fn file(path: &str) -> UnpackStep {
        UnpackStep::File { path: path.into(), executable: false }
    }

    #[test]
    fn paths_are_made_plain() {
        let planned = check(&["./", "./index.py", "lib//x.py", "lib/", "a..b/..c"]).unwrap();
        let folder = |path: &str| UnpackStep::Folder { path: path.into() };
        let expected =
            [folder(""), file("index.py"), file("lib/x.py"), folder("lib"), file("a..b/..c")];
        assert_eq!(planned, expected);
    }

    #[test]
    fn every_refusal_names_the_entry_and_the_rule() {
        let long = "x".repeat(256);
        let deep = "abcdefgh/".repeat(300);
        for (names, entry, rule) in [
            (&["ok", "../evil"][..], "../evil", "leads out of the package"),
            (&["a/../../evil"], "a/../../evil", "leads out of the package"),
            (&["/etc/passwd"], "/etc/passwd", "absolute path"),
            (&["C:evil"], "C:evil", "absolute path"),
            (&["a\\b"], "a\\b", "separated by `/`"),
            (&["a\0b"], "a\0b", "zero byte"),
            (&["a", "a"], "a", "comes twice"),
            (&["a", "./a"], "./a", "comes twice"),
            (&["a", "a/b"], "a/b", "lies in `a`, which is a file"),
            (&["a/b", "a"], "a", "both a file and a folder"),
            (&["a", "a/"], "a/", "both a file and a folder"),
            (&["."], ".", "has no name"),
            (&[&long], "xxx", "over 255 bytes"),
            (&[&deep], "abcdefgh", "over 2048 bytes"),
        ] {
            let error = check(names).unwrap_err();
            assert!(error.starts_with(&format!("entry `{entry}")), "{names:?}: {error}");
            assert!(error.contains(rule), "{names:?}: {error}");
        }
    }

    #[test]
    fn numbers_and_sizes_have_their_limits() {
        assert!(check(&[]).unwrap_err().contains("holds no file"));
        assert!(check(&["1", "2", "3", "4", "5", "6", "7", "8"]).is_ok());
        let nine = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
        assert!(check(&nine).unwrap_err().contains("at most 8"));
        let only_named = check(&["a/b/c/d/e/f/g/h/i"]).unwrap_err();
        assert!(only_named.contains("at most 8"), "{only_named}");
        let mut plan = UnpackPlan::new(UnpackLimits { bytes_max: 15, entries_max: 8 }, 2).unwrap();
        plan.add(&entry("a")).unwrap();
        assert!(plan.add(&entry("b")).unwrap_err().contains("larger than 15 bytes"));
    }

    #[test]
    fn links_devices_and_secrets_are_refused() {
        let mut plan = UnpackPlan::new(UnpackLimits::default(), 3).unwrap();
        for (mode, encrypted, rule) in [
            (Some(0o120_777), false, "symbolic link"),
            (Some(0o020_666), false, "neither a file nor a folder"),
            (None, true, "is encrypted"),
        ] {
            let error = plan.add(&ZipEntryHeader { mode, encrypted, ..entry("x") }).unwrap_err();
            assert!(error.contains(rule), "{error}");
        }
        let name = b"caf\xe9.py";
        let error = plan.add(&ZipEntryHeader { name, ..entry("") }).unwrap_err();
        assert!(error.contains("not UTF-8"), "{error}");
    }

    #[test]
    fn the_bits_for_executing_are_kept() {
        let mut plan = UnpackPlan::new(UnpackLimits::default(), 2).unwrap();
        let planned = plan.add(&ZipEntryHeader { mode: Some(0o100_744), ..entry("bootstrap") });
        assert_eq!(planned, Ok(UnpackStep::File { path: "bootstrap".into(), executable: true }));
    }

    proptest::proptest! {
        /// Whatever a zip says, nothing is written outside, twice, or under a special name.
        #[test]
        fn no_planned_path_leaves_the_package(names in proptest::collection::vec("[a./\\\\:é ]{0,8}", 1..8)) {
            let mut plan = UnpackPlan::new(UnpackLimits::default(), names.len()).unwrap();
            for name in &names {
                let Ok(planned) = plan.add(&entry(name)) else { continue };
                let (UnpackStep::File { path, .. } | UnpackStep::Folder { path }) = planned;
                proptest::prop_assert!(!path.starts_with('/') && !path.ends_with('/'));
                proptest::prop_assert!(path.is_empty() || path.split('/').all(|p| !["", ".", ".."].contains(&p)));
            }
        }
    }
}
