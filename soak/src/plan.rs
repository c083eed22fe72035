//! What befalls the servers, and when. Pure: the same seed and length give the same plan.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// One blow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One process of a sandbox is killed with -9.
    KillSandbox { world: usize },
    /// A container is removed by hand.
    RemoveContainer { world: usize },
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
    KillServer { world: usize },
    /// The disk of the data folder is full, later not.
    FillDisk { world: usize },
}

/// A blow with its time, how long what it takes stays away, and a number to choose a victim by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blow {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
    pub(crate) pick: u64,
}

/// Servers: with everything inside, and on PostgreSQL and Redis.
pub(crate) const WORLDS: usize = 2;
/// The one on PostgreSQL and Redis.
pub(crate) const SERVICES: usize = 1;

/// Nothing befalls the servers at the beginning and the end.
const QUIET: Duration = Duration::from_secs(3);
/// Longest time that something stays away, milliseconds.
const LASTS_MS: std::ops::Range<u64> = 50..4_000;
/// From this length on servers are killed in the first half only, so that the second half shows
/// whether a server's memory grows.
const LONG: Duration = Duration::from_secs(300);

/// The whole plan, in order of time.
pub(crate) fn plan(seed: u64, length: Duration) -> Vec<Blow> {
    let mut rng = StdRng::seed_from_u64(seed);
    let worlds = 0..WORLDS;
    let light: Vec<Fault> = worlds
        .clone()
        .flat_map(|world| [Fault::KillSandbox { world }, Fault::RemoveContainer { world }])
        .collect();
    let mut heavy = vec![
        Fault::StopEngine,
        Fault::KillEngine,
        Fault::KillRedis,
        Fault::PauseRedis,
        Fault::StopPostgres,
    ];
    heavy.extend(worlds.flat_map(|world| [Fault::KillServer { world }, Fault::FillDisk { world }]));
    // Each once in a minute; in longer runs there are lulls, in which nothing excuses anything.
    let (light_gap_ms, heavy_gap_ms) =
        if length < LONG { (1_000..5_000, 3_000..8_000) } else { (2_000..14_000, 2_000..40_000) };
    let mut blows = track(&mut rng, length, &light, light_gap_ms);
    blows.extend(track(&mut rng, length, &heavy, heavy_gap_ms));
    if LONG <= length {
        let kills = |blow: &Blow| matches!(blow.fault, Fault::KillServer { .. });
        blows.retain(|blow| blow.at < length / 2 || !kills(blow));
    }
    blows.sort_by_key(|blow| blow.at);
    blows
}

/// Faults like cards from a shuffled deck, so that each comes about equally often.
fn track(
    rng: &mut StdRng,
    length: Duration,
    deck: &[Fault],
    gap_ms: std::ops::Range<u64>,
) -> Vec<Blow> {
    let mut blows = Vec::new();
    let mut cards = Vec::new();
    let mut at = QUIET;
    loop {
        at += Duration::from_millis(rng.random_range(gap_ms.clone()));
        let lasts = Duration::from_millis(rng.random_range(LASTS_MS));
        if length < at + lasts + QUIET {
            return blows;
        }
        if cards.is_empty() {
            cards = deck.to_vec();
            cards.shuffle(rng);
        }
        let Some(fault) = cards.pop() else { return blows };
        blows.push(Blow { at, fault, lasts, pick: rng.random() });
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillSandbox { world } => write!(f, "kill -9 in a sandbox of {}", name(*world)),
            Self::RemoveContainer { world } => write!(f, "remove a container of {}", name(*world)),
            Self::StopEngine => f.write_str("restart dockerd"),
            Self::KillEngine => f.write_str("kill -9 dockerd"),
            Self::KillRedis => f.write_str("kill -9 Redis"),
            Self::PauseRedis => f.write_str("pause Redis"),
            Self::StopPostgres => f.write_str("stop PostgreSQL at once"),
            Self::KillServer { world } => write!(f, "kill -9 the server {}", name(*world)),
            Self::FillDisk { world } => write!(f, "fill the disk of {}", name(*world)),
        }
    }
}

/// What the server with this number is called.
pub(crate) fn name(world: usize) -> &'static str {
    if world == SERVICES { "services" } else { "embedded" }
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
            let mut kinds: Vec<_> = plan.iter().map(|blow| blow.fault.to_string()).collect();
            kinds.sort();
            kinds.dedup();
            assert!(10 <= kinds.len(), "seed {seed}: {kinds:?}");
            assert!(plan.iter().all(|blow| blow.at + blow.lasts + QUIET <= MINUTE));
            assert!(plan.is_sorted_by_key(|blow| blow.at));
        }
    }

    #[test]
    fn no_server_is_killed_in_the_second_half_of_a_long_run() {
        let length = Duration::from_secs(3_600);
        let plan = plan(1, length);
        let kills: Vec<_> =
            plan.iter().filter(|b| matches!(b.fault, Fault::KillServer { .. })).collect();
        assert!(10 < kills.len());
        assert!(kills.iter().all(|blow| blow.at < length / 2));
    }
}
