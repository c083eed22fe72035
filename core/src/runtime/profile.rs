//! What the platform knows of a family of runtimes, as plain data.
//!
//! A family is one file of this folder and one row of [`super::PROFILES`]. The other
//! crates read the row: the controller checks the handler by its rule, the invoker makes the command
//! line, the image and the mounts from it. No code branches on a family's name.

/// One family of runtimes.
#[derive(Debug)]
pub struct RuntimeProfile {
    /// Its name in `hanshu.toml`, in the API, in metrics and in image names.
    pub name: &'static str,
    /// SCF's names for it, in lower case. Versions are those that SCF lists; whichever is named,
    /// the node's own interpreter of the family runs it.
    pub scf_names: &'static [&'static str],
    /// Where a handler is looked for in the package.
    pub handler: HandlerRule,
    /// The command line that starts the runtime.
    pub command: &'static [CommandWord],
    /// The platform's part of it below `/var/runtime`, where there is one.
    pub bootstrap: Option<&'static str>,
    /// The program of the host or image without which its functions cannot run.
    pub host_program: Option<HostProgram>,
    /// How events reach it.
    pub adapter: AdapterKind,
    /// What its sandboxes run in where they are containers.
    pub image: RuntimeImage,
    /// What a sandbox that is started before its function is known needs; `None`: the runtime cannot
    /// be given its function late.
    pub prewarm: Option<PrewarmProfile>,
    /// Whether it listens on a port, so that it must not share a network namespace with another
    /// sandbox.
    pub listens: bool,
    /// Whether children of the runtime do the work, so that one of them can be killed for want of
    /// memory while the runtime itself goes on and answers.
    pub works_in_children: bool,
    /// Absolute paths of the host that its sandboxes see read-only at the same place, whatever the
    /// backend.
    pub mounts: &'static [&'static str],
}

/// Where a handler is looked for in the unpacked package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerRule {
    /// The handler is `module.function`.
    Module {
        /// Files that may hold the module; `{}` stands for its name.
        files: &'static [&'static str],
        /// Whether dots in the module's name stand for folders.
        dots_are_folders: bool,
    },
    /// The handler is a file of the package.
    File {
        /// What the file must start with.
        starts_with: &'static [u8],
    },
    /// The handler is any text: this file of the package is run.
    Fixed(&'static str),
}

/// A word of a runtime's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandWord {
    /// This text itself.
    Text(&'static str),
    /// The path of [`RuntimeProfile::host_program`].
    HostProgram,
    /// The path of [`RuntimeProfile::bootstrap`].
    Bootstrap,
    /// The handler, as a file of the package.
    Handler,
    /// A file of the package.
    CodeFile(&'static str),
    /// This text with the function's MiB of memory after it.
    WithMemoryMb(&'static str),
}

/// A program that the platform does not bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostProgram {
    /// Where it is, unless the operator has set another path.
    pub path: &'static str,
    /// Debian's package that holds it.
    pub package: &'static str,
    /// The name of the operator's setting for its path.
    pub setting: Option<&'static str>,
}

/// How events reach a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// The runtime connects to the invoker's socket itself.
    Direct,
    /// By Go's RPC, as `scf-go-lib` and Lambda's library speak it.
    Go,
    /// One process for each event.
    Shell,
    /// By SCF's custom runtime API.
    Custom,
}

/// The image of a family, on Debian's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeImage {
    /// The recipe's first line: for whom it is and what it holds.
    pub about: &'static str,
    /// Debian's packages, separated by spaces.
    pub packages: &'static str,
}

/// What a sandbox that waits for its function needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrewarmProfile {
    /// MiB that one is counted with: what it was seen to use, and some more.
    pub memory_mb: u32,
}

impl RuntimeProfile {
    /// Whether the command line starts a program of the package: that it cannot be started is then
    /// the function's fault, else the node's.
    pub fn runs_package_program(&self) -> bool {
        matches!(self.command.first(), Some(CommandWord::Handler | CommandWord::CodeFile(_)) | None)
    }
}
