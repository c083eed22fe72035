//! What is known of images that are not there, for whoever needs one meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hanshu_core::RuntimeFamily;
use hanshu_core::ports::ImageError;

use super::recipe::reference;

/// How the making of images goes, by family.
#[derive(Debug, Default)]
pub(crate) struct ImageStates {
    families: Mutex<HashMap<RuntimeFamily, ImageState>>,
}

#[derive(Debug, Default)]
struct ImageState {
    /// How many wait for it; the first of them makes it.
    making: u32,
    /// Why the last try failed.
    failed: Option<String>,
}

/// One who waits for an image, until dropped.
#[derive(Debug)]
pub(super) struct ImageBuild<'a> {
    states: &'a ImageStates,
    family: RuntimeFamily,
}

impl ImageStates {
    pub(super) fn begin(&self, family: RuntimeFamily) -> ImageBuild<'_> {
        self.lock().entry(family).or_default().making += 1;
        ImageBuild { states: self, family }
    }

    /// Why a family's functions cannot run, whose image the engine does not have (it says
    /// `message`), and what to do.
    pub(crate) fn why_missing(&self, family: RuntimeFamily, message: &str) -> String {
        let image = reference(family);
        let families = self.lock();
        let state = families.get(&family);
        if state.is_some_and(|state| 0 < state.making) {
            return format!(
                "the image {image} is being made on this node, which takes a minute or two: try \
                 again then"
            );
        }
        match state.and_then(|state| state.failed.as_deref()) {
            Some(reason) => format!("the image {image} is missing on this node: {reason}"),
            None => format!("the image {image} is missing ({message}): deploy the function again"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RuntimeFamily, ImageState>> {
        // A panic elsewhere leaves a map that is still true.
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ImageBuild<'_> {
    /// What came of it.
    pub(super) fn end(self, made: &Result<(), ImageError>) {
        let failed = made.as_ref().err().map(ToString::to_string);
        self.states.lock().entry(self.family).or_default().failed = failed;
    }
}

impl Drop for ImageBuild<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.states.lock().get_mut(&self.family) {
            state.making = state.making.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_a_missing_image_is_told_how_it_stands() {
        let states = ImageStates::default();
        let said = |family| states.why_missing(family, "no such image");
        assert!(said(RuntimeFamily::Go).ends_with("(no such image): deploy the function again"));
        let making = states.begin(RuntimeFamily::Go);
        assert!(
            said(RuntimeFamily::Go).contains("is being made on this node"),
            "{}",
            said(RuntimeFamily::Go)
        );
        assert!(said(RuntimeFamily::Shell).ends_with("deploy the function again"));
        making.end(&Err(ImageError("no mirror answers".into())));
        assert!(said(RuntimeFamily::Go).ends_with("is missing on this node: no mirror answers"));
        states.begin(RuntimeFamily::Go).end(&Ok(()));
        assert!(said(RuntimeFamily::Go).ends_with("deploy the function again"));
    }
}
