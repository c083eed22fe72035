//! Installs `/var/runtime`: the bootstraps, which are embedded in this program, and the program
//! itself as `hanshu`, whose `shim` is process 1.
//!
//! The folder is named by a digest of its content, so that servers of different versions can share
//! the place and a running sandbox never sees its files change.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The embedded files beside the program: path and content.
pub const RUNTIME_FILES: &[(&str, &[u8])] = &[
    ("python/bootstrap.py", include_bytes!("../python/bootstrap.py")),
    ("node/bootstrap.cjs", include_bytes!("../node/bootstrap.cjs")),
];
/// The name of the program in the folder.
pub const PROGRAM: &str = "hanshu";

/// Readable and executable for all, since every sandbox has a user of its own; writable for none.
const PROGRAM_MODE: u32 = 0o555;
const FILE_MODE: u32 = 0o444;
const DIR_MODE: u32 = 0o755;
/// Read and execute for all: what a program must have to be linked instead of copied.
const RUNNABLE_BY_ALL: u32 = 0o555;

/// Installs the files and `program` in a folder below `dir` and returns its path, which is mounted
/// at `/var/runtime`. If it exists already, nothing is written.
///
/// The folder is created atomically: two servers may do this at the same time.
///
/// # Errors
/// What the file system says, for `program` or for `dir`.
pub fn install(dir: &Path, program: &Path) -> io::Result<PathBuf> {
    make_dir(dir)?;
    let target = dir.join(digest(program)?);
    if target.is_dir() {
        return Ok(target);
    }
    let parts = dir.join(unique_name());
    let made = fill(&parts, program).and_then(|()| match fs::rename(&parts, &target) {
        // Another server has installed the same content meanwhile.
        Err(_) if target.is_dir() => fs::remove_dir_all(&parts),
        other => other,
    });
    if made.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_dir_all(&parts);
    }
    made.map(|()| target)
}

fn fill(parts: &Path, program: &Path) -> io::Result<()> {
    make_dir(parts)?;
    for (path, content) in RUNTIME_FILES {
        let path = parts.join(path);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        write_new(&path, &mut &**content, FILE_MODE)?;
    }
    place_program(program, &parts.join(PROGRAM))
}

/// Hard-links the program, or copies it where the file system or the file's mode forbids a link.
fn place_program(program: &Path, target: &Path) -> io::Result<()> {
    let mode = fs::metadata(program)?.mode();
    if mode & RUNNABLE_BY_ALL == RUNNABLE_BY_ALL && fs::hard_link(program, target).is_ok() {
        return Ok(());
    }
    write_new(target, &mut File::open(program)?, PROGRAM_MODE)
}

fn write_new(path: &Path, content: &mut impl Read, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    io::copy(content, &mut file)?;
    file.flush()?;
    // The umask has masked the mode at creation.
    file.set_permissions(Permissions::from_mode(mode))
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => match fs::set_permissions(path, Permissions::from_mode(DIR_MODE)) {
            // A folder of another user is fine, as long as this process may write to it.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            other => other,
        },
    }
}

/// The first 32 hexadecimal digits of SHA-256 over every path and content.
fn digest(program: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    for (path, content) in RUNTIME_FILES {
        hash.update(path.as_bytes());
        hash.update([0]);
        hash.update(Sha256::digest(content));
    }
    let mut file = File::open(program)?;
    let mut block = vec![0; 256 * 1024];
    loop {
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(len) => hash.update(block.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut name = String::with_capacity(32);
    for byte in hash.finalize().iter().take(16) {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    Ok(name)
}

/// A name that no other thread or process uses; what a killed process leaves behind is harmless.
fn unique_name() -> String {
    let pid = std::process::id();
    let random = RandomState::new().hash_one(pid);
    format!(".new-{pid}-{random:016x}")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn program(dir: &Path, content: &[u8], mode: u32) -> PathBuf {
        let path = dir.join("program");
        let _ = fs::remove_file(&path);
        write_new(&path, &mut &*content, mode).unwrap();
        path
    }

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn everything_is_there_and_readable_by_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("runtime");
        let folder = install(&target, &program(dir.path(), b"elf", 0o755)).unwrap();
        for (path, content) in RUNTIME_FILES {
            assert_eq!(&fs::read(folder.join(path)).unwrap(), content);
            assert_eq!(fs::metadata(folder.join(path)).unwrap().mode() & 0o777, FILE_MODE);
        }
        assert_eq!(fs::read(folder.join(PROGRAM)).unwrap(), b"elf");
        for path in ["", "python", "node"] {
            assert_eq!(fs::metadata(folder.join(path)).unwrap().mode() & 0o777, DIR_MODE);
        }
        assert_eq!(entries(&target), 1);
    }

    #[test]
    fn a_program_that_others_may_not_run_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let source = program(dir.path(), b"elf", 0o700);
        let folder = install(&dir.path().join("runtime"), &source).unwrap();
        let placed = fs::metadata(folder.join(PROGRAM)).unwrap();
        assert_eq!(placed.mode() & 0o777, PROGRAM_MODE);
        assert_ne!(placed.ino(), fs::metadata(&source).unwrap().ino());
    }

    #[test]
    fn the_same_content_has_one_folder_and_other_content_another() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("runtime");
        let first = install(&target, &program(dir.path(), b"one", 0o755)).unwrap();
        let again = install(&target, &program(dir.path(), b"one", 0o755)).unwrap();
        let other = install(&target, &program(dir.path(), b"two", 0o755)).unwrap();
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(fs::read(first.join(PROGRAM)).unwrap(), b"one");
        assert_eq!(entries(&target), 2);
    }

    #[test]
    fn servers_that_install_at_once_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("runtime");
        let source = program(dir.path(), b"elf", 0o755);
        let folders: Vec<_> = thread::scope(|scope| {
            let many: Vec<_> =
                (0..8).map(|_| scope.spawn(|| install(&target, &source).unwrap())).collect();
            many.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(folders.iter().all(|folder| folder == &folders[0]));
        assert_eq!(entries(&target), 1);
    }

    #[test]
    fn a_missing_program_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("runtime");
        let refused = install(&target, &dir.path().join("none")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        assert_eq!(entries(&target), 0);
    }
}
