//! What follows an attempt: pure. The defaults are those of SCF.

use std::time::Duration;

use hanshu_core::{AsyncPolicy, Backoff, Refusal, Timestamp, Verdict};

/// The platform's half of the retry policy; the other half is the function's [`AsyncPolicy`].
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// After refusals because no capacity was free; with jitter.
    pub throttled: Backoff,
    /// After errors of the platform (SCF: at most 5 minutes).
    pub platform: Backoff,
}

/// What a retry decision depends on, beside the policies and the verdict.
#[derive(Clone, Copy, Debug)]
pub struct RetryInput {
    /// Number of the attempt that ran, from 1; tries that were refused are not counted.
    pub attempt: u32,
    /// All tries so far, from 1, refused ones included.
    pub tries: u32,
    /// When the event expires.
    pub expires_at: Timestamp,
    /// The current time.
    pub now: Timestamp,
    /// Random, from 0 to 1: spreads events that were refused together.
    pub jitter: f64,
}

/// What happens to an event after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// The event succeeded and ends.
    Done,
    /// Another attempt at `due`.
    RetryAt {
        /// Later than now, earlier than the expiry.
        due: Timestamp,
        /// Whether this try was one of the function's attempts.
        counts: bool,
    },
    /// It failed for good: attempts used up, or the function is gone.
    GiveUp,
    /// The next try would come after its expiry.
    Expire,
    /// Somebody cancelled it.
    Cancel,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            throttled: Backoff::new(Duration::from_millis(50), Duration::from_secs(60)),
            platform: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
        }
    }
}

impl RetryPolicy {
    /// The last try of an event that the platform cannot serve comes this long before its expiry.
    const LAST_TRY_BEFORE_EXPIRY: Duration = Duration::from_secs(1);

    /// Decides what follows `verdict`.
    pub fn decide(
        &self,
        policy: &AsyncPolicy,
        verdict: &Verdict,
        input: RetryInput,
    ) -> RetryDecision {
        match verdict {
            Verdict::Returned(_) => RetryDecision::Done,
            Verdict::Failed(_) if verdict.is_cancelled() => RetryDecision::Cancel,
            Verdict::Failed(_) if policy.max_attempts <= input.attempt => RetryDecision::GiveUp,
            Verdict::Failed(_) => {
                let due = input.now + policy.retry_delay.max(Duration::from_millis(1));
                if due < input.expires_at {
                    RetryDecision::RetryAt { due, counts: true }
                } else {
                    RetryDecision::Expire
                }
            }
            Verdict::Refused(refusal) => self.after_refusal(refusal, input),
        }
    }

    /// How long to wait after `tries` consecutive refusals.
    pub fn pause(&self, refusal: &Refusal, tries: u32, jitter: f64) -> Duration {
        if refusal.is_throttle() {
            // Between half of the delay and all of it, so that events that were refused together
            // do not come back together.
            self.throttled.delay(tries).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
        } else {
            self.platform.delay(tries)
        }
    }

    fn after_refusal(&self, refusal: &Refusal, input: RetryInput) -> RetryDecision {
        match refusal {
            Refusal::Gone { .. } => return RetryDecision::GiveUp,
            Refusal::Concurrency { .. }
            | Refusal::Capacity { .. }
            | Refusal::WaitQueueFull { .. }
            | Refusal::Sandbox { .. }
            | Refusal::Unavailable { .. } => {}
        }
        let last = input.expires_at - Self::LAST_TRY_BEFORE_EXPIRY;
        if last <= input.now {
            return RetryDecision::Expire;
        }
        let due = (input.now + self.pause(refusal, input.tries, input.jitter)).min(last);
        RetryDecision::RetryAt { due, counts: false }
    }
}

#[cfg(test)]
mod tests {
    use hanshu_core::{Failure, StatusCode};
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn failed() -> Verdict {
        Verdict::Failed(Failure::seen(StatusCode::UserException, "boom"))
    }

    fn throttled() -> Verdict {
        Verdict::Refused(Refusal::Concurrency { limit: 1 })
    }

    fn broken() -> Verdict {
        Verdict::Refused(Refusal::Sandbox { reason: "no disk".into() })
    }

    /// The decisions of an event's life, in seconds since its acceptance, at most ten.
    fn life(verdict: &Verdict, age_max_s: i64) -> Vec<(f64, RetryDecision)> {
        let policy = AsyncPolicy::default();
        let (mut now, mut attempt, mut life) = (START, 1, Vec::new());
        for tries in 1..=10 {
            let expires_at = START + Duration::from_secs(age_max_s.unsigned_abs());
            let input = RetryInput { attempt, tries, expires_at, now, jitter: 1.0 };
            let decision = RetryPolicy::default().decide(&policy, verdict, input);
            life.push((now.as_millisecond() as f64 / 1000.0, decision));
            let RetryDecision::RetryAt { due, counts } = decision else { break };
            now = due;
            attempt += u32::from(counts);
        }
        life
    }

    fn times(life: &[(f64, RetryDecision)]) -> Vec<f64> {
        life.iter().map(|(at, _)| *at).collect()
    }

    #[test]
    fn a_failing_function_is_tried_three_times_a_minute_apart() {
        let life = life(&failed(), 21_600);
        assert_eq!(times(&life), [0.0, 60.0, 120.0]);
        assert_eq!(life.last().unwrap().1, RetryDecision::GiveUp);
    }

    #[test]
    fn the_platforms_errors_double_from_a_second_to_five_minutes() {
        let at = times(&life(&broken(), 21_600));
        assert_eq!(at, [0., 1., 3., 7., 15., 31., 63., 127., 255., 511.]);
        let pause = RetryPolicy::default().pause(&Refusal::Sandbox { reason: "".into() }, 40, 0.);
        assert_eq!(pause, Duration::from_secs(300));
    }

    #[test]
    fn a_throttled_event_loses_no_attempt_and_is_tried_again_soon() {
        let life = life(&throttled(), 21_600);
        assert_eq!(times(&life)[..4], [0.0, 0.05, 0.15, 0.35]);
        assert!(
            life.iter().all(|(_, d)| matches!(d, RetryDecision::RetryAt { counts: false, .. }))
        );
        let pause = RetryPolicy::default().pause(&Refusal::Concurrency { limit: 1 }, 99, 0.0);
        assert_eq!(pause, Duration::from_secs(30));
    }

    #[test]
    fn a_refused_event_gets_a_last_try_before_it_expires() {
        let life = life(&broken(), 10);
        assert_eq!(times(&life), [0.0, 1.0, 3.0, 7.0, 9.0]);
        assert_eq!(life.last().unwrap().1, RetryDecision::Expire);
    }

    #[test]
    fn a_failed_event_whose_retry_comes_too_late_expires() {
        assert_eq!(life(&failed(), 60), [(0.0, RetryDecision::Expire)]);
    }

    #[test]
    fn a_gone_function_is_given_up_and_a_success_is_done() {
        let gone = Verdict::Refused(Refusal::Gone { what: "function `a/b`".into() });
        assert_eq!(life(&gone, 60), [(0.0, RetryDecision::GiveUp)]);
        assert_eq!(life(&Verdict::Returned("1".into()), 60), [(0.0, RetryDecision::Done)]);
    }

    #[test]
    fn a_cancelled_event_is_not_tried_again() {
        let cancelled = Verdict::Failed(Failure::cancelled());
        assert_eq!(life(&cancelled, 21_600), [(0.0, RetryDecision::Cancel)]);
    }

    proptest! {
        /// No event is retried after its expiry, and none in the past.
        #[test]
        fn a_retry_is_always_ahead_and_in_time(
            tries in 1u32..1000, age_ms in 0u64..100_000_000, max_ms in 1000u64..21_600_000,
            which in 0usize..3, jitter in 0.0f64..1.0, delay_s in 0u64..7200, attempt in 1u32..9,
        ) {
            let verdict = [failed(), throttled(), broken()][which].clone();
            let policy = AsyncPolicy {
                retry_delay: Duration::from_secs(delay_s), ..AsyncPolicy::default()
            };
            let now = START + Duration::from_millis(age_ms);
            let expires_at = START + Duration::from_millis(max_ms);
            let input = RetryInput { attempt, tries, expires_at, now, jitter };
            if let RetryDecision::RetryAt { due, counts } =
                RetryPolicy::default().decide(&policy, &verdict, input)
            {
                prop_assert!(now < due && due < expires_at, "{due}");
                prop_assert_eq!(counts, which == 0);
                prop_assert!(!counts || attempt < policy.max_attempts);
            }
        }
    }
}
