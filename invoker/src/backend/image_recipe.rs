//! The recipes of runtime images, made from the rows of runtimes. Pure.

use hanshu_core::{RuntimeFamily, RuntimeProfile, hex};
use sha2::{Digest as _, Sha256};

/// What every recipe starts from.
pub(crate) const BASE_IMAGE: &str = "debian:bookworm-slim";
/// The recipe's name in the build context.
pub(crate) const DOCKERFILE: &str = "Dockerfile";
/// Characters of the recipe's digest that name an image: enough to tell recipes apart.
const NAME_LEN: usize = 12;

/// The recipe of a runtime's image.
fn dockerfile(profile: &RuntimeProfile) -> String {
    let image = &profile.image;
    format!(
        "# {about}\n\
         # The platform's own part is mounted at /var/runtime, so nothing of it is in here.\n\
         FROM {BASE_IMAGE}\n\
         RUN apt-get update -q -o APT::Update::Error-Mode=any \\\n \
         && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
         {packages} \\\n \
         && rm -rf /var/lib/apt/lists/* \\\n \
         && mkdir -p /home/qcloud /var/user /var/runtime /opt /run/hanshu\n\
         WORKDIR /var/user\n",
        about = image.about,
        packages = image.packages,
    )
}

/// The name of the image that functions of a family run in: `hanshu/python:0123456789ab`.
pub fn image_reference(family: RuntimeFamily) -> String {
    let profile = family.profile();
    let digest = hex(&Sha256::digest(dockerfile(profile)));
    format!("hanshu/{}:{}", profile.name, digest.get(..NAME_LEN).unwrap_or(&digest))
}

/// What the engine is given to build: a tar archive with the recipe alone.
pub(crate) fn build_context(family: RuntimeFamily) -> std::io::Result<Vec<u8>> {
    let text = dockerfile(family.profile());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, DOCKERFILE, text.as_bytes())?;
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recipe whose text changes is a new image on every node: change this on purpose only.
    #[test]
    fn each_family_has_its_image() {
        let references: Vec<_> = RuntimeFamily::all().map(image_reference).collect();
        insta::assert_snapshot!(references.join("\n"), @"
        hanshu/python:60be1d00ee14
        hanshu/nodejs:db393e4ed0d4
        hanshu/go:a730fcea9379
        hanshu/shell:a730fcea9379
        hanshu/custom:a730fcea9379
        ");
    }

    #[test]
    fn a_recipe_installs_its_packages_or_fails() {
        insta::assert_snapshot!(dockerfile(RuntimeFamily::PYTHON.profile()), @r"
        # Python functions: Debian's Python 3.11 with its whole standard library.
        # The platform's own part is mounted at /var/runtime, so nothing of it is in here.
        FROM debian:bookworm-slim
        RUN apt-get update -q -o APT::Update::Error-Mode=any \
         && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends ca-certificates python3 \
         && rm -rf /var/lib/apt/lists/* \
         && mkdir -p /home/qcloud /var/user /var/runtime /opt /run/hanshu
        WORKDIR /var/user
        ");
    }

    #[test]
    fn the_build_context_holds_the_recipe() {
        let bytes = build_context(RuntimeFamily::PYTHON).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, [DOCKERFILE]);
    }
}
