//! Logging of the server itself.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Config, LogFormat};
use crate::error::Error;

/// PostgreSQL's notices, such as that a table exists, come at every start.
const QUIET: &str = "sqlx::postgres::notice=warn";

/// Starts logging to standard error. Called once, by the program and not by tests.
///
/// # Errors
/// [`Error::Config`]: the filter cannot be read, or logging was started before.
pub fn start_logging(config: &Config) -> Result<(), Error> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log)).map_err(|error| {
        Error::Config(format!("`log` is `{}`: expected `info`, `debug` or a filter such as `info,hanshu_invoker=debug` ({error})", config.log))
    })?;
    let colour = std::io::stderr().is_terminal();
    // `tracing` reports a log that cannot be written (full disk) on standard error, and would panic
    // if that fails too: the server must go on.
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .log_internal_errors(false);
    let started = match config.log_format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Error::Config(format!("logging was started before: {error}")))
}
