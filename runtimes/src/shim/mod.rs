//! Process 1 of every sandbox: starts the runtime, supervises it, and speaks the protocol for
//! runtimes that cannot (`PROTOCOL.md`).
//!
//! One thread waits for the invoker's frames, signals and children. An adapter has a thread of its
//! own. There is no async runtime: the shim must be small, since its memory counts as the function's.

mod adapter_context;
mod custom;
mod frames;
mod function_calls;
mod go;
mod http;
mod invocation_response;
mod oom_kills;
mod processes;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod runtime_connection;
mod shell;
mod signals;
mod supervisor;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::wire;

/// Bytes of stack of a thread of the shim. Pages that are not touched use no memory.
const THREAD_STACK: usize = 256 * 1024;

/// Runs the shim with the arguments of this process: `--dir FOLDER` names the sandbox's folder, by
/// default [`wire::RUN_DIR`]. Words before `--dir` are left to the caller.
///
/// Returns when the runtime has ended, or when the invoker says so or has gone.
#[must_use]
pub fn main() -> ExitCode {
    let ended = supervisor::ShimSupervisor::connect(&dir_of(std::env::args_os()))
        .and_then(supervisor::ShimSupervisor::run);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Goes to the container's own log: the invoker can no longer be reached.
            let _ = writeln!(io::stderr(), "hanshu shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dir_of(arguments: impl Iterator<Item = OsString>) -> PathBuf {
    let mut arguments = arguments.skip_while(|argument| argument != "--dir").skip(1);
    arguments.next().map_or_else(|| PathBuf::from(wire::RUN_DIR), PathBuf::from)
}

/// Starts a thread with a small stack.
fn spawn_thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(THREAD_STACK).spawn(body)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_folder_is_the_word_after_dir() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(dir_of(words(&["hanshu", "shim"]).into_iter()), Path::new("/run/hanshu"));
        let given = words(&["hanshu", "shim", "--dir", "/tmp/x"]);
        assert_eq!(dir_of(given.into_iter()), Path::new("/tmp/x"));
    }
}
