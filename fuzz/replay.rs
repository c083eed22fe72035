//! What the fuzzer once found interesting, as a test: every file of a target's corpus, given to the
//! target's property. A part of each crate's own tests, since a property sees the crate's inside.

use std::path::Path;

/// Gives every file of `fuzz/corpus/TARGET` to the property. The last name printed is the file's
/// for which it does not hold.
///
/// # Panics
/// The corpus is not there or has no file.
#[allow(clippy::print_stdout, reason = "shown of a test that fails, and of no other")]
pub(crate) fn replay(target: &str, property: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no file", folder.display());
    for file in files {
        println!("{}", file.display());
        property(&std::fs::read(&file).unwrap());
    }
}
