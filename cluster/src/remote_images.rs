//! Images that other nodes make.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use hanshu_core::RuntimeFamily;
use hanshu_core::ports::{BuildProgress, ImageBuilder, ImageError};
use http::{Method, StatusCode};
use tokio::time::timeout;

use crate::messages::ImageBuildLine;
use crate::ndjson::read_lines;
use crate::peer_client::{NodeUrls, PeerClient};

/// The longest time between two lines of progress of a build.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Images on every node that needs them.
pub struct RemoteImages {
    peers: PeerClient,
    targets: Box<NodeUrls>,
}

impl RemoteImages {
    /// Makes images at each of `targets` (`http://host:port`): the controller, or all invokers.
    pub fn new(
        peers: PeerClient,
        targets: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        Self { peers, targets: Box::new(targets) }
    }

    async fn ensure_at(
        &self,
        url: &str,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let path = format!("{}/internal/v1/images/{}", url.trim_end_matches('/'), family.as_str());
        let request = self.peers.request(Method::POST, &path).send();
        let response = match timeout(SILENCE_MAX, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) | Err(_) => return Err(ImageError(format!("{url} cannot be reached"))),
        };
        if response.status() != StatusCode::OK {
            return Err(ImageError(format!("{url} answered {}", response.status())));
        }
        let mut lines = read_lines(response);
        while let Ok(Some(Ok(line))) = timeout(SILENCE_MAX, lines.next()).await {
            match line {
                ImageBuildLine::Progress(text) => progress(&text),
                ImageBuildLine::Done => return Ok(()),
                ImageBuildLine::Failed(reason) => return Err(ImageError(reason)),
            }
        }
        Err(ImageError(format!("the node at {url} was lost while it made the image")))
    }
}

#[async_trait]
impl ImageBuilder for RemoteImages {
    async fn ensure(
        &self,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        for url in (self.targets)() {
            self.ensure_at(&url, family, progress).await?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for RemoteImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteImages").finish_non_exhaustive()
    }
}
