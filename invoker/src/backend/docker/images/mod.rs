//! Builds runtime images with a Docker engine.
//!
//! They are built at the deploy of the first function that needs one, never at the start of the
//! server or in a call. An image is named by its recipe's digest, so a new recipe is a new image and
//! an older server keeps its own. The platform's part of a runtime is mounted, not built in.

mod base;
pub(in crate::backend::docker) mod state;

use std::collections::HashMap;
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
use crate::backend::image_recipe::{self, BASE_IMAGE, image_reference};
use base::BaseImage;
use state::ImageStates;

/// Packages are fetched from a mirror; on a slow connection that takes minutes, never this long.
const BUILD_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// Builds runtime images with a Docker engine.
#[derive(Debug)]
pub struct DockerImages {
    engine: Arc<DockerEngine>,
    node: NodeId,
    base: BaseImage,
    /// Locked while an image is built, so that each is built once; they share the base image and the
    /// connection to the mirror.
    building: Mutex<()>,
    /// For starts that need an image meanwhile.
    states: Arc<ImageStates>,
}

impl DockerImages {
    /// `dir` is where the base image may be put together; it needs 150 MB for that time.
    pub(super) fn new(
        engine: Arc<DockerEngine>,
        node: NodeId,
        dir: PathBuf,
        states: Arc<ImageStates>,
    ) -> Self {
        Self { engine, node, base: BaseImage::new(dir), building: Mutex::new(()), states }
    }

    /// Builds the base image where it is missing, then the family's.
    async fn make(
        &self,
        docker: &Docker,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let _building = self.building.lock().await;
        let image = image_reference(family);
        // Another caller may have built it meanwhile.
        if self.has(docker, &image).await? {
            return Ok(());
        }
        if !self.has(docker, BASE_IMAGE).await? {
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
        match self.engine.ask("inspect an image", docker.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(EngineError::NotFound { .. }) => Ok(false),
            Err(error) => Err(to_image_error(&error)),
        }
    }

    async fn build(
        &self,
        docker: &Docker,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let image = image_reference(family);
        let context = image_recipe::build_context(family)
            .map_err(|error| ImageError(format!("could not pack the recipe: {error}")))?;
        let options = BuildImageOptions {
            dockerfile: image_recipe::DOCKERFILE.into(),
            t: Some(image.clone()),
            rm: true,
            forcerm: true,
            labels: Some(HashMap::from([(LABEL.to_owned(), self.node.to_string())])),
            ..Default::default()
        };
        let mut lines = docker.build_image(options, None, Some(body_full(context.into())));
        while let Some(line) = lines.next().await {
            let line = line.map_err(|error| build_failed(&image, &error.to_string()))?;
            for text in line.stream.iter().flat_map(|text| text.lines()) {
                if !text.trim().is_empty() {
                    progress(text);
                }
            }
            if let Some(message) = line.error_detail.and_then(|detail| detail.message) {
                return Err(build_failed(&image, &message));
            }
        }
        Ok(())
    }
}

/// Whether an image's names are all the platform's and none is of a recipe of this program.
fn is_outdated(names: &[String]) -> bool {
    let ours = |name: &String| name.starts_with("hanshu/");
    let is_current = |name: &String| {
        RuntimeFamily::all().map(image_reference).any(|reference| reference == *name)
    };
    names.iter().all(ours) && !names.iter().any(is_current)
}

fn build_failed(image: &str, message: &str) -> ImageError {
    ImageError(format!(
        "could not build {image}: {message}; containers must be able to reach a Debian mirror: try \
         `docker run --rm {BASE_IMAGE} apt-get update`"
    ))
}

fn to_image_error(error: &EngineError) -> ImageError {
    ImageError(error.to_string())
}

#[async_trait]
impl ImageBuilder for DockerImages {
    async fn ensure(
        &self,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let (docker, _) = self.engine.client().await.map_err(|error| to_image_error(&error))?;
        let image = image_reference(family);
        if self.has(&docker, &image).await? {
            return Ok(());
        }
        let build = self.states.begin(&image);
        let built = self.make(&docker, family, progress).await;
        build.end(&built);
        built
    }

    async fn collect(&self) -> Result<u64, ImageError> {
        let (docker, _) = self.engine.client().await.map_err(|error| to_image_error(&error))?;
        // An image that is being built has no name yet.
        let _building = self.building.lock().await;
        let options =
            ListImagesOptions { filters: Some(of_node(&self.node)), ..Default::default() };
        let images = self
            .engine
            .ask("list images", docker.list_images(Some(options)))
            .await
            .map_err(|error| to_image_error(&error))?;
        let mut removed = 0;
        for image in images.iter().filter(|image| is_outdated(&image.repo_tags)) {
            let remove = docker.remove_image(&image.id, None::<RemoveImageOptions>, None);
            match self.engine.ask("remove an image", remove).await {
                Ok(_) => removed += 1,
                // In use by a container; a later round removes it.
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
        assert!(!is_outdated(&[image_reference(RuntimeFamily::PYTHON)]));
        assert!(!is_outdated(&names(&["hanshu/python:000000000000", "mine:latest"])));
    }
}
