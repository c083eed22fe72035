//! Images that other nodes make.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use hanshu_core::RuntimeFamily;
use hanshu_core::ports::{BuildProgress, ImageBuilder, ImageError};
use http::{Method, StatusCode};
use tokio::time::timeout;

use super::Peers;
use super::wire::ImageLine;

/// How long a build may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Longest line of progress.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The base URLs of the nodes that need an image, as they are now.
type Targets = dyn Fn() -> Vec<String> + Send + Sync;

/// Images on every node that needs them.
pub struct RemoteImages {
    peers: Peers,
    targets: Box<Targets>,
}

impl RemoteImages {
    /// Makes images at each of `targets` (`http://host:port`): the controller, or all invokers.
    pub fn new(peers: Peers, targets: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        Self { peers, targets: Box::new(targets) }
    }

    async fn ensure_at(
        &self,
        url: &str,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let away = || ImageError(format!("the node at {url} was lost while it made the image"));
        let path = format!("{}/internal/v1/images/{}", url.trim_end_matches('/'), family.as_str());
        let request = self.peers.request(Method::POST, &path).send();
        let response = match timeout(SILENCE_MAX, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) | Err(_) => return Err(ImageError(format!("{url} cannot be reached"))),
        };
        if response.status() != StatusCode::OK {
            return Err(ImageError(format!("{url} answered {}", response.status())));
        }
        let mut pieces = response.bytes_stream();
        let mut text = Vec::new();
        while let Ok(Some(Ok(piece))) = timeout(SILENCE_MAX, pieces.next()).await {
            text.extend_from_slice(&piece);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                match serde_json::from_slice(&line).map_err(|_| away())? {
                    ImageLine::Progress(line) => progress(&line),
                    ImageLine::Done => return Ok(()),
                    ImageLine::Failed(reason) => return Err(ImageError(reason)),
                }
            }
            if LINE_BYTES_MAX < text.len() {
                break;
            }
        }
        Err(away())
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
