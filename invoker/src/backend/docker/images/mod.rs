//! Runtime images: what functions of a family run in, made from files inside this program.
//!
//! They are made at the deploy of the first function that needs one, never at the start or in a
//! call. An image is named by its recipe's digest, so a new recipe is a new image and an old
//! server keeps its own. The platform's part of a runtime is mounted, not built in.

mod base;
pub(super) mod recipe;
pub(super) mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::body_full;
use bollard::query_parameters::{BuildImageOptions, ListImagesOptions, RemoveImageOptions};
use futures_util::StreamExt as _;
use hanshu_core::ports::{BuildProgress, ImageBuilder, ImageError};
use hanshu_core::{NodeId, RuntimeFamily};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::backend::docker::engine::{DockerEngine, EngineError};
use crate::backend::docker::labels::{LABEL, of_node};
use base::BaseImage;
pub use recipe::reference as image_reference;
use recipe::reference;
use state::ImageStates;

/// Packages are fetched from a mirror; on a slow line that takes minutes, never this long.
const BUILD_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// Makes images with a Docker engine.
#[derive(Debug)]
pub struct DockerImages {
    engine: Arc<DockerEngine>,
    node: NodeId,
    base: BaseImage,
    /// Held while an image is made, so that each is made once; they share a base and a line.
    making: Mutex<()>,
    /// For those who need one meanwhile.
    states: Arc<ImageStates>,
}

impl DockerImages {
    /// `dir` is where the base image may be put together; it needs 150 MB for that time.
    pub(crate) fn new(
        engine: Arc<DockerEngine>,
        node: NodeId,
        dir: PathBuf,
        states: Arc<ImageStates>,
    ) -> Self {
        Self { engine, node, base: BaseImage::new(dir), making: Mutex::new(()), states }
    }

    /// With its base, one after the other.
    async fn make(
        &self,
        docker: &Docker,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let _making = self.making.lock().await;
        let image = reference(family);
        // Somebody else may have made it meanwhile.
        if self.has(docker, &image).await? {
            return Ok(());
        }
        if !self.has(docker, recipe::BASE).await? {
            self.base.make(docker, progress).await?;
        }
        progress(&format!("building {image}"));
        let built = timeout(BUILD_TIMEOUT, self.build(docker, family, progress)).await;
        built.unwrap_or_else(|_| {
            let minutes = BUILD_TIMEOUT.as_secs() / 60;
            Err(ImageError(format!("building {image} took more than {minutes} minutes")))
        })
    }

    /// Whether the engine has an image.
    async fn has(&self, docker: &Docker, image: &str) -> Result<bool, ImageError> {
        match self.engine.ask("look at an image", docker.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(EngineError::NotFound { .. }) => Ok(false),
            Err(error) => Err(ImageError(error.to_string())),
        }
    }

    async fn build(
        &self,
        docker: &Docker,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let image = reference(family);
        let context = recipe::context(family)
            .map_err(|error| ImageError(format!("could not pack the recipe: {error}")))?;
        let labels = BTreeMap::from([(LABEL, self.node.to_string())]);
        let options = BuildImageOptions {
            dockerfile: recipe::DOCKERFILE.into(),
            t: Some(image.clone()),
            rm: true,
            forcerm: true,
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ..Default::default()
        };
        let mut lines = docker.build_image(options, None, Some(body_full(context.into())));
        while let Some(line) = lines.next().await {
            let line = line.map_err(|error| ImageError(explained(&image, &error.to_string())))?;
            for text in line.stream.iter().flat_map(|text| text.lines()) {
                if !text.trim().is_empty() {
                    progress(text);
                }
            }
            if let Some(message) = line.error_detail.and_then(|detail| detail.message) {
                return Err(ImageError(explained(&image, &message)));
            }
        }
        Ok(())
    }
}

/// Whether an image's names are all ours and none is of a recipe of this program.
fn is_outdated(names: &[String]) -> bool {
    let current = RuntimeFamily::ALL.map(reference);
    let ours = |name: &String| name.starts_with("hanshu/");
    names.iter().all(ours) && !names.iter().any(|name| current.contains(name))
}

fn explained(image: &str, message: &str) -> String {
    format!(
        "could not build {image}: {message}; containers need a Debian mirror in reach: try \
         `docker run --rm {} apt-get update`",
        recipe::BASE
    )
}

#[async_trait]
impl ImageBuilder for DockerImages {
    async fn ensure(
        &self,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let (docker, _) =
            self.engine.client().await.map_err(|error| ImageError(error.to_string()))?;
        if self.has(&docker, &reference(family)).await? {
            return Ok(());
        }
        let making = self.states.begin(family);
        let made = self.make(&docker, family, progress).await;
        making.end(&made);
        made
    }

    async fn collect(&self) -> Result<u64, ImageError> {
        let said = |error: EngineError| ImageError(error.to_string());
        let (docker, _) = self.engine.client().await.map_err(said)?;
        // An image that is being made has no name yet.
        let _making = self.making.lock().await;
        let options =
            ListImagesOptions { filters: Some(of_node(&self.node)), ..Default::default() };
        let images = self
            .engine
            .ask("list images", docker.list_images(Some(options)))
            .await
            .map_err(said)?;
        let mut removed = 0;
        for image in images.iter().filter(|image| is_outdated(&image.repo_tags)) {
            let remove = docker.remove_image(&image.id, None::<RemoveImageOptions>, None);
            match self.engine.ask("remove an image", remove).await {
                Ok(_) => removed += 1,
                // In use by a container; it goes at a later round.
                Err(error) => {
                    tracing::debug!(%error, image = image.id, "Could not remove an image");
                }
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_earlier_recipes_are_outdated_and_current_ones_are_not() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(is_outdated(&names(&["hanshu/python:000000000000"])));
        assert!(is_outdated(&[]), "a name that a newer image took");
        assert!(!is_outdated(&[reference(RuntimeFamily::Python)]));
        assert!(!is_outdated(&names(&["hanshu/python:000000000000", "mine:latest"])));
    }
}
