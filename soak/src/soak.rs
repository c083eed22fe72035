//! A soak from beginning to end, within the cage.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checks::{Counts, Moment, check};
use crate::chronicle::Chronicle;
use crate::field::{Field, LAST_BLOW};
use crate::ledger::Ledger;
use crate::load::{World, start};
use crate::plan::{WORLDS, name, plan};
use crate::report::{Outline, Report, print, progress};
use crate::samples::{Sample, grown, of_process, watch};
use crate::settle::{self, GHOST_WATCH};
use crate::{Options, collector};

/// Timers know their triggers so soon after a deploy.
const TIMERS_KNOWN: Duration = Duration::from_secs(3);
/// A tick that could not be queued is tried again within 5 s: the last ones get so long.
const LAST_TICKS: Duration = Duration::from_secs(8);
/// The longest wait for the calls that clients are at.
const LAST_CALL: Duration = Duration::from_secs(120);
/// From this length on it is checked whether anything grows.
const LONG: Duration = Duration::from_secs(300);

/// What the load showed.
struct Loaded {
    samples: Vec<Sample>,
    ticking: (Moment, Moment),
}

/// The whole soak; 0 if all is well, 1 if not.
///
/// # Errors
/// It could not be prepared, or what it stands on broke for good.
pub(crate) async fn soak(options: Options) -> anyhow::Result<u8> {
    let work = options.work.clone().context("the cage was entered without a folder")?;
    let seed = options.seed.context("the cage was entered without a seed")?;
    let chronicle = Arc::new(Chronicle::new());
    progress(&format!("seed {seed}, {:?} of load on {}", options.length, options.hanshu.display()));
    let soaked = in_order(&options, &work, seed, &chronicle).await;
    let report = match soaked {
        Ok(report) => report,
        Err(error) => {
            chronicle.wrong(format!("the soak could not go on: {error:#}"));
            Report::default()
        }
    };
    let well = chronicle.wrongs().0 == 0;
    print(&Outline { seed, length: options.length }, &report, &chronicle);
    if !well && options.keep {
        std::fs::write(work.join("line-of-events"), chronicle.lines().join("\n"))?;
        progress(&format!("kept in {}", work.display()));
    }
    Ok(u8::from(!well))
}

async fn in_order(
    options: &Options,
    work: &Path,
    seed: u64,
    chronicle: &Arc<Chronicle>,
) -> anyhow::Result<Report> {
    let ledgers: Vec<_> = (0..WORLDS).map(|_| Arc::new(Ledger::default())).collect();
    let listener = collector::listen()?;
    let tasks = TaskTracker::new();
    tasks.spawn(collector::collect(listener, Arc::new(ledgers.clone()), tasks.clone()));
    let field = Arc::new(Field::prepare(work, &options.hanshu, chronicle.clone()).await?);
    let mut worlds = Vec::new();
    let mut new = Vec::new();
    let mut before = HashSet::new();
    for (index, (site, ledger)) in field.sites.iter().zip(ledgers).enumerate() {
        let server = site.server.lock().await;
        let access = server.access()?;
        new.push(of_process(server.pid().unwrap_or_default()).descriptors);
        before.extend(settle::files(&site.data).into_iter().filter(|file| file.contains("docker")));
        worlds.push(World { index, access, ledger, chronicle: chronicle.clone() });
    }
    progress("both servers are up");
    let loaded = load(&field, &worlds, options.length, seed).await?;
    progress("the load is over; waiting for the end of what was accepted");
    sleep(LAST_TICKS).await;
    let begun = Instant::now();
    for (world, site) in worlds.iter().zip(&field.sites) {
        settle::settle(world, site).await;
    }
    let drained = begun.elapsed();
    sleep(GHOST_WATCH).await;
    let mut counts: Vec<Counts> = Vec::new();
    let mut descriptors = Vec::new();
    for ((world, site), new) in worlds.iter().zip(&field.sites).zip(new) {
        settle::quiet(world).await;
        descriptors.push((new, settle::descriptors(world, site, new).await));
        counts.push(check(world, loaded.ticking));
    }
    for world in &worlds {
        settle::stop(world, &field, &before).await.with_context(|| name(world.index))?;
    }
    field.end_forgotten().await?;
    for each in settle::leftovers(&field).await? {
        chronicle.wrong(format!("left over: {each}"));
    }
    if LONG <= options.length {
        grown(&loaded.samples, chronicle);
    }
    let tallies = worlds.iter().map(|world| world.ledger.tally()).collect();
    let forgotten = field.forgotten.load(Ordering::Relaxed);
    let field = Arc::into_inner(field).context("somebody still uses the field")?;
    if let Err(error) = field.tear_down().await {
        chronicle.wrong(format!("the end: {error:#}"));
    }
    let samples = loaded.samples;
    Ok(Report { tallies, counts, descriptors, samples, drained, forgotten })
}

/// All clients and all blows, for so long.
async fn load(
    field: &Arc<Field>,
    worlds: &[World],
    length: Duration,
    seed: u64,
) -> anyhow::Result<Loaded> {
    sleep(TIMERS_KNOWN).await;
    let chronicle = worlds.first().context("no servers")?.chronicle.clone();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let from = Moment::now();
    chronicle.note("the load begins");
    for world in worlds {
        start(world, seed, &stop, &tasks);
    }
    let watched = watch(field.clone(), chronicle.clone(), length, stop.clone());
    let watched = tasks.spawn(watched);
    let blows = tasks.spawn(field.clone().befall(plan(seed, length)));
    sleep(length).await;
    timeout(LAST_BLOW, blows).await.context("a fault does not end")??;
    let until = Moment::now();
    chronicle.note("the load ends");
    stop.cancel();
    tasks.close();
    if timeout(LAST_CALL, tasks.wait()).await.is_err() {
        chronicle.wrong(format!("clients still wait for answers after {LAST_CALL:?}"));
    }
    Ok(Loaded { samples: watched.await?, ticking: (from, until) })
}
