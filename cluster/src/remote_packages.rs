//! Packages that the controller keeps, with a local store as a cache of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::Digest;
use hanshu_core::ports::{PackageError, PackageStore};
use http::{Method, StatusCode};

use crate::messages::PackageFault;
use crate::peer_client::PeerClient;

/// For 256 MB each way, and unpacking them.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest wait for the answer whether a package is there.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Packages that the controller keeps.
pub struct RemotePackages {
    peers: PeerClient,
    controller: String,
    local: Arc<dyn PackageStore>,
    /// One fetch of a package at a time.
    fetching: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl RemotePackages {
    /// The packages at `controller` (`http://host:port`), kept in `local` once fetched.
    pub fn new(peers: PeerClient, controller: &str, local: Arc<dyn PackageStore>) -> Self {
        let controller = controller.trim_end_matches('/').to_owned();
        Self { peers, controller, local, fetching: Mutex::default() }
    }

    fn url(&self, digest: &Digest) -> String {
        format!("{}/internal/v1/packages/{digest}", self.controller)
    }

    /// Downloads a package; callers that need the same one share the download.
    async fn fetch(&self, digest: &Digest) -> Result<(), PackageError> {
        let turn = {
            let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            fetching.entry(digest.clone()).or_default().clone()
        };
        let held = turn.lock().await;
        let fetched = match self.local.has(digest).await {
            true => Ok(()),
            false => self.fetch_now(digest).await,
        };
        drop(held);
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
        fetched
    }

    async fn fetch_now(&self, digest: &Digest) -> Result<(), PackageError> {
        let zip = self.download(digest).await?;
        self.local.put(digest, zip).await
    }

    async fn download(&self, digest: &Digest) -> Result<Bytes, PackageError> {
        let request = self.peers.request(Method::GET, &self.url(digest));
        let response = request.timeout(TRANSFER_TIMEOUT).send().await.map_err(unavailable)?;
        if response.status() != StatusCode::OK {
            return Err(fault(response).await);
        }
        response.bytes().await.map_err(unavailable)
    }
}

#[async_trait]
impl PackageStore for RemotePackages {
    async fn has(&self, digest: &Digest) -> bool {
        if self.local.has(digest).await {
            return true;
        }
        let request = self.peers.request(Method::HEAD, &self.url(digest));
        let response = request.timeout(ASK_TIMEOUT).send().await;
        response.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    async fn put(&self, digest: &Digest, zip: Bytes) -> Result<(), PackageError> {
        let request = self.peers.request(Method::PUT, &self.url(digest)).body(zip);
        let response = request.timeout(TRANSFER_TIMEOUT).send().await.map_err(unavailable)?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(());
        }
        Err(fault(response).await)
    }

    async fn zip(&self, digest: &Digest) -> Result<Bytes, PackageError> {
        match self.local.zip(digest).await {
            Err(PackageError::Missing(_)) => self.download(digest).await,
            here => here,
        }
    }

    async fn folder(&self, digest: &Digest) -> Result<PathBuf, PackageError> {
        match self.local.folder(digest).await {
            Err(PackageError::Missing(_)) => {}
            here => return here,
        }
        self.fetch(digest).await?;
        self.local.folder(digest).await
    }

    /// Collects the local copies only: the controller collects its own.
    async fn collect(&self, keep: &[Digest]) -> Result<u64, PackageError> {
        self.local.collect(keep).await
    }
}

impl std::fmt::Debug for RemotePackages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemotePackages")
            .field("controller", &self.controller)
            .finish_non_exhaustive()
    }
}

fn unavailable(error: reqwest::Error) -> PackageError {
    PackageError::Io(format!("the controller cannot be reached: {}", error.without_url()))
}

async fn fault(response: reqwest::Response) -> PackageError {
    let status = response.status();
    match response.json::<PackageFault>().await {
        Ok(fault) => fault.into(),
        Err(_) => PackageError::Io(format!("the controller answered {status}")),
    }
}
