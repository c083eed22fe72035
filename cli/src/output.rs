//! Printing: data goes to stdout, notes and progress to stderr. Colour is used on a terminal only,
//! and never the only signal.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::OutputFormat;
use crate::error::Error;

/// Work that takes longer than this is reported.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
/// How often the spinner moves.
const SPIN_INTERVAL: Duration = Duration::from_millis(250);

/// Prints the results of a command, as text or as JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    output: OutputFormat,
}

/// Progress of some work: printed to stderr once it has taken [`PROGRESS_AFTER`]. Dropping it ends
/// the report.
#[derive(Debug)]
pub(crate) struct Progress {
    shared: Arc<ProgressShared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct ProgressShared {
    state: Mutex<ProgressState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct ProgressState {
    text: String,
    /// Whether the text is a later step, which is printed where stderr is no terminal, too.
    is_step: bool,
    is_over: bool,
}

impl Printer {
    pub(crate) fn new(output: OutputFormat) -> Self {
        Self { output }
    }

    /// Prints the value as JSON, or as `text` formats it.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Error> {
        match self.output {
            OutputFormat::Text => self.line(text(value).trim_end()),
            OutputFormat::Json => {
                let json = serde_json::to_string_pretty(value).map_err(|error| {
                    Error::Answer(format!("cannot be written as JSON: {error}"))
                })?;
                self.line(json)
            }
        }
    }

    /// Whether the output is JSON.
    pub(crate) fn is_json(self) -> bool {
        self.output == OutputFormat::Json
    }

    /// Prints one line to stdout.
    pub(crate) fn line(self, text: impl Display) -> Result<(), Error> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints bytes to stdout. A closed pipe is no error.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Error::Usage(format!("stdout cannot be written: {error}"))),
        }
    }

    /// Prints one line to stderr.
    pub(crate) fn note(self, text: impl Display) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Reports work until the returned value is dropped.
    pub(crate) fn progress(self, what: impl Into<String>) -> Progress {
        let shared = Arc::new(ProgressShared::default());
        shared.change(|state| state.text = what.into());
        let for_thread = shared.clone();
        // If the thread cannot be started, nothing is reported and the work goes on.
        let thread = std::thread::Builder::new().spawn(move || report(&for_thread)).ok();
        Progress { shared, thread }
    }
}

impl Progress {
    /// Names the step that begins now.
    pub(crate) fn step(&self, what: &str) {
        self.shared.change(|state| {
            what.clone_into(&mut state.text);
            state.is_step = true;
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.change(|state| state.is_over = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl ProgressShared {
    fn change(&self, change: impl FnOnce(&mut ProgressState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

/// Prints nothing for [`PROGRESS_AFTER`]; then one changing line on a terminal, else a line for each
/// step.
fn report(shared: &ProgressShared) {
    let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = shared.changed.wait_timeout_while(state, PROGRESS_AFTER, |state| !state.is_over);
    let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
    if state.is_over {
        return;
    }
    let bar = std::io::stderr().is_terminal().then(spinner);
    let mut printed = String::new();
    while !state.is_over {
        if printed != state.text {
            printed.clone_from(&state.text);
            match &bar {
                Some(bar) => bar.set_message(printed.clone()),
                None if state.is_step => drop(writeln!(std::io::stderr(), "  {printed}")),
                None => {}
            }
        }
        let waited =
            shared.changed.wait_while(state, |state| !state.is_over && state.text == printed);
        state = waited.unwrap_or_else(PoisonError::into_inner);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_elapsed(PROGRESS_AFTER);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(SPIN_INTERVAL);
    bar
}

/// Bold if stdout is a terminal and `NO_COLOR` is not set, else plain.
pub(crate) fn bold(text: impl Display) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if std::io::stdout().is_terminal() && !plain {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}

/// A table with aligned columns.
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

/// A rounded age, such as `3 s`, `5 min`, `2 h` or `4 d`.
pub(crate) fn format_age(seconds: u64) -> String {
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
