//! Process 1 of every sandbox: starts the runtime, watches over it, and speaks the protocol for
//! runtimes that cannot (`PROTOCOL.md`).
//!
//! One thread waits for everything: the invoker's frames, signals, children. An adapter has a
//! thread of its own. There is no runtime for async code here: the shim must be small, since it is
//! paid for out of the function's memory.

mod adapter_context;
mod custom;
mod frames;
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

/// The most stack that a thread of the shim needs, bytes. What is not touched is not paid for.
const THREAD_STACK: usize = 256 * 1024;

/// Runs the shim with the arguments of this process: `--dir FOLDER` names the sandbox's folder, by
/// default [`wire::RUN_DIR`]. Words before `--dir` are left to the caller.
///
/// Ends when the runtime has ended, when the invoker says so or goes away.
#[must_use]
pub fn main() -> ExitCode {
    let ended = supervisor::ShimSupervisor::connect(&dir_of(std::env::args_os()))
        .and_then(supervisor::ShimSupervisor::run);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The container's own log; there is nobody else left to tell.
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
