//! How the streams fare, for `hanshu trigger list`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use hanshu_core::{Timestamp, TriggerId};

/// One stream's state on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// Why the stream cannot be read; `None` while it can.
    pub away: Option<String>,
    /// Since when it is so.
    pub since: Timestamp,
    /// Entries in its dead stream, when last counted.
    pub dead_lettered: u64,
}

/// All streams' states: written by the sources, read by anybody.
#[derive(Clone, Debug, Default)]
pub struct SourceStates(Arc<Mutex<BTreeMap<TriggerId, SourceState>>>);

impl SourceStates {
    /// One trigger's; `None` if this node does not read its stream.
    pub fn of(&self, trigger: &TriggerId) -> Option<SourceState> {
        self.lock().get(trigger).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<(TriggerId, SourceState)> {
        self.lock().iter().map(|(id, state)| (id.clone(), state.clone())).collect()
    }

    /// Notes whether the stream can be read; tells whether that is news.
    pub(crate) fn note(&self, id: &TriggerId, away: Option<String>, now: Timestamp) -> bool {
        let mut states = self.lock();
        let new = || SourceState { away: None, since: now, dead_lettered: 0 };
        let known = states.contains_key(id);
        let state = states.entry(id.clone()).or_insert_with(new);
        let news = !known || state.away.is_some() != away.is_some();
        if news {
            state.since = now;
        }
        state.away = away;
        news
    }

    pub(crate) fn dead_lettered(&self, id: &TriggerId, number: u64) {
        if let Some(state) = self.lock().get_mut(id) {
            state.dead_lettered = number;
        }
    }

    pub(crate) fn forget(&self, id: &TriggerId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TriggerId, SourceState>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
