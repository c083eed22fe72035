//! Python 3 with the platform's bootstrap.

use super::profile::{
    AdapterKind, CommandWord, HandlerRule, HostProgram, PrewarmProfile, RuntimeImage,
    RuntimeProfile,
};

pub(super) const PROFILE: RuntimeProfile = RuntimeProfile {
    name: "python",
    scf_names: &["python3.6", "python3.7", "python3.9", "python3.10", "python3.11"],
    handler: HandlerRule::Module { files: &["{}.py", "{}/__init__.py"], dots_are_folders: true },
    // The bootstrap's first lines say what each flag is for.
    command: &[
        CommandWord::HostProgram,
        CommandWord::Text("-I"),
        CommandWord::Text("-S"),
        CommandWord::Text("-B"),
        CommandWord::Text("-u"),
        CommandWord::Text("-X"),
        CommandWord::Text("utf8"),
        CommandWord::Bootstrap,
    ],
    bootstrap: Some("python/bootstrap.py"),
    host_program: Some(HostProgram {
        path: "/usr/bin/python3",
        package: "python3",
        setting: Some("python"),
    }),
    adapter: AdapterKind::Direct,
    image: RuntimeImage {
        about: "Python functions: Debian's Python 3.11 with its whole standard library.",
        packages: "ca-certificates python3",
    },
    prewarm: Some(PrewarmProfile { memory_mb: 16 }),
    listens: false,
    works_in_children: false,
    mounts: &[],
};
