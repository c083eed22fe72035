//! Programs named `bootstrap` that speak SCF's custom runtime API.

use super::profile::{AdapterKind, CommandWord, HandlerRule, RuntimeProfile};
use super::shell;

pub(super) const PROFILE: RuntimeProfile = RuntimeProfile {
    name: "custom",
    scf_names: &["customruntime"],
    handler: HandlerRule::Fixed("bootstrap"),
    command: &[CommandWord::CodeFile("bootstrap")],
    bootstrap: None,
    host_program: None,
    adapter: AdapterKind::Custom,
    image: shell::IMAGE,
    prewarm: None,
    listens: true,
    works_in_children: true,
    mounts: &[],
};
