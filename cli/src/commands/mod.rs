//! One file for each command.

mod deploy;
mod init;
mod invoke;
mod logs;
mod queues;
mod runs;
mod serve;
mod show;
mod status;
mod trigger;
mod version;

use std::future::Future;

use clap::CommandFactory as _;

use crate::args::{Cli, Command};
use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::Printer;
use crate::settings::Settings;

/// Runs the command that was given.
pub(crate) fn run(cli: Cli, printer: Printer) -> Result<CommandStatus, Error> {
    let server = || ServerConnection::new(Settings::find(&cli.global)?);
    match &cli.command {
        Command::Serve(flags) => serve::run(flags, printer),
        Command::Init(args) => init::run(args, printer),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "hanshu", &mut script);
            printer.bytes(&script).map(|()| CommandStatus::Done)
        }
        Command::Version => wait(version::run(server().ok(), printer)),
        Command::Deploy(args) => wait(deploy::run(server()?, args, printer)),
        Command::Publish(args) => wait(show::publish(server()?, args, printer)),
        Command::Invoke(args) => wait(invoke::run(server()?, args, printer)),
        Command::Status(args) => wait(status::run(server()?, args, printer)),
        Command::Runs(args) => wait(runs::list(server()?, args, printer)),
        Command::Cancel(args) => wait(runs::cancel(server()?, args, printer)),
        Command::Rerun(args) => wait(runs::rerun(server()?, args, printer)),
        Command::Logs(args) => wait(logs::run(server()?, args, printer)),
        Command::List => wait(show::list(server()?, printer)),
        Command::Show(args) => wait(show::show(server()?, args, printer)),
        Command::Delete(args) => wait(show::delete(server()?, args, printer)),
        Command::Trigger { action } => wait(trigger::run(server()?, action, printer)),
        Command::Queues => wait(queues::run(server()?, printer)),
    }
}

/// Runs a future to its end. A command waits for one thing at a time, so the current thread is
/// enough.
fn wait<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Usage(format!("no runtime: {error}")))?;
    runtime.block_on(work)
}
