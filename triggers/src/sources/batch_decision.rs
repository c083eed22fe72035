//! What follows an attempt at a batch of stream entries: pure.
//!
//! A batch that fails as often as the function's attempts allow is split: each of its entries runs
//! once more by itself, in order, and only those that fail then are dead-lettered.

use std::time::Duration;

use hanshu_core::{AsyncPolicy, Verdict};

use crate::retry::RetryPolicy;

/// A batch at an attempt that has just ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchProgress {
    /// The number of its entries, at least 1.
    pub(crate) entries: usize,
    /// The attempt that ran, from 1.
    pub(crate) attempt: u32,
    /// Consecutive refusals, this one included if it was one.
    pub(crate) refusals: u32,
    /// Random, from 0 to 1.
    pub(crate) jitter: f64,
}

/// What to do with the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BatchDecision {
    /// The batch succeeded: its entries are acknowledged.
    Acknowledge,
    /// Run each entry by itself, as this attempt.
    Split { attempt: u32 },
    /// The function failed on a single entry for good, or somebody cancelled the batch.
    DeadLetter { reason: String },
    /// Run it again after a pause, as this attempt.
    Retry { attempt: u32, pause: Duration },
    /// The platform refused it: run it again after a pause, as the same attempt.
    Repeat { pause: Duration },
}

/// Decides what follows `verdict`.
pub(crate) fn after_attempt(
    retries: &RetryPolicy,
    policy: &AsyncPolicy,
    verdict: &Verdict,
    progress: BatchProgress,
) -> BatchDecision {
    let BatchProgress { entries, attempt, refusals, jitter } = progress;
    match verdict {
        Verdict::Returned(_) => BatchDecision::Acknowledge,
        Verdict::Refused(refusal) => {
            BatchDecision::Repeat { pause: retries.pause(refusal, refusals, jitter) }
        }
        Verdict::Failed(failure) if verdict.is_cancelled() => {
            BatchDecision::DeadLetter { reason: failure.error_message.clone() }
        }
        Verdict::Failed(_) if attempt < policy.max_attempts => {
            BatchDecision::Retry { attempt: attempt + 1, pause: policy.retry_delay }
        }
        Verdict::Failed(_) if 1 < entries => {
            BatchDecision::Split { attempt: policy.max_attempts.saturating_add(1) }
        }
        Verdict::Failed(failure) => {
            BatchDecision::DeadLetter { reason: failure.error_message.clone() }
        }
    }
}

/// How many of the first entries of a batch that was read run together: one by one after a split.
pub(crate) fn entries_together(policy: &AsyncPolicy, entries: usize, attempt: u32) -> usize {
    if policy.max_attempts < attempt { entries.min(1) } else { entries }
}

#[cfg(test)]
mod tests {
    use hanshu_core::{Failure, Refusal, StatusCode};
    use proptest::prelude::*;

    use super::*;

    fn failed() -> Verdict {
        Verdict::Failed(Failure::seen(StatusCode::UserException, "boom"))
    }

    /// The decisions until a batch of failing entries is gone.
    fn failing_life(max_attempts: u32, entries: usize) -> Vec<BatchDecision> {
        let policy = AsyncPolicy { max_attempts, ..AsyncPolicy::default() };
        let (mut left, mut attempt, mut life) = (entries, 1, Vec::new());
        while 0 < left {
            let together = entries_together(&policy, left, attempt);
            let progress = BatchProgress { entries: together, attempt, refusals: 0, jitter: 0.0 };
            let decision = after_attempt(&RetryPolicy::default(), &policy, &failed(), progress);
            life.push(decision.clone());
            match decision {
                BatchDecision::Retry { attempt: next, .. }
                | BatchDecision::Split { attempt: next } => attempt = next,
                BatchDecision::DeadLetter { .. } => left -= together,
                BatchDecision::Acknowledge | BatchDecision::Repeat { .. } => panic!("{life:?}"),
            }
        }
        life
    }

    #[test]
    fn a_failing_batch_is_tried_then_split_then_dead_lettered_one_by_one() {
        let pause = AsyncPolicy::default().retry_delay;
        let dead = BatchDecision::DeadLetter { reason: "boom".into() };
        let expected = [
            BatchDecision::Retry { attempt: 2, pause },
            BatchDecision::Split { attempt: 3 },
            dead.clone(),
            dead,
        ];
        assert_eq!(failing_life(2, 2), expected);
        assert_eq!(failing_life(1, 1), [BatchDecision::DeadLetter { reason: "boom".into() }]);
    }

    #[test]
    fn a_success_is_acknowledged_and_a_refusal_costs_no_attempt() {
        let (retries, policy) = (RetryPolicy::default(), AsyncPolicy::default());
        let progress = BatchProgress { entries: 3, attempt: 9, refusals: 2, jitter: 1.0 };
        let decide = |verdict| after_attempt(&retries, &policy, &verdict, progress);
        assert_eq!(decide(Verdict::Returned("1".into())), BatchDecision::Acknowledge);
        let pause = Duration::from_millis(100);
        let refused = Verdict::Refused(Refusal::Concurrency { limit: 1 });
        assert_eq!(decide(refused), BatchDecision::Repeat { pause });
    }

    #[test]
    fn a_cancelled_batch_is_dead_lettered_at_its_first_attempt() {
        let (retries, policy) = (RetryPolicy::default(), AsyncPolicy::default());
        let progress = BatchProgress { entries: 3, attempt: 1, refusals: 0, jitter: 1.0 };
        let cancelled = Verdict::Failed(Failure::cancelled());
        let reason = "the invocation was cancelled".to_owned();
        let decision = after_attempt(&retries, &policy, &cancelled, progress);
        assert_eq!(decision, BatchDecision::DeadLetter { reason });
    }

    proptest! {
        /// Whatever a failing batch's size and policy: every entry is dead-lettered by itself,
        /// after as many attempts as allowed, and one more if it was in a batch.
        #[test]
        fn every_failing_entry_is_dead_lettered_alone(max_attempts in 1u32..6, entries in 1usize..20) {
            let life = failing_life(max_attempts, entries);
            let dead = life.iter().filter(|d| matches!(d, BatchDecision::DeadLetter { .. }));
            prop_assert_eq!(dead.count(), entries);
            let splits = life.iter().filter(|d| matches!(d, BatchDecision::Split { .. }));
            prop_assert_eq!(splits.count(), usize::from(1 < entries));
            let attempts = max_attempts as usize - 1 + entries + usize::from(1 < entries);
            prop_assert_eq!(life.len(), attempts);
        }
    }
}
