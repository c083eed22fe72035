//! Which revision a name means, without a database on the way.

use std::sync::Arc;

use async_trait::async_trait;

use crate::digest::Digest;
use crate::function::{FunctionId, Revision};
use crate::name::{FunctionName, Namespace, Qualifier};

/// Finds the revision that a name and a qualifier mean.
#[async_trait]
pub trait RevisionCatalog: Send + Sync {
    /// What a name means now. From memory: no wait, no lock, no allocation.
    ///
    /// # Errors
    /// [`CatalogError::NoFunction`] or [`CatalogError::NoVersion`].
    fn resolve(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
        qualifier: Qualifier,
    ) -> Result<Arc<Revision>, CatalogError>;

    /// The revision that an event was accepted for, even if another was deployed since. May ask
    /// the registry.
    ///
    /// # Errors
    /// [`CatalogError::NoFunction`] if the function or that revision is gone;
    /// [`CatalogError::Unavailable`] if the registry could not be asked.
    async fn pinned(
        &self,
        function: &FunctionId,
        version: Qualifier,
        revision: &Digest,
    ) -> Result<Arc<Revision>, CatalogError>;
}

/// Why there is no revision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// No such function.
    #[error("function `{0}` does not exist")]
    NoFunction(FunctionId),
    /// The function has no such version.
    #[error("function `{0}` has no version `{1}`")]
    NoVersion(FunctionId, Qualifier),
    /// The registry cannot be reached.
    #[error("the registry cannot be reached")]
    Unavailable,
}
