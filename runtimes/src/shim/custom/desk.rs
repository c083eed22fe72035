//! Where events and answers change hands between the invoker's side and the runtime's calls.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::shim::answer::Answer;

/// The event that runs.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) request_id: String,
    pub(super) payload: Vec<u8>,
}

/// At most one event at a time lies here, and at most one answer.
#[derive(Debug, Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_ready: bool,
    /// There from the offer to the first answer.
    current: Option<Arc<Current>>,
    /// Whether the runtime has seen it. Calls do not say which event they answer: an answer that
    /// comes before that is a late one to the event before.
    is_fetched: bool,
    answer: Option<Answer>,
}

impl Desk {
    /// The runtime is ready; said again, it changes nothing.
    pub(super) fn ready(&self) {
        self.lock().is_ready = true;
        self.changed.notify_all();
    }

    /// Whether the runtime is ready within this time.
    pub(super) fn wait_ready(&self, patience: Duration) -> bool {
        let waited =
            self.changed.wait_timeout_while(self.lock(), patience, |state| !state.is_ready);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_ready
    }

    /// Lays down the next event. The one before it has been answered.
    pub(super) fn offer(&self, current: Current) {
        let mut state = self.lock();
        state.answer = None;
        state.is_fetched = false;
        state.current = Some(Arc::new(current));
        drop(state);
        self.changed.notify_all();
    }

    /// The event that runs, however often it is asked for; waits for one for at most `patience`.
    pub(super) fn next(&self, patience: Duration) -> Option<Arc<Current>> {
        let waited =
            self.changed.wait_timeout_while(self.lock(), patience, |state| state.current.is_none());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_fetched = state.current.is_some();
        state.current.clone()
    }

    /// Answers the event that runs. Where the runtime has none in hand, this one is dropped: the
    /// first answer is final.
    pub(super) fn settle(&self, answer: Answer) {
        let mut state = self.lock();
        if state.is_fetched {
            state.is_fetched = false;
            state.current = None;
            state.answer = Some(answer);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for the answer to the event that was offered.
    pub(super) fn wait_answer(&self) -> Answer {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current(request_id: &str) -> Current {
        Current { request_id: request_id.to_owned(), payload: b"{}".to_vec() }
    }

    fn returned(json: &str) -> Answer {
        Answer::Returned(json.as_bytes().to_vec())
    }

    #[test]
    fn the_first_answer_is_final() {
        let desk = Desk::default();
        desk.settle(returned("0"));
        desk.offer(current("a"));
        desk.next(Duration::ZERO).unwrap();
        desk.settle(returned("1"));
        desk.settle(returned("2"));
        assert_eq!(desk.wait_answer(), returned("1"));
        desk.settle(returned("3"));
        desk.offer(current("b"));
        desk.settle(returned("late, to a"));
        desk.next(Duration::ZERO).unwrap();
        desk.settle(returned("4"));
        assert_eq!(desk.wait_answer(), returned("4"));
    }

    #[test]
    fn an_event_is_the_same_until_it_is_answered() {
        let desk = Desk::default();
        assert!(desk.next(Duration::ZERO).is_none());
        desk.offer(current("a"));
        for _ in 0..2 {
            assert_eq!(desk.next(Duration::ZERO).unwrap().request_id, "a");
        }
        desk.settle(returned("1"));
        assert!(desk.next(Duration::ZERO).is_none());
    }

    #[test]
    fn readiness_is_waited_for_and_kept() {
        let desk = Desk::default();
        assert!(!desk.wait_ready(Duration::ZERO));
        desk.ready();
        desk.ready();
        assert!(desk.wait_ready(Duration::ZERO));
    }
}
