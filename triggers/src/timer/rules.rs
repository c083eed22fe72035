//! The rules of timers, and the event of a tick.

use hanshu_core::{
    Actor, Event, Origin, Permission, PermissionTarget, Qualifier, RequestId,
    TIMER_ARGUMENT_BYTES_MAX, TimerTrigger, Timestamp, Trigger, TriggerConfig as _, TriggerId,
    authorize,
};
use serde_json::{Map, json};

use crate::intake::{AcceptedEvent, EventIntake, FunctionCall};
use crate::intake_error::IntakeError;
use crate::schedule::{CronError, CronSchedule};
use crate::trigger_error::TriggerError;
use crate::trigger_rules::{TickView, TriggerRules, TriggerView, ViewContext};

/// Ticks in a view.
const TICKS_SHOWN: usize = 3;

impl TriggerRules for TimerTrigger {
    fn check(&self) -> Result<(), TriggerError> {
        let schedule = CronSchedule::parse(&self.cron, self.timezone.as_deref().unwrap_or("UTC"))?;
        if !schedule.ever_ticks() {
            return Err(CronError::Never(self.cron.clone()).into());
        }
        if TIMER_ARGUMENT_BYTES_MAX < self.argument.len() {
            return Err(TriggerError::field("argument", &self.argument, "at most 4096 bytes"));
        }
        Ok(())
    }

    fn view(&self, context: &ViewContext<'_>) -> TriggerView {
        let zone = self.timezone.as_deref().unwrap_or(context.timezone);
        let fields = Map::from_iter([
            ("cron".to_owned(), json!(self.cron)),
            ("timezone".to_owned(), json!(zone)),
            ("argument".to_owned(), json!(self.argument)),
        ]);
        let next_ticks =
            if context.enabled { next_ticks(&self.cron, zone, context.now) } else { Vec::new() };
        TriggerView { summary: format!("{} ({zone})", self.cron), fields, next_ticks }
    }
}

/// The next ticks after `now`; fewer if the schedule ends before, none if it is not valid.
fn next_ticks(cron: &str, zone: &str, now: Timestamp) -> Vec<TickView> {
    let Ok(schedule) = CronSchedule::parse(cron, zone) else { return Vec::new() };
    let ticks = std::iter::successors(schedule.next(now), |tick| schedule.next(*tick));
    let view = |at: Timestamp| {
        let local = at.in_tz(zone).map_or_else(|_| at.to_string(), |zoned| zoned.to_string());
        TickView { at, local }
    };
    ticks.take(TICKS_SHOWN).map(view).collect()
}

/// Queues an event of a timer now, as a tick would: `hanshu trigger fire`.
///
/// # Errors
/// As [`EventIntake::accept`]; [`IntakeError::NotATimer`], [`IntakeError::Forbidden`].
pub async fn fire_timer(
    actor: &Actor,
    intake: &EventIntake,
    trigger: &Trigger,
) -> Result<AcceptedEvent, IntakeError> {
    let Some(timer) = trigger.spec.get::<TimerTrigger>() else {
        return Err(IntakeError::NotATimer(trigger.id.to_string()));
    };
    let target = PermissionTarget::Function(&trigger.id.function);
    authorize(actor, Permission::ManageTriggers, target)?;
    let call = timer_call(&trigger.id, &timer.argument, intake.clock.now());
    intake.accept(&Actor::trigger(actor.address), call, None).await
}

/// The call for one tick; the event has SCF's shape.
pub(super) fn timer_call(id: &TriggerId, message: &str, at: Timestamp) -> FunctionCall {
    let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
    let payload = json!({
        "Type": "Timer",
        "TriggerName": id.name,
        "Time": at.to_string(),
        "Message": message,
    });
    let origin = Origin::trigger_of(TimerTrigger::KIND, id.name.clone());
    FunctionCall {
        request_id: RequestId::new(),
        function: id.function.clone(),
        qualifier: Qualifier::Latest,
        event: Event { origin, payload: payload.to_string().into() },
        tail: false,
    }
}

#[cfg(test)]
mod tests {
    use hanshu_core::TriggerSpec;

    use super::*;
    use crate::trigger_kinds::{check_trigger, view_trigger};

    fn timer(cron: &str, zone: Option<&str>, argument: &str) -> TriggerSpec {
        TriggerSpec::new(TimerTrigger {
            cron: cron.into(),
            timezone: zone.map(Into::into),
            argument: argument.into(),
        })
    }

    #[test]
    fn good_timers_pass() {
        for good in [
            timer("*/5 * * * * * *", Some("Asia/Shanghai"), "text"),
            timer("*/5 * * * *", None, &"x".repeat(4096)),
        ] {
            assert_eq!(check_trigger(&good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn bad_timers_are_refused_with_field_value_and_rule() {
        for (bad, words) in [
            (timer("61 * * * * * *", None, ""), "cron field `second` is `61`: expected"),
            (timer("0 0 30 2 *", None, ""), "`0 0 30 2 *` never ticks"),
            (timer("* * * * *", Some("Mars/Base"), ""), "timezone `Mars/Base` is not known"),
            (timer("* * * * *", None, &"x".repeat(4097)), "expected at most 4096 bytes"),
        ] {
            let message = check_trigger(&bad).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_view_has_the_next_three_ticks() {
        let context = ViewContext {
            now: "2026-11-22T18:00:00Z".parse().unwrap(),
            timezone: "Asia/Shanghai",
            http_url: "",
            enabled: true,
        };
        let view = view_trigger(&timer("0 9 * * MON", None, ""), &context);
        assert_eq!(view.summary, "0 9 * * MON (Asia/Shanghai)");
        let local: Vec<_> = view.next_ticks.iter().map(|tick| tick.local.as_str()).collect();
        let zone = "09:00:00+08:00[Asia/Shanghai]";
        let days = ["2026-11-23", "2026-11-30", "2026-12-07"];
        assert_eq!(local, days.map(|day| format!("{day}T{zone}")));
        let past = view_trigger(&timer("0 0 0 1 1 * 2020", None, ""), &context);
        assert_eq!(past.next_ticks, []);
        let off = ViewContext { enabled: false, ..context };
        assert_eq!(view_trigger(&timer("0 9 * * MON", None, ""), &off).next_ticks, []);
    }
}
