//! Which faults are injected, and when. Pure: the same seed and length give the same plan.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// What is broken, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// One process of a sandbox is killed with -9.
    KillSandbox { server: usize },
    /// A container is removed by hand.
    RemoveContainer { server: usize },
    /// `dockerd` is told to stop, and started.
    StopEngine,
    /// `dockerd` is killed with -9, and started.
    KillEngine,
    /// Redis is killed with -9, and started.
    KillRedis,
    /// Redis gets SIGSTOP, later SIGCONT.
    PauseRedis,
    /// PostgreSQL stops at once, and is started.
    StopPostgres,
    /// The server is killed with -9, and started.
    KillServer { server: usize },
    /// The disk of the data folder is full, later not.
    FillDisk { server: usize },
}

/// One fault of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedFault {
    /// Since the load began.
    pub(crate) at: Duration,
    pub(crate) kind: FaultKind,
    /// How long until what was broken is started or freed again.
    pub(crate) duration: Duration,
    /// A random number to choose a sandbox and a process by.
    pub(crate) victim: u64,
}

/// Servers under test: one on SQLite, one on PostgreSQL and Redis.
pub(crate) const SERVER_COUNT: usize = 2;
/// Index of the server on PostgreSQL and Redis.
pub(crate) const SERVICES_SERVER: usize = 1;

/// No fault this soon after the beginning and this late before the end.
const QUIET_TIME: Duration = Duration::from_secs(3);
/// How long a fault lasts, milliseconds.
const DURATION_MS: std::ops::Range<u64> = 50..4_000;
/// From this length on servers are killed in the first half only, so that the second half shows
/// whether a server's memory grows.
const LONG: Duration = Duration::from_secs(300);

/// All faults of a soak, in the order of time.
pub(crate) fn plan(seed: u64, length: Duration) -> Vec<PlannedFault> {
    let mut rng = StdRng::seed_from_u64(seed);
    let servers = 0..SERVER_COUNT;
    let light: Vec<FaultKind> = servers
        .clone()
        .flat_map(|server| {
            [FaultKind::KillSandbox { server }, FaultKind::RemoveContainer { server }]
        })
        .collect();
    let mut heavy = vec![
        FaultKind::StopEngine,
        FaultKind::KillEngine,
        FaultKind::KillRedis,
        FaultKind::PauseRedis,
        FaultKind::StopPostgres,
    ];
    heavy.extend(
        servers
            .flat_map(|server| [FaultKind::KillServer { server }, FaultKind::FillDisk { server }]),
    );
    // Each once in a minute; longer runs have pauses, in which no fault explains a failed call.
    let (light_gap_ms, heavy_gap_ms) =
        if length < LONG { (1_000..5_000, 3_000..8_000) } else { (2_000..14_000, 2_000..40_000) };
    let mut faults = schedule(&mut rng, length, &light, light_gap_ms);
    faults.extend(schedule(&mut rng, length, &heavy, heavy_gap_ms));
    if LONG <= length {
        let kills = |fault: &PlannedFault| matches!(fault.kind, FaultKind::KillServer { .. });
        faults.retain(|fault| fault.at < length / 2 || !kills(fault));
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// Draws faults from a shuffled deck that is refilled when empty, so that each comes about equally
/// often.
fn schedule(
    rng: &mut StdRng,
    length: Duration,
    deck: &[FaultKind],
    gap_ms: std::ops::Range<u64>,
) -> Vec<PlannedFault> {
    let mut faults = Vec::new();
    let mut cards = Vec::new();
    let mut at = QUIET_TIME;
    loop {
        at += Duration::from_millis(rng.random_range(gap_ms.clone()));
        let duration = Duration::from_millis(rng.random_range(DURATION_MS));
        if length < at + duration + QUIET_TIME {
            return faults;
        }
        if cards.is_empty() {
            cards = deck.to_vec();
            cards.shuffle(rng);
        }
        let Some(kind) = cards.pop() else { return faults };
        faults.push(PlannedFault { at, kind, duration, victim: rng.random() });
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillSandbox { server } => {
                write!(f, "kill -9 in a sandbox of {}", server_name(*server))
            }
            Self::RemoveContainer { server } => {
                write!(f, "remove a container of {}", server_name(*server))
            }
            Self::StopEngine => f.write_str("restart dockerd"),
            Self::KillEngine => f.write_str("kill -9 dockerd"),
            Self::KillRedis => f.write_str("kill -9 Redis"),
            Self::PauseRedis => f.write_str("pause Redis"),
            Self::StopPostgres => f.write_str("stop PostgreSQL at once"),
            Self::KillServer { server } => write!(f, "kill -9 the server {}", server_name(*server)),
            Self::FillDisk { server } => write!(f, "fill the disk of {}", server_name(*server)),
        }
    }
}

/// What the server with this index is called.
pub(crate) fn server_name(server: usize) -> &'static str {
    if server == SERVICES_SERVER { "services" } else { "embedded" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        assert_eq!(plan(7, MINUTE), plan(7, MINUTE));
        assert_ne!(plan(7, MINUTE), plan(8, MINUTE));
    }

    #[test]
    fn a_minute_holds_every_fault_and_ends_quietly() {
        for seed in 0..50 {
            let plan = plan(seed, MINUTE);
            let mut kinds: Vec<_> = plan.iter().map(|fault| fault.kind.to_string()).collect();
            kinds.sort();
            kinds.dedup();
            assert!(10 <= kinds.len(), "seed {seed}: {kinds:?}");
            assert!(plan.iter().all(|fault| fault.at + fault.duration + QUIET_TIME <= MINUTE));
            assert!(plan.is_sorted_by_key(|fault| fault.at));
        }
    }

    #[test]
    fn no_server_is_killed_in_the_second_half_of_a_long_run() {
        let length = Duration::from_secs(3_600);
        let plan = plan(1, length);
        let kills: Vec<_> =
            plan.iter().filter(|b| matches!(b.kind, FaultKind::KillServer { .. })).collect();
        assert!(10 < kills.len());
        assert!(kills.iter().all(|fault| fault.at < length / 2));
    }
}
