//! Code by digest.

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use crate::digest::Digest;

/// Keeps packages: zips by the SHA-256 of their bytes, and the same unpacked.
#[async_trait]
pub trait PackageStore: Send + Sync {
    /// Whether the package is here.
    async fn has(&self, digest: &Digest) -> bool;

    /// Checks, unpacks and keeps a package. What is refused leaves nothing behind; what is there
    /// already is left alone.
    ///
    /// # Errors
    /// [`PackageError::Refused`] for a bad zip (slip, bomb, links, too many entries, truncated…),
    /// [`PackageError::Digest`] when the bytes are not those the digest names,
    /// [`PackageError::Io`] for a full or read-only disk.
    async fn put(&self, digest: &Digest, zip: Bytes) -> Result<(), PackageError>;

    /// The zip as it was uploaded.
    ///
    /// # Errors
    /// [`PackageError::Missing`], [`PackageError::Io`].
    async fn zip(&self, digest: &Digest) -> Result<Bytes, PackageError>;

    /// A folder of this machine with the unpacked, read-only content; fetched from where it is
    /// kept if need be. Stays until `collect` drops it.
    ///
    /// # Errors
    /// [`PackageError::Missing`], [`PackageError::Io`].
    async fn folder(&self, digest: &Digest) -> Result<PathBuf, PackageError>;

    /// Removes every package that `keep` does not name and that is older than an hour; returns
    /// how many.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    async fn collect(&self, keep: &[Digest]) -> Result<u64, PackageError>;
}

/// Why there is no package.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PackageError {
    /// The package breaks a rule; the text says which, where, and what was found.
    #[error("the package was refused: {0}")]
    Refused(String),
    /// The bytes are not those that the digest names.
    #[error("the package's bytes have digest {actual}, not {expected}: was it cut off on the way?")]
    Digest {
        /// The digest that the caller named.
        expected: Digest,
        /// The digest of the bytes that came.
        actual: Digest,
    },
    /// No such package.
    #[error("package {} is not here", .0.short())]
    Missing(Digest),
    /// The disk or the other node.
    #[error("the package store failed: {0}")]
    Io(String),
}
