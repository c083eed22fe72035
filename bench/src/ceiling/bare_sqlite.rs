//! A bare group-committed insert: producers, and a writer that commits all waiting rows together.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::{Connection, params};

/// Most rows in one transaction, as in hanshu's queue.
const GROUP_MAX: usize = 256;

/// One row, and the producer that waits until it is on disk. Bounded by the number of producers.
type InsertJob = (u64, Sender<()>);

/// Rows per second that this many producers get to disk, with WAL and `synchronous = FULL`.
///
/// # Errors
/// If the database fails.
pub(crate) fn inserted_per_second(
    dir: &Path,
    payload: &[u8],
    producers: u64,
    time: Duration,
) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(dir)?;
    let mut database = Connection::open(folder.path().join("bare.db"))?;
    database.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE event (id INTEGER PRIMARY KEY, payload BLOB NOT NULL);",
    )?;
    let (jobs, waiting) = channel::<InsertJob>();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || write(&mut database, &waiting, payload));
        for producer in 0..producers {
            let jobs = jobs.clone();
            scope.spawn(move || produce(&jobs, producer << 32, begun + time));
        }
        drop(jobs);
        let rows = writer.join().ok().context("the writer broke off")??;
        Ok(crate::wrk::as_f64(rows) / begun.elapsed().as_secs_f64())
    })
}

/// Inserts one row at a time, waiting for each.
fn produce(jobs: &Sender<InsertJob>, first: u64, until: Instant) {
    let (done, answer) = channel();
    for id in first.. {
        if until <= Instant::now()
            || jobs.send((id, done.clone())).is_err()
            || answer.recv().is_err()
        {
            return;
        }
    }
}

fn write(
    database: &mut Connection,
    jobs: &Receiver<InsertJob>,
    payload: &[u8],
) -> anyhow::Result<u64> {
    let mut rows = 0;
    while let Ok(first) = jobs.recv() {
        let group: Vec<InsertJob> =
            std::iter::once(first).chain(jobs.try_iter()).take(GROUP_MAX).collect();
        let transaction = database.transaction()?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO event (id, payload) VALUES (?1, ?2)")?;
            for (id, _) in &group {
                insert.execute(params![i64::try_from(*id)?, payload])?;
            }
        }
        transaction.commit()?;
        for (_, done) in &group {
            // A producer whose time is over no longer listens.
            let _ = done.send(());
            rows += 1;
        }
    }
    Ok(rows)
}
