//! What cannot be changed once a sandbox is started.

use hanshu_core::{FunctionConfig, RuntimeFamily};

use crate::backend::port::NetworkAccess;

/// What cannot be changed once a sandbox is started: a prewarmed sandbox serves functions of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SandboxShape {
    pub(crate) family: RuntimeFamily,
    pub(crate) network: NetworkAccess,
    /// MiB: the limit, and for Node.js on the command line.
    pub(crate) memory_mb: u32,
}

/// Whom a function's variables keep from a prewarmed sandbox: they are read when the interpreter, the C
/// library or the dynamic linker starts, which it has.
const READ_AT_START: [&str; 10] =
    ["LD_", "LC_", "LANG", "TZ", "PYTHON", "NODE_", "MALLOC_", "GLIBC_", "UV_", "OPENSSL_"];

impl SandboxShape {
    /// Runtimes of ours that take their function late.
    pub(crate) const FAMILIES: [RuntimeFamily; 2] = [RuntimeFamily::Python, RuntimeFamily::Nodejs];

    /// Whether there can be prewarmed sandboxes for this function: a runtime of ours that takes its
    /// function late, and no variable that it would have to know earlier.
    pub(crate) fn suits(config: &FunctionConfig) -> bool {
        let late = Self::FAMILIES.contains(&config.runtime.family());
        let early = |name: &String| READ_AT_START.iter().any(|start| name.starts_with(start));
        late && !config.env.keys().any(early)
    }

    /// MiB that a prewarmed sandbox is counted with: what one was seen to use, and some more.
    pub(crate) fn prewarmed_mb(self) -> u64 {
        let used = match self.family {
            RuntimeFamily::Nodejs => 48,
            RuntimeFamily::Python
            | RuntimeFamily::Go
            | RuntimeFamily::Shell
            | RuntimeFamily::Custom => 16,
        };
        used.min(u64::from(self.memory_mb))
    }
}
