//! `hanshu serve` runs the server until it is stopped.

use hanshu_server::{Config, Server, start_logging};

use crate::args::ServeArgs;
use crate::error::{CommandStatus, Error};
use crate::output::Printer;

pub(super) fn run(flags: &ServeArgs, printer: Printer) -> Result<CommandStatus, Error> {
    let config = Config::load(flags.config.as_deref(), flags).map_err(failed)?;
    start_logging(&config).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("hanshu-general")
        .enable_all()
        .build()
        .map_err(|error| Error::Usage(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let server = Server::start(config).await.map_err(failed)?;
        printer.note(server.welcome());
        server.run().await.map_err(failed)
    })?;
    Ok(CommandStatus::Done)
}

fn failed(error: hanshu_server::Error) -> Error {
    Error::Usage(error.to_string())
}
