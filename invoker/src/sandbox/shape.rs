//! What cannot be changed once a sandbox is started.

use hanshu_core::{FunctionConfig, RuntimeFamily};

use crate::backend::port::NetworkAccess;

/// What cannot be changed once a sandbox is started: a prewarmed sandbox serves functions of its
/// own shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SandboxShape {
    pub(crate) family: RuntimeFamily,
    pub(crate) network: NetworkAccess,
    /// MiB: the limit, and for Node.js on the command line.
    pub(crate) memory_mb: u32,
}

/// Prefixes of variables that the interpreter, the C library or the dynamic linker reads when it
/// starts, which a prewarmed sandbox has already done.
const READ_AT_START: [&str; 10] =
    ["LD_", "LC_", "LANG", "TZ", "PYTHON", "NODE_", "MALLOC_", "GLIBC_", "UV_", "OPENSSL_"];

/// Whether a prewarmed sandbox can serve this function: its runtime takes its function late, and no
/// variable of the function had to be known earlier.
pub(crate) fn can_be_prewarmed(config: &FunctionConfig) -> bool {
    let early = |name: &String| READ_AT_START.iter().any(|prefix| name.starts_with(prefix));
    config.runtime.family().profile().prewarm.is_some() && !config.env.keys().any(early)
}

/// The families that a prewarmed sandbox can be of.
pub(crate) fn prewarmed_families() -> impl Iterator<Item = RuntimeFamily> {
    RuntimeFamily::all().filter(|family| family.profile().prewarm.is_some())
}

impl SandboxShape {
    /// MiB that a prewarmed sandbox of this shape is counted with.
    pub(crate) fn prewarmed_mb(self) -> u64 {
        let prewarm = self.family.profile().prewarm;
        let used_mb = prewarm.map_or(self.memory_mb, |prewarm| prewarm.memory_mb);
        u64::from(used_mb.min(self.memory_mb))
    }
}
