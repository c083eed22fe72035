//! One case in one language: its calls, in order, and what each must be.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use tokio::sync::RwLock;

use super::calls::Caller;
use super::check::{self, End, Ended, Faults, shortened};
use super::data::{Case, Expect, Next, Status, Suite};
use super::functions::{Functions, NEIGHBOUR, Variant};
use super::machine::{self, Inside, Process};

/// A case that must be this quick is measured alone.
const QUICK_MS: u64 = 1000;
/// How often a time is taken: what else the machine does is not the platform's fault.
const TIMINGS: u32 = 3;
/// What the machine may add to a time, in calls of nothing that are warm and made right before: on a
/// busy machine these take longer, too.
const CALLS_ADDED: u128 = 10;
/// The neighbour must answer within this, however busy the machine is: its own 3 s, and a start.
const NEIGHBOUR_MS_MAX: u128 = 10_000;
const NEIGHBOUR_INTERVAL: Duration = Duration::from_millis(100);
const PROCESSES_INTERVAL: Duration = Duration::from_millis(100);
const MEMORY_INTERVAL: Duration = Duration::from_millis(20);
/// What every function can do.
const WORKS: &str = r#"{"do":"cwd"}"#;

/// What all cases of a backend share.
pub(super) struct Stage<'a> {
    pub(super) caller: Caller<'a>,
    pub(super) suite: &'a Suite,
    pub(super) functions: &'a Functions,
    /// Held alone by a case that is measured.
    pub(super) measured: RwLock<()>,
}

impl Stage<'_> {
    /// Runs a case; tells what was wrong.
    pub(super) async fn run(&self, case: &Case, language: &str) -> Vec<String> {
        let wanted = self.suite.expect(case, language);
        let name = Variant::of(self.suite, case, language).name();
        let mut faults = Faults::default();
        if let Some(why) = self.functions.refused.get(&name) {
            let allowed = wanted.status == Status::FailedOrRefusedAtDeploy;
            faults.unless(allowed && why.contains("exit 3"), || format!("at the deploy: {why}"));
            return faults.0;
        }
        let quick = case.within_ms.is_some_and(|limit| limit < QUICK_MS);
        let (_shared, _alone);
        if quick || wanted.server_growth_mb_max.is_some() {
            _alone = self.measured.write().await;
        } else {
            _shared = self.measured.read().await;
        }
        if let Err(fault) = self.calls(case, &name, &wanted, &mut faults).await {
            faults.0.push(fault);
        }
        faults.0
    }

    /// `Err` where going on makes no sense.
    async fn calls(
        &self,
        case: &Case,
        name: &str,
        wanted: &Expect,
        faults: &mut Faults,
    ) -> Result<(), String> {
        let is_measured = case.within_ms.is_some() || wanted.server_growth_mb_max.is_some();
        if is_measured || !case.then.is_empty() && !case.special.cold {
            self.works(name).await?;
        }
        let warm = if case.within_ms.is_some() { self.works(name).await?.took_ms } else { 0 };
        let ended = self.watched(case, name, wanted, faults).await?;
        check::answer(wanted, &ended, faults);
        self.log(name, &ended, wanted, faults).await?;
        if case.special.cold {
            self.expect_cold(&ended, true, faults).await?;
        }
        if let Some(late) = &wanted.shown_as_late {
            self.caller.shown_as_late(name, late).await?;
        }
        for then in &case.then {
            let ended = self.caller.call(name, then.event.to_string()).await?;
            check::answer(&then.expect, &ended, faults);
            self.log(name, &ended, &then.expect, faults).await?;
            self.expect_cold(&ended, false, faults).await?;
        }
        self.next(case, name, wanted, faults).await?;
        match case.within_ms {
            Some(limit) => self.in_time(case, name, (ended.took_ms, warm), limit).await,
            None => Ok(()),
        }
    }

    /// The case's call, with an eye on the machine or the neighbour where it is about them.
    async fn watched(
        &self,
        case: &Case,
        name: &str,
        wanted: &Expect,
        faults: &mut Faults,
    ) -> Result<Ended, String> {
        if wanted.no_processes_left {
            return self.with_children(case, name, faults).await;
        }
        let call = self.caller.case(case, name);
        if let Some(most) = wanted.server_growth_mb_max {
            let before = machine::memory_mb(self.caller.server());
            let mut peak = before;
            let ended = until(call, watch_memory(self.caller.server(), &mut peak)).await?;
            let grown = peak.saturating_sub(before);
            faults.unless(grown <= most, || format!("the server grew by {grown} MiB, over {most}"));
            return Ok(ended);
        }
        if case.neighbour_answers {
            let mut calls = Vec::new();
            let ended = until(call, self.call_neighbour(&mut calls)).await?;
            let bad: Vec<_> = calls.iter().filter_map(|call| call.as_ref().err()).collect();
            faults.unless(bad.is_empty(), || format!("the neighbour: {bad:?}"));
            faults.unless(!calls.is_empty(), || "the neighbour was never called".into());
            return Ok(ended);
        }
        call.await
    }

    async fn with_children(
        &self,
        case: &Case,
        name: &str,
        faults: &mut Faults,
    ) -> Result<Ended, String> {
        let uid = self.caller.uid(name).await?;
        let mut seen = BTreeMap::new();
        let ended = until(self.caller.case(case, name), watch_processes(uid, &mut seen)).await?;
        let lines = self.caller.log(name, &ended.request_id).await?;
        let child = lines.iter().find_map(|line| line.text.strip_prefix("child "));
        let child: Option<u32> = child.and_then(|id| id.trim().parse().ok());
        let of_child = seen.values().find(|inside| Some(inside.id) == child);
        faults.unless(of_child.is_some(), || format!("child {child:?} was not among {seen:?}"));
        let space = of_child.map(|inside| &inside.space);
        let mine = seen.iter().filter(|(_, inside)| Some(&inside.space) == space);
        let left = machine::left(mine.map(|(process, _)| *process)).await;
        faults.unless(left.is_empty(), || format!("{left:?} are left"));
        Ok(ended)
    }

    async fn call_neighbour(&self, calls: &mut Vec<Result<(), String>>) -> Infallible {
        loop {
            calls.push(match self.caller.call(NEIGHBOUR, WORKS.into()).await {
                Ok(Ended { end: End::Returned(_), took_ms, .. }) if took_ms <= NEIGHBOUR_MS_MAX => {
                    Ok(())
                }
                Ok(other) => Err(format!("{} after {} ms", shortened(&other.end), other.took_ms)),
                Err(fault) => Err(fault),
            });
            tokio::time::sleep(NEIGHBOUR_INTERVAL).await;
        }
    }

    async fn log(
        &self,
        name: &str,
        ended: &Ended,
        wanted: &Expect,
        faults: &mut Faults,
    ) -> Result<(), String> {
        if wanted.needs_log() {
            check::log(wanted, &self.caller.log(name, &ended.request_id).await?, faults);
        }
        Ok(())
    }

    async fn expect_cold(
        &self,
        ended: &Ended,
        wanted: bool,
        faults: &mut Faults,
    ) -> Result<(), String> {
        let cold = self.caller.was_cold(&ended.request_id).await?;
        let kind = |cold| if cold { "a new" } else { "the same" };
        faults.unless(cold == wanted, || {
            format!("it ran on {} sandbox, not on {} one", kind(cold), kind(wanted))
        });
        Ok(())
    }

    async fn works(&self, name: &str) -> Result<Ended, String> {
        let ended = self.caller.call_patiently(name, WORKS).await?;
        match &ended.end {
            End::Returned(text) if String::from_utf8_lossy(text).contains("/var/user") => Ok(ended),
            other => Err(format!("{name} does not work: {}", shortened(other))),
        }
    }

    /// The call after the case.
    async fn next(
        &self,
        case: &Case,
        name: &str,
        wanted: &Expect,
        faults: &mut Faults,
    ) -> Result<(), String> {
        if case.special.handler.is_some() {
            // It cannot work; it says so again.
            let again = self.caller.case(case, name).await?;
            check::answer(wanted, &again, faults);
            return Ok(());
        }
        let next = self.works(name).await.map_err(|fault| format!("the next call: {fault}"))?;
        match case.next.unwrap_or(self.suite.defaults.next) {
            Next::Works => Ok(()),
            Next::Fresh => self.expect_cold(&next, true, faults).await,
        }
    }

    /// Whether it is quick enough at least once. `first` is what the case took, and a call of nothing
    /// before it.
    async fn in_time(
        &self,
        case: &Case,
        name: &str,
        first: (u128, u128),
        limit: u64,
    ) -> Result<(), String> {
        let mut all = vec![first];
        let is_late = |(took, warm): &(u128, u128)| u128::from(limit) + CALLS_ADDED * warm < *took;
        while all.iter().all(is_late) {
            if all.len() >= TIMINGS as usize {
                return Err(format!("it and a call of nothing took {all:?} ms, over {limit}"));
            }
            self.works(name).await?;
            let warm = self.works(name).await?.took_ms;
            all.push((self.caller.case(case, name).await?.took_ms, warm));
        }
        self.works(name).await.map(drop)
    }
}

/// The work's outcome; beside it `other` goes on until then.
async fn until<T>(work: impl Future<Output = T>, other: impl Future<Output = Infallible>) -> T {
    tokio::select! {
        done = work => done,
        never = other => match never {},
    }
}

async fn watch_processes(uid: u32, seen: &mut BTreeMap<Process, Inside>) -> Infallible {
    loop {
        seen.extend(machine::sandboxed(uid));
        tokio::time::sleep(PROCESSES_INTERVAL).await;
    }
}

async fn watch_memory(server: u32, peak: &mut u64) -> Infallible {
    loop {
        *peak = machine::memory_mb(server).max(*peak);
        tokio::time::sleep(MEMORY_INTERVAL).await;
    }
}
