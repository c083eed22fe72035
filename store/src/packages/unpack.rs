//! A zip's content into a folder: checked first, then written and synced, read-only and for all
//! to read, since sandboxes run as other users.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hanshu_core::PACKAGE_BYTES_MAX;
use hanshu_core::ports::PackageError;
use zip::read::Config;
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;

use super::files::{io_error, remove_tree};
use super::unpack_plan::{
    UnpackLimits, UnpackPlan, UnpackStep, ZipEntryHeader, shorten, too_large,
};

const PLAIN_MODE: u32 = 0o444;
const EXECUTABLE_MODE: u32 = 0o555;
const FOLDER_MODE: u32 = 0o555;
/// Files that are synced at once.
const SYNCERS: usize = 16;

/// Bytes that a package may still unpack to, and that it might in all.
struct UnpackBudget {
    left: u64,
    max: u64,
}

/// Unpacks a zip into a folder that does not exist yet. When it returns, everything is on the
/// disk; when it fails, the folder is gone. Blocks: call it where that is allowed.
///
/// # Errors
/// [`PackageError::Refused`] with the entry and the rule it breaks, [`PackageError::Io`].
pub fn unpack(zip: &Bytes, into: &Path, limits: UnpackLimits) -> Result<(), PackageError> {
    let (plan, planned) = plan(zip, limits)?;
    let written = write_all(zip, into, (&plan, &planned), limits);
    if written.is_err() {
        // The first failure is reported; the rest is removed at the next start.
        let _ = remove_tree(into);
    }
    written
}

/// Checks everything that the zip's directory says, reading no content.
pub(super) fn plan(
    zip: &Bytes,
    limits: UnpackLimits,
) -> Result<(UnpackPlan, Vec<UnpackStep>), PackageError> {
    if zip.is_empty() {
        return Err(PackageError::Refused("the zip has 0 bytes".into()));
    }
    let length = u64::try_from(zip.len()).unwrap_or(u64::MAX);
    if PACKAGE_BYTES_MAX < length {
        let text = format!("the zip has {length} bytes; at most {PACKAGE_BYTES_MAX} are taken");
        return Err(PackageError::Refused(text));
    }
    let mut archive = open(zip)?;
    let mut plan = UnpackPlan::new(limits, archive.len()).map_err(PackageError::Refused)?;
    let mut planned = Vec::with_capacity(archive.len());
    for entry in archive.files().map_err(|error| damaged(&error))? {
        let entry = entry.map_err(|error| damaged(&error))?;
        let described = ZipEntryHeader {
            name: entry.name_raw(),
            encrypted: entry.encrypted(),
            mode: entry.unix_mode(),
            bytes: entry.size(),
        };
        planned.push(plan.add(&described).map_err(PackageError::Refused)?);
    }
    Ok((plan, planned))
}

fn write_all(
    zip: &Bytes,
    into: &Path,
    (plan, planned): (&UnpackPlan, &[UnpackStep]),
    limits: UnpackLimits,
) -> Result<(), PackageError> {
    let at = |path: &str| into.join(path);
    fs::create_dir(into).map_err(|error| io_error(into, &error))?;
    for folder in plan.folders() {
        fs::create_dir(at(folder)).map_err(|error| io_error(&at(folder), &error))?;
    }
    let mut archive = open(zip)?;
    let options = zip::read::ZipReadOptions::new();
    let mut entries = archive.files_with_cloned_reader(options).map_err(|error| damaged(&error))?;
    let mut budget = UnpackBudget { left: limits.bytes_max, max: limits.bytes_max };
    for entry in planned {
        let content = entries.next();
        let UnpackStep::File { path, executable } = entry else { continue };
        let mut content = match content {
            Some(Ok(content)) => content,
            Some(Err(error)) => return Err(damaged_entry(path, &error)),
            None => return Err(PackageError::Refused("its directory is cut off".into())),
        };
        write_file(&mut content, &at(path), (path, *executable), &mut budget)?;
    }
    let mut written: Vec<PathBuf> = plan.folders().rev().map(at).collect();
    written.push(into.into());
    for folder in &written {
        fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
            .map_err(|error| io_error(folder, &error))?;
    }
    written.extend(planned.iter().filter_map(|entry| match entry {
        UnpackStep::File { path, .. } => Some(at(path)),
        UnpackStep::Folder { .. } => None,
    }));
    sync_all(&written)
}

/// Writes one file, within what is left of the package's bytes, whatever its entry announced.
fn write_file(
    content: &mut impl Read,
    at: &Path,
    (path, executable): (&str, bool),
    budget: &mut UnpackBudget,
) -> Result<(), PackageError> {
    let failed = |error: std::io::Error| io_error(at, &error);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(at).map_err(failed)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut is_first = true;
    let mut is_program = executable;
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(PackageError::Refused(format!(
                    "entry `{}` cannot be unpacked ({error}): is the zip damaged?",
                    shorten(path)
                )));
            }
        };
        let chunk = buffer.get(..read).unwrap_or_default();
        if std::mem::take(&mut is_first) {
            is_program |= chunk.starts_with(b"#!") || chunk.starts_with(b"\x7fELF");
        }
        let bytes = u64::try_from(read).unwrap_or(u64::MAX);
        let Some(left) = budget.left.checked_sub(bytes) else {
            let rule = too_large(budget.max);
            return Err(PackageError::Refused(format!("entry `{}` {rule}", shorten(path))));
        };
        budget.left = left;
        file.write_all(chunk).map_err(failed)?;
    }
    let mode = if is_program { EXECUTABLE_MODE } else { PLAIN_MODE };
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)
}

/// Syncs files and folders, many at once: the disk then takes them together. Of 2,000 small
/// files one after the other took 3.6 s, 16 at once 0.2 s.
fn sync_all(paths: &[PathBuf]) -> Result<(), PackageError> {
    let sync = |path: &PathBuf| {
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|error| io_error(path, &error))
    };
    let share = paths.len().div_ceil(SYNCERS).max(1);
    std::thread::scope(|scope| {
        let parts = paths.chunks(share);
        let threads: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().try_for_each(sync))).collect();
        threads.into_iter().try_for_each(|thread| {
            let ended = |_| PackageError::Io("a thread that syncs files ended".into());
            thread.join().map_err(ended)?
        })
    })
}

fn open(zip: &Bytes) -> Result<ZipIterable<Cursor<Bytes>>, PackageError> {
    ZipIterable::try_new(Cursor::new(zip.clone()), Config::default())
        .map_err(|error| damaged(&error))
}

fn damaged(error: &ZipError) -> PackageError {
    PackageError::Refused(format!("it is not a whole zip ({error}): was it cut off on the way?"))
}

fn damaged_entry(path: &str, error: &ZipError) -> PackageError {
    let shown = shorten(path);
    PackageError::Refused(match error {
        ZipError::CompressionMethodNotSupported(method) => {
            format!("entry `{shown}` is packed by method {method}; `deflate` and `store` are taken")
        }
        other => format!("entry `{shown}` cannot be unpacked ({other}): is the zip damaged?"),
    })
}
