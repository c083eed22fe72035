//! Log lines of the server itself, and the recorder of its metrics.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Config, LogFormat};
use crate::error::Error;

/// What PostgreSQL remarks at every start (a table that is there already) is no news.
const QUIET: &str = "sqlx::postgres::notice=warn";

/// Starts logging to standard error. To be called once, by the program (not by tests).
///
/// # Errors
/// [`Error::Config`]: the filter cannot be read, or logging was started before.
pub fn start_logging(config: &Config) -> Result<(), Error> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log)).map_err(|error| {
        Error::Config(format!("`log` is `{}`: expected `info`, `debug` or a filter such as `info,hanshu_invoker=debug` ({error})", config.log))
    })?;
    let colour = std::io::stderr().is_terminal();
    // A log that cannot be written (its disk is full) must not end the server: what is said of that
    // on standard error would panic there.
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

/// The process' recorder of metrics, installed at the first call; `None` if another one was.
pub(crate) fn recorder() -> Option<PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().ok()).clone()
}

/// Between two rounds of upkeep.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Folds samples together, so that they do not pile up where nobody reads `/metrics`.
pub(crate) async fn upkeep(stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL)).await.is_some() {
        if let Some(recorder) = recorder() {
            recorder.run_upkeep();
        }
    }
}
