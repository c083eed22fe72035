//! What is printed, and where: data on stdout, talk on stderr; colour only on a terminal, and
//! never the only signal.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::Output;
use crate::error::Error;

/// Work that takes longer than this is shown.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

/// Where a command prints to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    output: Output,
}

/// A line on a terminal's standard error while work goes on; nothing elsewhere.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Printer {
    pub(crate) fn new(output: Output) -> Self {
        Self { output }
    }

    /// JSON alone, or what `text` prints.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Error> {
        match self.output {
            Output::Text => self.line(text(value).trim_end()),
            Output::Json => {
                let json = serde_json::to_string_pretty(value).map_err(|error| {
                    Error::Answer(format!("cannot be written as JSON: {error}"))
                })?;
                self.line(json)
            }
        }
    }

    /// Whether programs read.
    pub(crate) fn is_json(self) -> bool {
        self.output == Output::Json
    }

    /// One line on stdout.
    pub(crate) fn line(self, text: impl Display) -> Result<(), Error> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Bytes on stdout. A reader that has gone away is no error.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Error::Usage(format!("stdout cannot be written: {error}"))),
        }
    }

    /// Talk, on stderr.
    pub(crate) fn note(self, text: impl Display) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Shows work that takes over a second.
    pub(crate) fn progress(self, what: impl Into<String>) -> Progress {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what.into());
        bar.enable_steady_tick(PROGRESS_AFTER);
        Progress(bar)
    }
}

impl Progress {
    /// What is done now. Where there is no terminal, a line.
    pub(crate) fn say(&self, what: &str) {
        if self.0.is_hidden() {
            let _ = writeln!(std::io::stderr(), "  {what}");
        } else {
            self.0.set_message(what.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Bold on a terminal's stdout, plain elsewhere and where `NO_COLOR` is set.
pub(crate) fn bold(text: impl Display) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if std::io::stdout().is_terminal() && !plain {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}

/// Aligned columns under a head.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text = bold(line(head)) + "\n";
    for row in rows {
        text += &line(row.each_ref().map(String::as_str));
        text.push('\n');
    }
    text
}

/// `3 s`, `5 min`, `2 h`: for people.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["hello".to_owned(), "python".to_owned()], ["a".to_owned(), "go".to_owned()]];
        assert_eq!(table(["NAME", "RUNTIME"], &rows), "NAME   RUNTIME\nhello  python\na      go\n");
    }
}
