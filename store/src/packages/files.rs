//! Folders of packages on the file system: listing, removing, and errors that name the path.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hanshu_core::ports::PackageError;

/// The names of a folder's entries.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, PackageError> {
    let read = || -> std::io::Result<Vec<String>> {
        let entries = fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(|error| io_error(folder, &error))
}

/// Removes a file, or a folder whose folders may be read-only.
pub(super) fn remove_tree(path: &Path) -> std::io::Result<()> {
    if !path.symlink_metadata()?.is_dir() {
        return fs::remove_file(path);
    }
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(path)
}

/// The operating system's error, with advice where there is some.
pub(super) fn io_error(path: &Path, error: &std::io::Error) -> PackageError {
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ": free some space",
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            ": make the data folder writable"
        }
        _ => "",
    };
    PackageError::Io(format!("`{}`: {error}{hint}", path.display()))
}
