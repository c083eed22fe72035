//! How many prewarmed sandboxes of which shape are worth their memory. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The time over which cold starts are averaged.
const WINDOW: Duration = Duration::from_secs(30);
/// Sandboxes are ready for the cold starts of this time: those that are taken are replaced within it.
const AHEAD: Duration = Duration::from_secs(2);
/// A shape that no function has and no start has used for this long gets none.
const DEMAND_MEMORY: Duration = Duration::from_secs(600);

/// The recent demand for sandboxes of a shape.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PrewarmDemand {
    /// Cold starts a second, on average, at `last`.
    rate: f64,
    pub(super) last: Option<Instant>,
    /// Whether there are functions of this shape.
    pub(super) expected: bool,
}

/// Limits set by the operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct PrewarmBounds {
    /// For each shape in use; 0: there are none at all.
    pub(super) min: usize,
    /// Of all shapes.
    pub(super) max: usize,
    /// MiB for all of them.
    pub(super) memory_mb: u64,
}

/// The prewarmed sandboxes of a shape, and the demand for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShapeStatus<S> {
    pub(super) shape: S,
    pub(super) demand: PrewarmDemand,
    /// Ready or starting.
    pub(super) existing: usize,
    /// MiB of one.
    pub(super) memory_mb: u64,
}

impl PrewarmDemand {
    /// Counts a cold start.
    pub(super) fn note_start(&mut self, now: Instant) {
        self.rate = self.rate(now) + 1.0 / WINDOW.as_secs_f64();
        self.last = Some(now);
    }

    /// Whether there is no demand any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let lately = self.last.is_some_and(|last| now.duration_since(last) < DEMAND_MEMORY);
        !self.expected && !lately
    }

    /// How many prewarmed sandboxes are wanted, regardless of room.
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

/// The shape of which one is to be started next: that of which the largest part is missing, among equals
/// the one that was last used. `None`: there are enough, or as many as there may be.
pub(super) fn next<S: Copy>(
    shapes: &[ShapeStatus<S>],
    now: Instant,
    bounds: &PrewarmBounds,
) -> Option<S> {
    let existing: usize = shapes.iter().map(|status| status.existing).sum();
    let memory_mb: u64 =
        shapes.iter().map(|status| status.memory_mb.saturating_mul(status.existing as u64)).sum();
    if bounds.max <= existing {
        return None;
    }
    let fits = |status: &&ShapeStatus<S>| memory_mb + status.memory_mb <= bounds.memory_mb;
    let lacks = |status: &&ShapeStatus<S>| status.existing < status.demand.wanted(now, bounds);
    let supplied = |status: &ShapeStatus<S>| {
        let wanted = status.demand.wanted(now, bounds).max(1) as f64;
        status.existing as f64 / wanted
    };
    let missing = shapes.iter().filter(fits).filter(lacks);
    let first = missing.min_by(|a, b| {
        let by_use = b.demand.last.cmp(&a.demand.last);
        supplied(a).total_cmp(&supplied(b)).then(by_use)
    });
    first.map(|status| status.shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: PrewarmBounds = PrewarmBounds { min: 1, max: 8, memory_mb: 160 };

    fn status(shape: char, existing: usize, starts: &[Instant]) -> ShapeStatus<char> {
        let mut demand = PrewarmDemand { expected: true, ..PrewarmDemand::default() };
        starts.iter().for_each(|at| demand.note_start(*at));
        ShapeStatus { shape, demand, existing, memory_mb: 16 }
    }

    #[test]
    fn a_shape_with_functions_has_one_and_many_cold_starts_make_more() {
        let now = Instant::now();
        let wanted = |starts: &[Instant]| status('p', 0, starts).demand.wanted(now, &BOUNDS);
        assert_eq!(wanted(&[]), 1);
        assert_eq!(wanted(&[now; 3]), 1, "now and then is no rate");
        assert_eq!(wanted(&[now; 30]), 3);
        assert_eq!(wanted(&[now; 3000]), BOUNDS.max);
        let many = status('p', 0, &[now; 30]).demand;
        assert_eq!(many.wanted(now + 3 * WINDOW, &BOUNDS), 1, "old starts count little");
    }

    #[test]
    fn a_shape_without_use_gets_none() {
        let now = Instant::now();
        let mut demand = PrewarmDemand::default();
        assert_eq!(demand.wanted(now, &BOUNDS), 0);
        demand.note_start(now);
        assert_eq!(demand.wanted(now, &BOUNDS), 1);
        assert_eq!(demand.wanted(now + DEMAND_MEMORY, &BOUNDS), 0);
        assert!(demand.is_over(now + DEMAND_MEMORY));
        let off = PrewarmBounds { min: 0, ..BOUNDS };
        assert_eq!(demand.wanted(now, &off), 0, "0 switches them off");
    }

    #[test]
    fn the_next_one_is_of_the_shape_that_lacks_most() {
        let now = Instant::now();
        let (old, new) = (status('o', 0, &[now]), status('n', 0, &[now + WINDOW]));
        assert_eq!(next(&[old, new], now + WINDOW, &BOUNDS), Some('n'), "used last");
        let busy = status('b', 1, &[now; 60]);
        assert_eq!(next(&[busy, status('x', 0, &[])], now, &BOUNDS), Some('x'), "one for each");
        assert_eq!(next(&[busy, status('x', 1, &[])], now, &BOUNDS), Some('b'));
        assert_eq!(next(&[status('x', 1, &[])], now, &BOUNDS), None);
    }

    #[test]
    fn number_and_memory_are_bounded() {
        let now = Instant::now();
        let many = |existing| status('p', existing, &[now; 3000]);
        assert_eq!(next(&[many(7)], now, &BOUNDS), Some('p'));
        assert_eq!(next(&[many(8)], now, &BOUNDS), None);
        let tight = PrewarmBounds { memory_mb: 40, ..BOUNDS };
        assert_eq!(next(&[many(1)], now, &tight), Some('p'));
        assert_eq!(next(&[many(2)], now, &tight), None, "16 MiB each");
    }
}
