//! Packages in a folder: `<digest>.zip` as uploaded, `<digest>/` unpacked.
//!
//! Everything is written under a name that starts with `.tmp-`, synced and then renamed: what has
//! its digest's name is whole, and what a crash left is removed at the next start.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::{PackageError, PackageStore};
use hanshu_core::{Clock, Digest};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::files::{io_error, names, remove_tree};
use super::unpack::unpack;
use super::unpack_plan::UnpackLimits;

/// What is younger than this is kept in any case: its deploy may still be on the way.
const COLLECT_AGE: Duration = Duration::from_secs(3600);
/// Packages that are unpacked at once. More would only fight for the disk.
const UNPACKERS: usize = 2;
const TEMPORARY: &str = ".tmp-";

/// Packages in a folder of this machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FolderPackages {
    folder: Arc<Path>,
    limits: UnpackLimits,
    clock: Arc<dyn Clock>,
    unpackers: Arc<Semaphore>,
}

impl FolderPackages {
    /// Opens the folder, making it if absent, and removes what a crash left half done. One
    /// process at a time may have it.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub fn open(
        folder: &Path,
        limits: UnpackLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PackageError> {
        // Others may pass through to a folder whose digest they know, but not list them.
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(folder)
            .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o711)))
            .map_err(|error| io_error(folder, &error))?;
        for name in names(folder)?.iter().filter(|name| name.starts_with(TEMPORARY)) {
            let left = folder.join(name);
            remove_tree(&left).map_err(|error| io_error(&left, &error))?;
        }
        let unpackers = Arc::new(Semaphore::new(UNPACKERS));
        Ok(Self { folder: folder.into(), limits, clock, unpackers })
    }

    fn zip_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{digest}.zip"))
    }

    fn folder_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.as_str())
    }

    fn temporary(&self) -> PathBuf {
        self.folder.join(format!("{TEMPORARY}{}", uuid::Uuid::new_v4().simple()))
    }

    fn now(&self) -> SystemTime {
        self.clock.now().into()
    }

    /// Whether the package is here and complete. Its age starts again, since a caller that asks is
    /// about to name it.
    fn touch(&self, digest: &Digest) -> bool {
        let zip = OpenOptions::new().append(true).open(self.zip_path(digest));
        zip.is_ok_and(|zip| {
            let _ = zip.set_modified(self.now());
            self.folder_path(digest).is_dir()
        })
    }

    fn keep(&self, digest: &Digest, zip: &Bytes) -> Result<(), PackageError> {
        let actual = Digest::from_bytes(Sha256::digest(zip).into());
        if actual != *digest {
            return Err(PackageError::Digest { expected: digest.clone(), actual });
        }
        let unpacked = self.temporary();
        unpack(zip, &unpacked, self.limits)?;
        let kept = self.keep_zip(digest, zip);
        if kept.is_err() {
            let _ = remove_tree(&unpacked);
        }
        kept?;
        self.adopt(&unpacked, digest)
    }

    fn keep_zip(&self, digest: &Digest, zip: &Bytes) -> Result<(), PackageError> {
        let (temporary, target) = (self.temporary(), self.zip_path(digest));
        let write = || {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(zip)?;
            file.set_modified(self.now())?;
            file.sync_all()?;
            fs::rename(&temporary, &target)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            io_error(&target, &error)
        })
    }

    /// Gives an unpacked folder its name, unless another was quicker.
    fn adopt(&self, unpacked: &Path, digest: &Digest) -> Result<(), PackageError> {
        let target = self.folder_path(digest);
        let renamed = fs::rename(unpacked, &target);
        if renamed.is_err() {
            let _ = remove_tree(unpacked);
        }
        match renamed {
            Err(error) if !target.is_dir() => Err(io_error(&target, &error)),
            Err(_) | Ok(()) => File::open(&self.folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| io_error(&self.folder, &error)),
        }
    }

    fn read_zip(&self, digest: &Digest) -> Result<Bytes, PackageError> {
        let path = self.zip_path(digest);
        match fs::read(&path) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(PackageError::Missing(digest.clone()))
            }
            Err(error) => Err(io_error(&path, &error)),
        }
    }

    fn unpack_again(&self, digest: &Digest) -> Result<(), PackageError> {
        let zip = self.read_zip(digest)?;
        let unpacked = self.temporary();
        unpack(&zip, &unpacked, self.limits)?;
        self.adopt(&unpacked, digest)
    }

    fn collect_now(&self, keep: &[Digest]) -> Result<u64, PackageError> {
        let mut collected = 0;
        for name in names(&self.folder)? {
            let Ok(digest) = name.trim_end_matches(".zip").parse::<Digest>() else { continue };
            let path = self.folder.join(&name);
            if keep.contains(&digest) || self.is_young(&digest, &path) {
                continue;
            }
            let gone = self.temporary();
            fs::rename(&path, &gone)
                .and_then(|()| remove_tree(&gone))
                .map_err(|error| io_error(&path, &error))?;
            collected += u64::from(name.ends_with(".zip"));
        }
        Ok(collected)
    }

    /// By the zip's age, which is touched; a folder alone is judged by its own.
    fn is_young(&self, digest: &Digest, path: &Path) -> bool {
        let modified = fs::metadata(self.zip_path(digest))
            .or_else(|_| fs::metadata(path))
            .and_then(|meta| meta.modified());
        match modified {
            Ok(at) => self.now().duration_since(at).is_ok_and(|age| age <= COLLECT_AGE),
            Err(_) => false,
        }
    }

    /// Runs disk work where it may block, a few at a time.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, PackageError> + Send + 'static,
    ) -> Result<T, PackageError> {
        let store = self.clone();
        let permit = Arc::clone(&self.unpackers).acquire_owned().await;
        let permit = permit.map_err(|error| PackageError::Io(error.to_string()))?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&store)
        });
        done.await.map_err(|error| PackageError::Io(error.to_string()))?
    }
}

#[async_trait]
impl PackageStore for FolderPackages {
    async fn has(&self, digest: &Digest) -> bool {
        let (store, digest) = (self.clone(), digest.clone());
        tokio::task::spawn_blocking(move || store.touch(&digest)).await.unwrap_or(false)
    }

    async fn put(&self, digest: &Digest, zip: Bytes) -> Result<(), PackageError> {
        if self.has(digest).await {
            return Ok(());
        }
        let digest = digest.clone();
        self.blocking(move |store| store.keep(&digest, &zip)).await
    }

    async fn zip(&self, digest: &Digest) -> Result<Bytes, PackageError> {
        let digest = digest.clone();
        self.blocking(move |store| store.read_zip(&digest)).await
    }

    async fn folder(&self, digest: &Digest) -> Result<PathBuf, PackageError> {
        let path = self.folder_path(digest);
        if tokio::fs::metadata(&path).await.is_err() {
            let digest = digest.clone();
            self.blocking(move |store| store.unpack_again(&digest)).await?;
        }
        Ok(path)
    }

    async fn collect(&self, keep: &[Digest]) -> Result<u64, PackageError> {
        let keep = keep.to_vec();
        self.blocking(move |store| store.collect_now(&keep)).await
    }
}
