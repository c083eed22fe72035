//! Scripts that start with `#!` and run once for each event.

use super::profile::{
    AdapterKind, CommandWord, HandlerRule, HostProgram, RuntimeImage, RuntimeProfile,
};

/// A small system, which serves programs that bring everything themselves as well.
pub(super) const IMAGE: RuntimeImage = RuntimeImage {
    about: "Go, custom and shell functions: a small system with what scripts expect.",
    packages: "bash ca-certificates coreutils curl jq",
};

pub(super) const PROFILE: RuntimeProfile = RuntimeProfile {
    name: "shell",
    scf_names: &[],
    handler: HandlerRule::File { starts_with: b"#!" },
    command: &[CommandWord::Handler],
    bootstrap: None,
    host_program: Some(HostProgram { path: "/bin/sh", package: "dash", setting: None }),
    adapter: AdapterKind::Shell,
    image: IMAGE,
    prewarm: None,
    listens: false,
    works_in_children: true,
    mounts: &[],
};
