//! The limits of the platform, each with its unit. Sources: SCF quotas (scf limits page), unless
//! another reason is given.

use std::time::Duration;

/// Largest event of a synchronous call, and largest answer: 6 MB.
pub const PAYLOAD_BYTES_MAX: usize = 6_291_456;
/// Largest event of an asynchronous call: 128 KB.
pub const ASYNC_PAYLOAD_BYTES_MAX: usize = 131_072;
/// Bodies above this are checked and hashed away from the data plane.
pub const INLINE_CHECK_BYTES_MAX: usize = 262_144;
/// All names and values of a function's variables together: 4 KB.
pub const ENV_BYTES_MAX: usize = 4_096;
/// A timer's argument: 4 KB.
pub const TIMER_ARGUMENT_BYTES_MAX: usize = 4_096;
/// Unpacked code of one function: 500 MB.
pub const CODE_BYTES_MAX: u64 = 500 * 1024 * 1024;
/// A package as it is uploaded.
pub const PACKAGE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Files and folders of one package. Larger trees are almost always an accident.
pub const PACKAGE_ENTRIES_MAX: usize = 50_000;
/// `/tmp` of a sandbox: 512 MB.
pub const TMP_BYTES: u64 = 512 * 1024 * 1024;
/// Open files of a sandbox's process.
pub const OPEN_FILES_MAX: u64 = 1_024;
/// Processes and threads of a sandbox.
pub const PIDS_MAX: u64 = 1_024;
/// Triggers of one function.
pub const TRIGGERS_MAX: usize = 110;
/// The tail of the log that a caller may ask for.
pub const LOG_TAIL_BYTES_MAX: usize = 4_096;
/// Calls by functions that may follow on each other: a function that was called so deep calls no
/// other. Bounds chains that call themselves.
pub const CALL_DEPTH_MAX: u8 = 8;
/// What is kept of one invocation's output: this many bytes of its start and of its end each.
pub const LOG_KEEP_BYTES: usize = 512 * 1024;

/// MiB. Smallest memory of a function; above it, multiples of [`MEMORY_STEP_MB`].
pub const MEMORY_MIN_MB: u32 = 64;
/// MiB. Above [`MEMORY_MIN_MB`] a function's memory is a multiple of this.
pub const MEMORY_STEP_MB: u32 = 128;
/// MiB. SCF offers up to 3072 and more on request; a node's own memory is the real bound.
pub const MEMORY_MAX_MB: u32 = 122_880;
/// MiB. Memory of a function whose configuration names none.
pub const MEMORY_DEFAULT_MB: u32 = 128;
/// Shortest time limit of an invocation.
pub const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Longest time limit of an invocation.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(900);
/// Time limit of an invocation if the configuration has none.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);
/// Seconds a runtime may take to initialise.
pub const INIT_TIMEOUT_MIN: Duration = Duration::from_secs(3);
/// Seconds a runtime may take to initialise.
pub const INIT_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Time limit of the initialisation if the configuration has none.
pub const INIT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(65);
/// An async event's longest life: 6 h.
pub const ASYNC_AGE_MAX: Duration = Duration::from_secs(21_600);
/// Events waiting in one queue.
pub const ASYNC_WAITING_MAX: u32 = 100_000;
