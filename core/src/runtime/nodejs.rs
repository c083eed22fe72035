//! Node.js with the platform's bootstrap.

use super::profile::{
    AdapterKind, CommandWord, HandlerRule, HostProgram, PrewarmProfile, RuntimeImage,
    RuntimeProfile,
};

pub(super) const PROFILE: RuntimeProfile = RuntimeProfile {
    name: "nodejs",
    scf_names: &[
        "nodejs10.15",
        "nodejs12.16",
        "nodejs14.18",
        "nodejs16.13",
        "nodejs18.15",
        "nodejs20.19",
    ],
    handler: HandlerRule::Module { files: &["{}.js", "{}.cjs", "{}.mjs"], dots_are_folders: false },
    command: &[
        CommandWord::HostProgram,
        CommandWord::WithMemoryMb("--max-old-space-size="),
        CommandWord::Bootstrap,
    ],
    bootstrap: Some("node/bootstrap.cjs"),
    host_program: Some(HostProgram {
        path: "/usr/bin/node",
        package: "nodejs",
        setting: Some("node"),
    }),
    adapter: AdapterKind::Direct,
    image: RuntimeImage {
        about: "Node functions: Debian's Node.js 18.",
        packages: "ca-certificates nodejs",
    },
    prewarm: Some(PrewarmProfile { memory_mb: 48 }),
    listens: false,
    works_in_children: false,
    mounts: &[],
};
