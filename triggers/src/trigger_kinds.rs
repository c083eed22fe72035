//! The table of the kinds of triggers, and what is looked up in it.

use std::sync::Arc;

use hanshu_core::{HttpTrigger, RedisTrigger, TimerTrigger, TriggerSpec};

use crate::sources::consumer::StreamSource;
#[cfg(test)]
use crate::sources::memory::MemoryTrigger;
use crate::trigger_error::TriggerError;
use crate::trigger_rules::{TriggerRulesRow, TriggerView, ViewContext};

/// A row for each kind.
static ROWS: &[TriggerRulesRow] = &[
    TriggerRulesRow::of::<TimerTrigger>(),
    TriggerRulesRow::of::<HttpTrigger>(),
    TriggerRulesRow::of_stream::<RedisTrigger>(),
    #[cfg(test)]
    TriggerRulesRow::of_stream::<MemoryTrigger>(),
];

/// Checks a trigger's settings before they are stored.
///
/// # Errors
/// [`TriggerError`] names the field, its value and the rule that it breaks.
pub fn check_trigger(spec: &TriggerSpec) -> Result<(), TriggerError> {
    row(spec).map_or(Ok(()), |row| (row.check)(spec))
}

/// How a trigger with these settings is shown. Contains no password.
pub fn view_trigger(spec: &TriggerSpec, context: &ViewContext<'_>) -> TriggerView {
    row(spec).map_or_else(TriggerView::default, |row| (row.view)(spec, context))
}

/// The stream that a trigger reads; `None` if its kind reads none.
pub(crate) fn stream_source(spec: &TriggerSpec) -> Option<Arc<dyn StreamSource>> {
    row(spec).and_then(|row| (row.stream)(spec))
}

fn row(spec: &TriggerSpec) -> Option<&'static TriggerRulesRow> {
    ROWS.iter().find(|row| row.kind == spec.kind())
}

#[cfg(test)]
mod tests {
    use hanshu_core::{Secret, TriggerConfig as _, TriggerKind};

    use super::*;

    #[test]
    fn every_kind_has_a_row_and_every_row_a_kind() {
        let kinds: Vec<_> = TriggerKind::all().chain([MemoryTrigger::KIND]).collect();
        let rows: Vec<_> = ROWS.iter().map(|row| row.kind).collect();
        assert_eq!(rows, kinds);
    }

    #[test]
    fn kinds_that_say_so_read_a_stream_and_no_others_do() {
        let redis = RedisTrigger { url: Secret::new("redis://h"), stream: "s".into(), batch: 1 };
        let specs = [
            TriggerSpec::new(TimerTrigger::default()),
            TriggerSpec::new(HttpTrigger::default()),
            TriggerSpec::new(redis),
            TriggerSpec::new(MemoryTrigger::default()),
        ];
        assert_eq!(
            specs.each_ref().map(TriggerSpec::kind)[..],
            ROWS.iter().map(|row| row.kind).collect::<Vec<_>>()
        );
        for spec in specs {
            let is_stream = spec.kind().profile().is_stream;
            assert_eq!(stream_source(&spec).is_some(), is_stream, "{spec:?}");
        }
    }

    #[test]
    fn no_view_contains_a_password() {
        let url = Secret::new("redis://me:topsecret@host/0");
        let redis = RedisTrigger { url, stream: "s".into(), batch: 1 };
        let context = ViewContext {
            now: hanshu_core::Timestamp::UNIX_EPOCH,
            timezone: "UTC",
            http_url: "http://h",
            enabled: true,
        };
        let view = view_trigger(&TriggerSpec::new(redis), &context);
        assert!(!format!("{view:?}").contains("topsecret"), "{view:?}");
    }
}
