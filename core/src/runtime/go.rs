//! Go binaries built on `scf-go-lib`, or on Lambda's library in its RPC mode.

use super::profile::{AdapterKind, CommandWord, HandlerRule, RuntimeProfile};
use super::shell;

pub(super) const PROFILE: RuntimeProfile = RuntimeProfile {
    name: "go",
    scf_names: &["go1"],
    handler: HandlerRule::File { starts_with: b"" },
    command: &[CommandWord::Handler],
    bootstrap: None,
    host_program: None,
    adapter: AdapterKind::Go,
    image: shell::IMAGE,
    prewarm: None,
    listens: true,
    works_in_children: false,
    mounts: &[],
};
