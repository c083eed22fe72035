//! One run of the benchmark: its settings, its working folder, and results that rows share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MeasureSettings {
    pub(crate) repeats: u32,
    /// Seconds of each timed load.
    pub(crate) seconds: u64,
    /// Rows that choose their number of samples take fewer.
    pub(crate) quick: bool,
}

#[derive(Debug)]
pub(crate) struct BenchRun {
    /// The program to test.
    pub(crate) program: PathBuf,
    pub(crate) measure: MeasureSettings,
    folder: TempDir,
    /// The number of ceiling workers that served best, by language, connections and event size.
    best: Mutex<HashMap<String, u32>>,
}

impl BenchRun {
    /// # Errors
    /// If no temporary folder can be made.
    pub(crate) fn new(program: PathBuf, measure: MeasureSettings) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("hb-").tempdir()?;
        Ok(Self { program, measure, folder, best: Mutex::default() })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The number of samples for a row that chooses its own.
    pub(crate) fn samples(&self, many: usize, quick: usize) -> usize {
        if self.measure.quick { quick } else { many }
    }

    pub(crate) fn best(&self, of: &str) -> Option<u32> {
        self.best.lock().unwrap_or_else(PoisonError::into_inner).get(of).copied()
    }

    pub(crate) fn keep_worker_count(&self, of: String, workers: u32) {
        self.best.lock().unwrap_or_else(PoisonError::into_inner).insert(of, workers);
    }
}

/// The folder of this crate, with the functions and workers.
pub(crate) fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The time of day, for timers and the report's date.
#[expect(clippy::disallowed_methods, reason = "no test reads it")]
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
