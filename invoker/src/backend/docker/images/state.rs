//! What is known of images that are missing, for the starts that need one meanwhile.

use std::collections::HashMap;
use std::sync::Mutex;

use hanshu_core::lock;
use hanshu_core::ports::ImageError;

/// The builds of images, by the images' names.
#[derive(Debug, Default)]
pub(in crate::backend::docker) struct ImageStates {
    images: Mutex<HashMap<String, ImageState>>,
}

#[derive(Debug, Default)]
struct ImageState {
    /// How many wait for it; the first of them builds it.
    building: u32,
    /// Why the last build failed.
    failure: Option<String>,
}

/// One who waits for an image, until dropped.
#[derive(Debug)]
pub(super) struct ImageBuild<'a> {
    states: &'a ImageStates,
    image: &'a str,
}

impl ImageStates {
    pub(super) fn begin<'a>(&'a self, image: &'a str) -> ImageBuild<'a> {
        lock(&self.images).entry(image.to_owned()).or_default().building += 1;
        ImageBuild { states: self, image }
    }

    /// Why sandboxes cannot start whose image the engine does not have (it says `message`), and what
    /// to do.
    pub(in crate::backend::docker) fn explain_missing(&self, image: &str, message: &str) -> String {
        let images = lock(&self.images);
        let state = images.get(image);
        if state.is_some_and(|state| 0 < state.building) {
            return format!(
                "the image {image} is being made on this node, which takes a minute or two: try \
                 again then"
            );
        }
        match state.and_then(|state| state.failure.as_deref()) {
            Some(reason) => format!("the image {image} is missing on this node: {reason}"),
            None => format!("the image {image} is missing ({message}): deploy the function again"),
        }
    }
}

impl ImageBuild<'_> {
    /// Notes how the build ended.
    pub(super) fn end(self, built: &Result<(), ImageError>) {
        let failure = built.as_ref().err().map(ToString::to_string);
        lock(&self.states.images).entry(self.image.to_owned()).or_default().failure = failure;
    }
}

impl Drop for ImageBuild<'_> {
    fn drop(&mut self) {
        if let Some(state) = lock(&self.states.images).get_mut(self.image) {
            state.building = state.building.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_whose_image_is_missing_learns_the_state_of_its_build() {
        let states = ImageStates::default();
        let explain = |image| states.explain_missing(image, "no such image");
        assert!(explain("one").ends_with("(no such image): deploy the function again"));
        let build = states.begin("one");
        assert!(explain("one").contains("is being made on this node"), "{}", explain("one"));
        assert!(explain("two").ends_with("deploy the function again"));
        build.end(&Err(ImageError("no mirror answers".into())));
        assert!(explain("one").ends_with("is missing on this node: no mirror answers"));
        states.begin("one").end(&Ok(()));
        assert!(explain("one").ends_with("deploy the function again"));
    }
}
