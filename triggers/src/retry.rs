//! What follows an attempt: pure. SCF retries likewise (scf.md §4).

use std::time::Duration;

use hanshu_core::{AsyncPolicy, Refusal, Timestamp, Verdict};

/// The platform's own half of the policy; the other half is the function's [`AsyncPolicy`].
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// After the first refusal for want of a place; doubles with every try, with jitter.
    pub throttled_first: Duration,
    /// At most so long after one.
    pub throttled_max: Duration,
    /// After the first error of the platform; doubles with every try.
    pub platform_first: Duration,
    /// At most so long after one (SCF: 5 minutes).
    pub platform_max: Duration,
}

/// Where an event stands after a try.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The attempt that ran, from 1; tries that cost none are not counted.
    pub attempt: u32,
    /// All tries so far, from 1.
    pub tries: u32,
    /// After this it expires.
    pub expires_at: Timestamp,
    /// The time now.
    pub now: Timestamp,
    /// From 0 to 1, drawn by the caller: spreads what was refused together.
    pub jitter: f64,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It succeeded.
    Done,
    /// Another try at `due`.
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
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            throttled_first: Duration::from_millis(50),
            throttled_max: Duration::from_secs(60),
            platform_first: Duration::from_secs(1),
            platform_max: Duration::from_secs(300),
        }
    }
}

impl RetryPolicy {
    /// The last try of an event that the platform cannot serve comes this long before its expiry.
    const LAST_CALL: Duration = Duration::from_secs(1);

    /// Decides.
    pub fn decide(&self, policy: &AsyncPolicy, verdict: &Verdict, at: Standing) -> Decision {
        match verdict {
            Verdict::Returned(_) => Decision::Done,
            Verdict::Failed(_) if policy.max_attempts <= at.attempt => Decision::GiveUp,
            Verdict::Failed(_) => {
                let due = at.now + policy.retry_delay.max(Duration::from_millis(1));
                if due < at.expires_at {
                    Decision::RetryAt { due, counts: true }
                } else {
                    Decision::Expire
                }
            }
            Verdict::Refused(refusal) => self.after_refusal(refusal, at),
        }
    }

    /// How long to stay away after `tries` refusals in a row.
    pub fn pause(&self, refusal: &Refusal, tries: u32, jitter: f64) -> Duration {
        if refusal.is_throttle() {
            let delay = doubled(self.throttled_first, self.throttled_max, tries);
            // Between a half and the whole: what was refused together comes back apart.
            delay.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
        } else {
            doubled(self.platform_first, self.platform_max, tries)
        }
    }

    fn after_refusal(&self, refusal: &Refusal, at: Standing) -> Decision {
        match refusal {
            Refusal::Gone { .. } => return Decision::GiveUp,
            Refusal::Concurrency { .. }
            | Refusal::Capacity { .. }
            | Refusal::WaitQueueFull { .. }
            | Refusal::Sandbox { .. }
            | Refusal::Unavailable { .. } => {}
        }
        let last = at.expires_at - Self::LAST_CALL;
        if last <= at.now {
            return Decision::Expire;
        }
        let due = (at.now + self.pause(refusal, at.tries, at.jitter)).min(last);
        Decision::RetryAt { due, counts: false }
    }
}

/// `first` × 2^(n−1), at most `max`.
fn doubled(first: Duration, max: Duration, n: u32) -> Duration {
    let factor = 1u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(max)
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
    fn life(verdict: &Verdict, age_max_s: i64) -> Vec<(f64, Decision)> {
        let policy = AsyncPolicy::default();
        let (mut now, mut attempt, mut life) = (START, 1, Vec::new());
        for tries in 1..=10 {
            let expires_at = START + Duration::from_secs(age_max_s.unsigned_abs());
            let at = Standing { attempt, tries, expires_at, now, jitter: 1.0 };
            let decision = RetryPolicy::default().decide(&policy, verdict, at);
            life.push((now.as_millisecond() as f64 / 1000.0, decision));
            let Decision::RetryAt { due, counts } = decision else { break };
            now = due;
            attempt += u32::from(counts);
        }
        life
    }

    fn times(life: &[(f64, Decision)]) -> Vec<f64> {
        life.iter().map(|(at, _)| *at).collect()
    }

    #[test]
    fn a_failing_function_is_tried_three_times_a_minute_apart() {
        let life = life(&failed(), 21_600);
        assert_eq!(times(&life), [0.0, 60.0, 120.0]);
        assert_eq!(life.last().unwrap().1, Decision::GiveUp);
    }

    #[test]
    fn the_platforms_errors_double_from_a_second_to_five_minutes() {
        let at = times(&life(&broken(), 21_600));
        assert_eq!(at, [0., 1., 3., 7., 15., 31., 63., 127., 255., 511.]);
        let pause = RetryPolicy::default().pause(&Refusal::Sandbox { reason: "".into() }, 40, 0.);
        assert_eq!(pause, Duration::from_secs(300));
    }

    #[test]
    fn want_of_a_place_costs_no_attempt_and_comes_back_soon() {
        let life = life(&throttled(), 21_600);
        assert_eq!(times(&life)[..4], [0.0, 0.05, 0.15, 0.35]);
        assert!(life.iter().all(|(_, d)| matches!(d, Decision::RetryAt { counts: false, .. })));
        let pause = RetryPolicy::default().pause(&Refusal::Concurrency { limit: 1 }, 99, 0.0);
        assert_eq!(pause, Duration::from_secs(30));
    }

    #[test]
    fn a_refused_event_gets_a_last_try_and_expires() {
        let life = life(&broken(), 10);
        assert_eq!(times(&life), [0.0, 1.0, 3.0, 7.0, 9.0]);
        assert_eq!(life.last().unwrap().1, Decision::Expire);
    }

    #[test]
    fn a_failed_event_whose_retry_comes_too_late_expires() {
        assert_eq!(life(&failed(), 60), [(0.0, Decision::Expire)]);
    }

    #[test]
    fn a_gone_function_is_given_up_and_a_success_is_done() {
        let gone = Verdict::Refused(Refusal::Gone { what: "function `a/b`".into() });
        assert_eq!(life(&gone, 60), [(0.0, Decision::GiveUp)]);
        assert_eq!(life(&Verdict::Returned("1".into()), 60), [(0.0, Decision::Done)]);
    }

    proptest! {
        /// No event outlives its age, and none is retried in the past.
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
            let at = Standing { attempt, tries, expires_at, now, jitter };
            if let Decision::RetryAt { due, counts } =
                RetryPolicy::default().decide(&policy, &verdict, at)
            {
                prop_assert!(now < due && due < expires_at, "{due}");
                prop_assert_eq!(counts, which == 0);
                prop_assert!(!counts || attempt < policy.max_attempts);
            }
        }
    }
}
