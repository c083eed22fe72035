//! The data folder: its lock, node id, master key, and the operator's credentials file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hanshu_controller::{MasterKey, SecretKey};
use hanshu_core::{ASYNC_PAYLOAD_BYTES_MAX, NodeId};

use crate::error::Error;

/// The data folder, locked while this exists.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    node: NodeId,
    /// Holds the lock until the process ends.
    _lock: File,
}

impl DataDir {
    /// Creates the folder if it is missing (mode 0711: sandboxes of other users must reach their own
    /// files in it) and locks it.
    ///
    /// # Errors
    /// [`Error::Folder`]: another server has it, it cannot be written, the disk is full.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: std::io::Error| to_error(path, &error);
        fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Folder {
                    path: path.display().to_string(),
                    what: "is in use by another server: stop that one, or say --data with \
                           another folder"
                        .into(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(to_error(&path, &error)),
        }
        // SQLite maps a file into memory: on a disk without room that would end the process.
        probe(&path).map_err(|error| to_error(&path, &error))?;
        let node = node_id(&path)?;
        Ok(Self { path, node, _lock: lock })
    }

    /// The absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The node's id, which stays the same over restarts.
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    /// The key that encrypts access keys; made at the first start.
    ///
    /// # Errors
    /// [`Error::Folder`]: the file cannot be read or written, or does not hold a key.
    pub(crate) fn master_key(&self) -> Result<MasterKey, Error> {
        let path = self.path.join("master.key");
        match fs::read_to_string(&path) {
            Ok(text) => MasterKey::from_hex(&text).ok_or_else(|| Error::Folder {
                path: self.path.display().to_string(),
                what: "holds a `master.key` that is not 64 hexadecimal characters: put back the \
                       file it was, or secrets cannot be read"
                    .into(),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = MasterKey::generate();
                write_private(&path, &format!("{}\n", key.to_hex().expose()))
                    .map_err(|error| to_error(&self.path, &error))?;
                Ok(key)
            }
            Err(error) => Err(to_error(&self.path, &error)),
        }
    }

    /// Writes `credentials.env` with the endpoints and an access key.
    ///
    /// # Errors
    /// [`Error::Folder`].
    pub(crate) fn write_credentials(
        &self,
        api: SocketAddr,
        http: SocketAddr,
        key: &SecretKey,
    ) -> Result<PathBuf, Error> {
        let path = self.path.join("credentials.env");
        let text = format!(
            "HANSHU_ENDPOINT=http://{}\nHANSHU_HTTP_ENDPOINT=http://{}\nHANSHU_SECRET_ID={}\nHANSHU_SECRET_KEY={}\n",
            local_address(api),
            local_address(http),
            key.id,
            key.secret.expose()
        );
        write_private(&path, &text).map_err(|error| to_error(&self.path, &error))?;
        Ok(path)
    }
}

/// The address that a client on this machine uses: a wildcard becomes loopback.
fn local_address(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        let loopback = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    address
}

fn node_id(folder: &Path) -> Result<NodeId, Error> {
    let path = folder.join("node");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| Error::Folder {
            path: folder.display().to_string(),
            what: format!("holds a file `node` that is no node id: `{}`", text.trim()),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let node = NodeId::new();
            write_private(&path, &format!("{node}\n")).map_err(|error| to_error(folder, &error))?;
            Ok(node)
        }
        Err(error) => Err(to_error(folder, &error)),
    }
}

/// Writes and removes a file of the largest event's size, to see whether that is possible. Blocks.
///
/// # Errors
/// In one sentence, with what to do.
pub(crate) fn check_writable(folder: &Path) -> Result<(), String> {
    probe(folder).map_err(|error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk of the data folder is full: make room".into()
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("the data folder cannot be written ({error}): check its disk, mount and mode")
        }
        _ => format!("the data folder cannot be used: {error}"),
    })
}

fn probe(folder: &Path) -> std::io::Result<()> {
    let path = folder.join("probe");
    let mut options = OpenOptions::new();
    let opened = options.create(true).write(true).truncate(true).mode(0o600).open(&path);
    let written = opened.and_then(|mut file| file.write_all(&[0; ASYNC_PAYLOAD_BYTES_MAX]));
    // A concurrent probe may have removed it.
    let _ = fs::remove_file(&path);
    written
}

/// Replaces a file of mode 0600 atomically.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let next = path.with_extension("next");
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&next)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(next, path)
}

fn to_error(path: &Path, error: &std::io::Error) -> Error {
    let what = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("cannot be written ({error}): say --data with a folder of your own")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("is on a full disk ({error}): make room and start again")
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            format!("is not a folder ({error}): say --data with another path")
        }
        _ => format!("cannot be used: {error}"),
    };
    Error::Folder { path: path.display().to_string(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_server_and_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let message = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("another server"), "{message}");
        let node = first.node().clone();
        drop(first);
        assert_eq!(*DataDir::open(dir.path()).unwrap().node(), node);
    }

    #[test]
    fn secrets_are_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataDir::open(dir.path()).unwrap();
        let key = folder.master_key().unwrap();
        assert_eq!(folder.master_key().unwrap().to_hex(), key.to_hex());
        let secret = SecretKey { id: "AKIDx".into(), secret: hanshu_core::Secret::new("s") };
        let any = "0.0.0.0:7".parse().unwrap();
        let path = folder.write_credentials(any, any, &secret).unwrap();
        for file in [path, dir.path().join("master.key")] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let text = fs::read_to_string(dir.path().join("credentials.env")).unwrap();
        assert!(text.contains("HANSHU_ENDPOINT=http://127.0.0.1:7\n"), "{text}");
    }

    #[test]
    fn a_path_that_is_a_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let message = DataDir::open(&file).unwrap_err().to_string();
        assert!(message.contains("not a folder"), "{message}");
    }
}
