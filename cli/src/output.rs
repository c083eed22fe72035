//! What is printed, and where: data on stdout, talk on stderr; colour only on a terminal, and
//! never the only signal.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::Output;
use crate::error::Error;

/// Work that takes longer than this is shown.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
/// Between two pictures of the spinner.
const SPIN_INTERVAL: Duration = Duration::from_millis(250);

/// Where a command prints to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    output: Output,
}

/// What is told on standard error while work goes on, if it takes over a second.
#[derive(Debug)]
pub(crate) struct Progress {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    shown: Mutex<Shown>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Shown {
    text: String,
    /// Said after the start: worth a line in a script's log, too.
    is_step: bool,
    over: bool,
}

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

    /// Shows work, from its second second on.
    pub(crate) fn progress(self, what: impl Into<String>) -> Progress {
        let shared = Arc::new(Shared::default());
        shared.change(|shown| shown.text = what.into());
        let teller = shared.clone();
        // Without a thread nothing is told; the work goes on.
        let thread = std::thread::Builder::new().spawn(move || tell(&teller)).ok();
        Progress { shared, thread }
    }
}

impl Progress {
    /// What is done now.
    pub(crate) fn say(&self, what: &str) {
        self.shared.change(|shown| {
            what.clone_into(&mut shown.text);
            shown.is_step = true;
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.change(|shown| shown.over = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

/// Keeps silent for a second; then a line that changes on a terminal, a line for each step
/// elsewhere.
fn tell(shared: &Shared) {
    let shown = shared.shown.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = shared.changed.wait_timeout_while(shown, PROGRESS_AFTER, |shown| !shown.over);
    let mut shown = waited.unwrap_or_else(PoisonError::into_inner).0;
    if shown.over {
        return;
    }
    let bar = std::io::stderr().is_terminal().then(spinner);
    let mut told = String::new();
    while !shown.over {
        if told != shown.text {
            told.clone_from(&shown.text);
            match &bar {
                Some(bar) => bar.set_message(told.clone()),
                None if shown.is_step => drop(writeln!(std::io::stderr(), "  {told}")),
                None => {}
            }
        }
        let waited = shared.changed.wait_while(shown, |shown| !shown.over && shown.text == told);
        shown = waited.unwrap_or_else(PoisonError::into_inner);
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
