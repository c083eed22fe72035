//! How many prewarmed sandboxes of which kind are worth their memory. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The window of the average of cold starts.
const WINDOW: Duration = Duration::from_secs(30);
/// So much of the average's cold starts are prepared for: what is used is replaced within it.
const AHEAD: Duration = Duration::from_secs(2);
/// A kind that nobody needed for so long, and that no function is of, gets none.
const MEMORY_OF_USE: Duration = Duration::from_secs(600);

/// How a kind of sandbox was asked for lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PrewarmDemand {
    /// Cold starts a second, on average, at `last`.
    rate: f64,
    pub(super) last: Option<Instant>,
    /// Whether there are functions of this kind.
    pub(super) expected: bool,
}

/// What an operator allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct PrewarmBounds {
    /// For each kind in use; 0: there are none at all.
    pub(super) min: usize,
    /// Of all kinds.
    pub(super) max: usize,
    /// MiB for all of them.
    pub(super) memory_mb: u64,
}

/// What there is of a kind, and how it is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShapeStatus<K> {
    pub(super) kind: K,
    pub(super) demand: PrewarmDemand,
    /// Ready, or being made.
    pub(super) prewarm: usize,
    /// MiB of one.
    pub(super) memory_mb: u64,
}

impl PrewarmDemand {
    /// A cold start.
    pub(super) fn note(&mut self, now: Instant) {
        self.rate = self.rate(now) + 1.0 / WINDOW.as_secs_f64();
        self.last = Some(now);
    }

    /// Whether nothing speaks for a prewarmed sandbox of this kind any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let lately = self.last.is_some_and(|last| now.duration_since(last) < MEMORY_OF_USE);
        !self.expected && !lately
    }

    /// How many prewarmed sandboxes are wanted, whatever there is room for.
    pub(super) fn wanted(&self, now: Instant, bounds: &PrewarmBounds) -> usize {
        if bounds.min == 0 || self.is_over(now) {
            return 0;
        }
        let more = (self.rate(now) * AHEAD.as_secs_f64()).round();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate has no sign and is bounded here"
        )]
        let more = more.min(f64::from(u16::MAX)) as usize;
        bounds.min.saturating_add(more).min(bounds.max)
    }

    fn rate(&self, now: Instant) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let ago = now.saturating_duration_since(last).as_secs_f64();
        self.rate * (-ago / WINDOW.as_secs_f64()).exp()
    }
}

/// The kind of which one is to be made next: that of which the largest part is missing, of equals
/// the one that was used last. `None`: there are enough, or as many as there may be.
pub(super) fn next<K: Copy>(
    shelves: &[ShapeStatus<K>],
    now: Instant,
    bounds: &PrewarmBounds,
) -> Option<K> {
    let prewarm: usize = shelves.iter().map(|shelf| shelf.prewarm).sum();
    let memory_mb: u64 =
        shelves.iter().map(|shelf| shelf.memory_mb.saturating_mul(shelf.prewarm as u64)).sum();
    if bounds.max <= prewarm {
        return None;
    }
    let fits = |shelf: &&ShapeStatus<K>| memory_mb + shelf.memory_mb <= bounds.memory_mb;
    let lacks = |shelf: &&ShapeStatus<K>| shelf.prewarm < shelf.demand.wanted(now, bounds);
    let have = |shelf: &ShapeStatus<K>| {
        let wanted = shelf.demand.wanted(now, bounds).max(1) as f64;
        shelf.prewarm as f64 / wanted
    };
    let missing = shelves.iter().filter(fits).filter(lacks);
    let first = missing.min_by(|a, b| {
        let by_use = b.demand.last.cmp(&a.demand.last);
        have(a).total_cmp(&have(b)).then(by_use)
    });
    first.map(|shelf| shelf.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: PrewarmBounds = PrewarmBounds { min: 1, max: 8, memory_mb: 160 };

    fn shelf(kind: char, prewarm: usize, starts: &[Instant]) -> ShapeStatus<char> {
        let mut demand = PrewarmDemand { expected: true, ..PrewarmDemand::default() };
        starts.iter().for_each(|at| demand.note(*at));
        ShapeStatus { kind, demand, prewarm, memory_mb: 16 }
    }

    #[test]
    fn a_kind_with_functions_has_one_and_many_cold_starts_make_more() {
        let now = Instant::now();
        let wanted = |starts: &[Instant]| shelf('p', 0, starts).demand.wanted(now, &BOUNDS);
        assert_eq!(wanted(&[]), 1);
        assert_eq!(wanted(&[now; 3]), 1, "now and then is no rate");
        assert_eq!(wanted(&[now; 30]), 3);
        assert_eq!(wanted(&[now; 3000]), BOUNDS.max);
        let many = shelf('p', 0, &[now; 30]).demand;
        assert_eq!(many.wanted(now + 3 * WINDOW, &BOUNDS), 1, "what was long ago counts little");
    }

    #[test]
    fn what_nobody_uses_any_more_gets_none() {
        let now = Instant::now();
        let mut demand = PrewarmDemand::default();
        assert_eq!(demand.wanted(now, &BOUNDS), 0);
        demand.note(now);
        assert_eq!(demand.wanted(now, &BOUNDS), 1);
        assert_eq!(demand.wanted(now + MEMORY_OF_USE, &BOUNDS), 0);
        assert!(demand.is_over(now + MEMORY_OF_USE));
        let off = PrewarmBounds { min: 0, ..BOUNDS };
        assert_eq!(demand.wanted(now, &off), 0, "0 switches them off");
    }

    #[test]
    fn the_next_one_is_of_the_kind_that_lacks_most() {
        let now = Instant::now();
        let (old, new) = (shelf('o', 0, &[now]), shelf('n', 0, &[now + WINDOW]));
        assert_eq!(next(&[old, new], now + WINDOW, &BOUNDS), Some('n'), "used last");
        let busy = shelf('b', 1, &[now; 60]);
        assert_eq!(next(&[busy, shelf('x', 0, &[])], now, &BOUNDS), Some('x'), "one for each");
        assert_eq!(next(&[busy, shelf('x', 1, &[])], now, &BOUNDS), Some('b'));
        assert_eq!(next(&[shelf('x', 1, &[])], now, &BOUNDS), None);
    }

    #[test]
    fn number_and_memory_are_bounded() {
        let now = Instant::now();
        let many = |prewarm| shelf('p', prewarm, &[now; 3000]);
        assert_eq!(next(&[many(7)], now, &BOUNDS), Some('p'));
        assert_eq!(next(&[many(8)], now, &BOUNDS), None);
        let tight = PrewarmBounds { memory_mb: 40, ..BOUNDS };
        assert_eq!(next(&[many(1)], now, &tight), Some('p'));
        assert_eq!(next(&[many(2)], now, &tight), None, "16 MiB each");
    }
}
