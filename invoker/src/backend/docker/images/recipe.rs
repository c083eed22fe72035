//! The recipes, which are part of this program. Pure.

use std::fmt::Write as _;

use hanshu_core::RuntimeFamily;
use sha2::{Digest as _, Sha256};

/// What every recipe starts from.
pub(super) const BASE: &str = "debian:bookworm-slim";
/// The recipe's name in the context of a build.
pub(super) const DOCKERFILE: &str = "Dockerfile";
/// Bytes of a digest that name an image: enough to tell recipes apart.
const NAME_BYTES: usize = 6;

/// The recipe of a family.
fn dockerfile(family: RuntimeFamily) -> &'static str {
    match family {
        RuntimeFamily::Python => include_str!("../../../../../runtimes/images/python/Dockerfile"),
        RuntimeFamily::Nodejs => include_str!("../../../../../runtimes/images/nodejs/Dockerfile"),
        RuntimeFamily::Go | RuntimeFamily::Shell | RuntimeFamily::Custom => {
            include_str!("../../../../../runtimes/images/shell/Dockerfile")
        }
    }
}

/// The name of the image that functions of a family run in: `hanshu/python:0123456789ab`.
pub fn reference(family: RuntimeFamily) -> String {
    let mut name = format!("hanshu/{}:", family.as_str());
    for byte in Sha256::digest(dockerfile(family)).iter().take(NAME_BYTES) {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// What the engine is given to build: a tar archive with the recipe alone.
pub(super) fn context(family: RuntimeFamily) -> std::io::Result<Vec<u8>> {
    let text = dockerfile(family).as_bytes();
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, DOCKERFILE, text)?;
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_starts_from_the_base_and_fails_when_a_mirror_does() {
        for family in RuntimeFamily::ALL {
            let text = dockerfile(family);
            assert!(text.lines().any(|line| line == format!("FROM {BASE}")), "{text}");
            assert!(text.contains("Error-Mode=any"), "{text}");
        }
    }

    #[test]
    fn an_image_is_named_by_its_family_and_recipe() {
        let python = reference(RuntimeFamily::Python);
        assert_eq!(python.len(), "hanshu/python:".len() + 12);
        assert_ne!(python, reference(RuntimeFamily::Nodejs));
    }

    #[test]
    fn the_context_holds_the_recipe() {
        let bytes = context(RuntimeFamily::Python).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, [DOCKERFILE]);
    }
}
