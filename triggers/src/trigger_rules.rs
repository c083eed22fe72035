//! What this crate has to know of a kind of trigger: how its settings are checked and shown, and
//! which stream it reads. The rows are in `trigger_kinds.rs`.

use std::fmt;
use std::sync::Arc;

use hanshu_core::{Timestamp, TriggerConfig, TriggerKind, TriggerSpec};
use serde_json::{Map, Value};

use crate::sources::consumer::StreamSource;
use crate::trigger_error::TriggerError;

/// What a kind's settings must implement here.
pub(crate) trait TriggerRules: TriggerConfig {
    /// Checks the settings before they are stored.
    ///
    /// # Errors
    /// [`TriggerError`] names the field, its value and the rule that it breaks.
    fn check(&self) -> Result<(), TriggerError>;

    /// How a trigger with these settings is shown. Contains no password.
    fn view(&self, context: &ViewContext<'_>) -> TriggerView;
}

/// What a view depends on beside the settings.
#[derive(Clone, Copy, Debug)]
pub struct ViewContext<'a> {
    /// The current time.
    pub now: Timestamp,
    /// The zone of timers that name none; IANA.
    pub timezone: &'a str,
    /// The address of HTTP triggers, such as `http://127.0.0.1:9080`.
    pub http_url: &'a str,
    /// Whether the trigger is switched on.
    pub enabled: bool,
}

/// A trigger as it is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TriggerView {
    /// What it does, in a few words.
    pub summary: String,
    /// Fields of its settings and what follows from them, for the API.
    pub fields: Map<String, Value>,
    /// The next ticks of a timer that is switched on.
    pub next_ticks: Vec<TickView>,
}

/// A coming tick of a timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickView {
    /// When it is.
    pub at: Timestamp,
    /// The same in the timer's zone: `2026-01-31T09:00:00+08:00[Asia/Shanghai]`.
    pub local: String,
}

/// The row of a kind.
pub(crate) struct TriggerRulesRow {
    pub(crate) kind: TriggerKind,
    pub(crate) check: fn(&TriggerSpec) -> Result<(), TriggerError>,
    pub(crate) view: fn(&TriggerSpec, &ViewContext<'_>) -> TriggerView,
    /// The stream that the settings name, if the kind reads one.
    pub(crate) stream: fn(&TriggerSpec) -> Option<Arc<dyn StreamSource>>,
}

impl TriggerRulesRow {
    /// The row of a kind that reads no stream.
    pub(crate) const fn of<T: TriggerRules>() -> Self {
        Self {
            kind: T::KIND,
            check: |spec| spec.get().map_or(Ok(()), T::check),
            view: |spec, context| {
                spec.get().map_or_else(TriggerView::default, |config: &T| config.view(context))
            },
            stream: |_| None,
        }
    }

    /// The row of a kind that reads a stream.
    pub(crate) const fn of_stream<T: TriggerRules + StreamSource>() -> Self {
        Self {
            stream: |spec| {
                let config: &T = spec.get()?;
                Some(Arc::new(config.clone()))
            },
            ..Self::of::<T>()
        }
    }
}

impl fmt::Debug for TriggerRulesRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TriggerRulesRow").field("kind", &self.kind).finish_non_exhaustive()
    }
}
