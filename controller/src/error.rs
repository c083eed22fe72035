//! What can go wrong in a use-case.

use hanshu_core::ports::{CatalogError, ImageError, PackageError, QueueError, StoreError};
use hanshu_core::{ErrorKind, ForbiddenError};

/// A use-case failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControllerError {
    /// A value breaks a rule.
    #[error("`{field}` is `{value}`: expected {rule}")]
    Invalid {
        /// The field of the request.
        field: String,
        /// What it was; at most 80 characters.
        value: String,
        /// The rule that the value breaks.
        rule: String,
    },
    /// The actor may not do this.
    #[error(transparent)]
    Forbidden(#[from] ForbiddenError),
    /// The code was never uploaded, or has been collected since.
    #[error("package {0} has not been uploaded")]
    NoPackage(String),
    /// The package breaks a rule, or cannot be stored or read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// No such function or version.
    #[error(transparent)]
    RevisionCatalog(#[from] CatalogError),
    /// The image that the function needs.
    #[error("the runtime's image could not be made: {0}")]
    Image(#[from] ImageError),
    /// The registry refused, or is unavailable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event queue is unavailable.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// An access key could not be sealed or opened.
    #[error(
        "access key `{id}` cannot be {what}: this database was begun with another data folder. Put \
         that folder's `master.key` into this one, set the same HANSHU_CLUSTER__MASTER_KEY as \
         there, or name another database"
    )]
    Sealing {
        /// The key's id.
        id: String,
        /// `sealed` or `opened`.
        what: &'static str,
    },
}

impl ControllerError {
    /// A value that breaks a rule.
    pub(crate) fn invalid(
        field: impl Into<String>,
        value: impl ToString,
        rule: impl Into<String>,
    ) -> Self {
        let value = value.to_string().chars().take(80).collect();
        Self::Invalid { field: field.into(), value, rule: rule.into() }
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::NoPackage(_) => ErrorKind::Conflict,
            Self::Package(error) => match error {
                PackageError::Refused(_) | PackageError::Digest { .. } => ErrorKind::Invalid,
                PackageError::Missing(_) => ErrorKind::NotFound,
                PackageError::Io(_) => ErrorKind::Unavailable,
            },
            Self::RevisionCatalog(error) => match error {
                CatalogError::NoFunction(_) | CatalogError::NoVersion(..) => ErrorKind::NotFound,
                CatalogError::Unavailable => ErrorKind::Unavailable,
            },
            Self::Image(_) => ErrorKind::Unavailable,
            Self::Store(error) => error.kind(),
            Self::Queue(error) => error.kind(),
            Self::Sealing { .. } => ErrorKind::Internal,
        }
    }
}
