//! Whether the streams can be read, for `hanshu trigger list`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hanshu_core::ports::TriggerHealth;
use hanshu_core::{Timestamp, TriggerId};

/// The state of one stream on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// Why the stream cannot be read; `None` while it can be.
    pub unavailable: Option<String>,
    /// When it became available or unavailable.
    pub since: Timestamp,
    /// Entries in its dead-letter stream, when last counted.
    pub dead_lettered: u64,
}

/// The states of all streams that this node reads: written by the readers.
#[derive(Clone, Debug, Default)]
pub struct StreamStatusMap(Arc<Mutex<BTreeMap<TriggerId, StreamStatus>>>);

impl StreamStatusMap {
    /// `None` if this node does not read the trigger's stream.
    pub fn of(&self, trigger: &TriggerId) -> Option<StreamStatus> {
        self.lock().get(trigger).cloned()
    }

    /// The state of every stream.
    pub fn all(&self) -> Vec<(TriggerId, StreamStatus)> {
        self.lock().iter().map(|(id, status)| (id.clone(), status.clone())).collect()
    }

    /// Records whether the stream can be read; returns whether that has changed.
    pub(crate) fn set(&self, id: &TriggerId, unavailable: Option<String>, now: Timestamp) -> bool {
        let mut statuses = self.lock();
        let new = || StreamStatus { unavailable: None, since: now, dead_lettered: 0 };
        let known = statuses.contains_key(id);
        let status = statuses.entry(id.clone()).or_insert_with(new);
        let changed = !known || status.unavailable.is_some() != unavailable.is_some();
        if changed {
            status.since = now;
        }
        status.unavailable = unavailable;
        changed
    }

    pub(crate) fn set_dead_lettered(&self, id: &TriggerId, number: u64) {
        if let Some(status) = self.lock().get_mut(id) {
            status.dead_lettered = number;
        }
    }

    pub(crate) fn forget(&self, id: &TriggerId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TriggerId, StreamStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TriggerHealth for StreamStatusMap {
    fn problem(&self, trigger: &TriggerId) -> Option<String> {
        describe_problem(self.of(trigger)?)
    }

    fn problems(&self) -> Vec<(TriggerId, String)> {
        let all = self.all().into_iter();
        all.filter_map(|(id, status)| Some((id, describe_problem(status)?))).collect()
    }
}

fn describe_problem(status: StreamStatus) -> Option<String> {
    Some(format!("{} (since {:.0})", status.unavailable?, status.since))
}
