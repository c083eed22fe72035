//! Functions, versions, triggers and access keys: transactional.

use async_trait::async_trait;

use crate::Timestamp;
use crate::digest::Digest;
use crate::error::{ErrorCause, ErrorKind};
use crate::function::{FunctionConfig, FunctionId, Revision};
use crate::name::Qualifier;
use crate::trigger::{Trigger, TriggerId};

/// Keeps functions, versions, triggers and access keys.
///
/// Every change raises one revision counter in the same transaction, and notes there which function
/// it was about; readers reconcile by it.
#[async_trait]
pub trait FunctionRegistry: Send + Sync {
    /// Makes the deployment the function's `$LATEST`, and its triggers exactly those given:
    /// triggers gone from the list are removed, HTTP keys of kept ones survive. One transaction.
    ///
    /// # Errors
    /// [`StoreError`]: `Conflict` if another function has the same HTTP path and method.
    async fn deploy(&self, deployment: NewDeployment) -> Result<DeployResult, StoreError>;

    /// Publishes `$LATEST` as the next version (from 1). If the newest version is the same
    /// revision already, returns that one.
    ///
    /// # Errors
    /// `NotFound` if there is no such function.
    async fn publish(&self, function: &FunctionId, now: Timestamp) -> Result<Revision, StoreError>;

    /// Removes a function with its versions and triggers.
    ///
    /// # Errors
    /// `NotFound` if there is no such function.
    async fn delete(&self, function: &FunctionId) -> Result<(), StoreError>;

    /// Switches a trigger on or off.
    ///
    /// # Errors
    /// `NotFound` if there is no such trigger.
    async fn enable(&self, trigger: &TriggerId, enabled: bool) -> Result<(), StoreError>;

    /// What a reader that knows the counter `since` has missed, read in one transaction. Since 0
    /// it is always everything.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn changes(&self, since: i64) -> Result<RegistryChanges, StoreError>;

    /// A revision by digest, live or replaced (kept while events may still name it).
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn revision(
        &self,
        function: &FunctionId,
        digest: &Digest,
    ) -> Result<Option<(FunctionConfig, Digest)>, StoreError>;

    /// The revisions that are neither `$LATEST` nor a version and were replaced before `before`.
    /// Events may still name them.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn replaced(&self, before: Timestamp) -> Result<Vec<ReplacedRevision>, StoreError>;

    /// Forgets those of `revisions` that are still as [`FunctionRegistry::replaced`] says.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn forget(
        &self,
        revisions: &[ReplacedRevision],
        before: Timestamp,
    ) -> Result<(), StoreError>;

    /// The packages that any revision names.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn packages(&self) -> Result<Vec<Digest>, StoreError>;

    /// Adds an access key, its secret encrypted by the caller.
    ///
    /// # Errors
    /// `Conflict` if the id exists.
    async fn add_key(&self, key: AccessKey) -> Result<(), StoreError>;

    /// All access keys.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn keys(&self) -> Result<Vec<AccessKey>, StoreError>;

    /// Whether the database answers.
    ///
    /// # Errors
    /// The reason it does not.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// The input of a deploy, checked.
#[derive(Clone, Debug)]
pub struct NewDeployment {
    /// The function to deploy.
    pub function: FunctionId,
    /// How it runs.
    pub config: FunctionConfig,
    /// Digest of its package, which has been uploaded.
    pub code: Digest,
    /// Digest of configuration and code together, which names the revision.
    pub revision: Digest,
    /// All its triggers. An HTTP trigger's `key` is what a new one gets; an existing key is kept.
    pub triggers: Vec<Trigger>,
    /// Time of the deploy.
    pub now: Timestamp,
}

/// What a deploy did.
#[derive(Clone, Debug)]
pub struct DeployResult {
    /// Whether code or configuration changed.
    pub changed: bool,
    /// The triggers as they now are.
    pub triggers: Vec<Trigger>,
    /// Names of triggers that were removed.
    pub removed: Vec<TriggerId>,
}

/// A revision that was `$LATEST` once and is nothing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacedRevision {
    /// The function that it was a revision of.
    pub function: FunctionId,
    /// The revision's digest.
    pub digest: Digest,
}

/// One function as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRow {
    /// When it was first deployed.
    pub created_at: Timestamp,
    /// When `$LATEST` last changed.
    pub updated_at: Timestamp,
}

/// One function with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionEntry {
    /// When the function was deployed.
    pub row: FunctionRow,
    /// `$LATEST` first, then versions from the lowest; each with its time.
    pub revisions: Vec<(Revision, Timestamp)>,
    /// Its triggers, by name.
    pub triggers: Vec<Trigger>,
}

/// Everything that is live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrySnapshot {
    /// The counter at that moment.
    pub counter: i64,
    /// All functions, ordered by id.
    pub functions: Vec<FunctionEntry>,
}

/// What has changed since a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryChanges {
    /// Nothing has changed since.
    Unchanged,
    /// Something of these functions at most.
    Some {
        /// The counter at that moment.
        counter: i64,
        /// Each once, as it is now; `None` if there is no such function.
        functions: Vec<(FunctionId, Option<FunctionEntry>)>,
    },
    /// Too many changes to list, or it is not known which: this is the whole registry.
    All(RegistrySnapshot),
}

/// A key of the API. The secret is encrypted (it must be had in plain to check signatures).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// `AKID` and 32 alphanumerics.
    pub id: String,
    /// The secret's ciphertext, in base64.
    pub sealed: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such function, version or trigger.
    #[error("{0}")]
    NotFound(String),
    /// A route of another trigger, or an access key of this id, exists already.
    #[error("{0}")]
    Conflict(String),
    /// The database cannot be reached, is busy, or is full.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] ErrorCause),
    /// A row could not be read, a statement was wrong, the schema is of a newer version.
    #[error("the database failed: {0}")]
    Internal(#[source] ErrorCause),
}

impl StoreError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }
}

/// A key used for lookups of versions.
impl Revision {
    /// The same revision under another name (`$LATEST` or a version's number).
    #[must_use]
    pub fn as_version(&self, version: Qualifier) -> Self {
        Self { version, ..self.clone() }
    }
}
