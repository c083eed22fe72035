//! `hanshu logs` prints and follows a function's log.

use std::time::Duration;

use hanshu_api::LogFilter;
use hanshu_api::wire::LogLineView;

use crate::args::LogsArgs;
use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::Printer;

/// How long the server is asked to wait for new lines.
const FOLLOW_WAIT_S: u64 = 20;
/// Journal entries a page.
const PAGE_ENTRIES: usize = 1_000;
/// Between attempts to reach a server that went away while following.
const RETRY_DELAY: Duration = Duration::from_secs(1);

pub(super) async fn run(
    server: ServerConnection,
    args: &LogsArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let since = args.since.as_deref().map(|text| moment("--since", text)).transpose()?;
    let mut after: Option<String> = None;
    loop {
        let filter = LogFilter {
            since: since.clone().filter(|_| after.is_none()),
            request_id: args.request_id.clone(),
            after: after.clone(),
            limit: Some(PAGE_ENTRIES),
            wait: (args.follow && after.is_some()).then_some(FOLLOW_WAIT_S),
        };
        let page = server.client.read_logs(server.function(&args.name), &filter).await;
        let page = match page.map_err(Error::from) {
            Ok(page) => page,
            Err(Error::Unreachable(why)) if args.follow && after.is_some() => {
                printer.note(format!("{why}\ntrying again …"));
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        for line in &page.lines {
            print(line, printer)?;
        }
        let more = !page.lines.is_empty() && (since.is_some() || after.is_some());
        after = Some(page.next);
        if !args.follow && !more {
            return Ok(CommandStatus::Done);
        }
    }
}

fn print(line: &LogLineView, printer: Printer) -> Result<(), Error> {
    if printer.is_json() {
        let json = serde_json::to_string(line);
        return printer.line(json.map_err(|error| Error::Answer(error.to_string()))?);
    }
    let late = if line.request_id.is_none() { "(late) " } else { "" };
    printer.line(format!("{:.3} {late}{}", line.time, line.text))
}

/// `30s`, `10m`, `2h`, `1d` ago, or an RFC 3339 time.
pub(super) fn moment(flag: &str, text: &str) -> Result<String, Error> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.to_string());
    }
    let wrong = || {
        Error::Usage(format!("{flag} is `{text}`: expected 30s, 10m, 2h, 1d or an RFC 3339 time"))
    };
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let age = number
        .checked_mul(seconds)
        .filter(|age| (0..=31_536_000).contains(age))
        .ok_or_else(wrong)?;
    let now = hanshu_core::Clock::now(&hanshu_core::SystemClock);
    Ok((now - jiff::SignedDuration::from_secs(age)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read() {
        for good in ["30s", "10m", "2h", "1d", "2026-01-01T00:00:00Z"] {
            assert!(moment("--since", good).is_ok(), "{good}");
        }
        for bad in ["", "m", "10", "-5m", "10y", "é", "99999999999999999999s"] {
            assert!(moment("--since", bad).is_err(), "{bad}");
        }
    }
}
