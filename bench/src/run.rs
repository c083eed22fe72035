//! One run of the suite: its settings, its folder, and what rows learn for each other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// How long, how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub(crate) repeats: u32,
    /// Seconds of each timed piece of load.
    pub(crate) seconds: u64,
    /// Fewer samples where a row counts its own.
    pub(crate) quick: bool,
}

#[derive(Debug)]
pub(crate) struct Run {
    /// The program under test.
    pub(crate) program: PathBuf,
    pub(crate) measure: Measure,
    folder: TempDir,
    /// How many workers of a ceiling served best, by what was asked of them.
    best: Mutex<HashMap<String, u32>>,
}

impl Run {
    /// # Errors
    /// Where no temporary folder can be made.
    pub(crate) fn new(program: PathBuf, measure: Measure) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("hb-").tempdir()?;
        Ok(Self { program, measure, folder, best: Mutex::default() })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Samples of a row that counts its own.
    pub(crate) fn samples(&self, many: usize, quick: usize) -> usize {
        if self.measure.quick { quick } else { many }
    }

    pub(crate) fn best(&self, of: &str) -> Option<u32> {
        self.best.lock().unwrap_or_else(PoisonError::into_inner).get(of).copied()
    }

    pub(crate) fn keep_best(&self, of: String, workers: u32) {
        self.best.lock().unwrap_or_else(PoisonError::into_inner).insert(of, workers);
    }
}

/// Where the sources of this crate are: functions and workers.
pub(crate) fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The time of day, for what a timer is due at and for the report's date.
#[expect(clippy::disallowed_methods, reason = "no test reads it")]
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
