//! Where events and answers change hands between the invoker's side and the runtime's calls.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::shim::invocation_response::InvocationResponse;

/// The event that runs.
#[derive(Debug)]
pub(super) struct CurrentInvocation {
    pub(super) request_id: String,
    pub(super) payload: Vec<u8>,
}

/// At most one event at a time lies here, and at most one answer.
#[derive(Debug, Default)]
pub(super) struct Rendezvous {
    state: Mutex<RendezvousState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RendezvousState {
    is_ready: bool,
    /// There from the offer to the first answer.
    current: Option<Arc<CurrentInvocation>>,
    /// Whether the runtime has seen it. Calls do not say which event they answer: an answer that
    /// comes before that is a late one to the event before.
    is_fetched: bool,
    answer: Option<InvocationResponse>,
}

impl Rendezvous {
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
    pub(super) fn offer(&self, current: CurrentInvocation) {
        let mut state = self.lock();
        state.answer = None;
        state.is_fetched = false;
        state.current = Some(Arc::new(current));
        drop(state);
        self.changed.notify_all();
    }

    /// The event that runs, however often it is asked for; waits for one for at most `patience`.
    pub(super) fn next(&self, patience: Duration) -> Option<Arc<CurrentInvocation>> {
        let waited =
            self.changed.wait_timeout_while(self.lock(), patience, |state| state.current.is_none());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_fetched = state.current.is_some();
        state.current.clone()
    }

    /// Answers the event that runs. Where the runtime has none in hand, this one is dropped: the
    /// first answer is final.
    pub(super) fn settle(&self, answer: InvocationResponse) {
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
    pub(super) fn wait_answer(&self) -> InvocationResponse {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, RendezvousState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current(request_id: &str) -> CurrentInvocation {
        CurrentInvocation { request_id: request_id.to_owned(), payload: b"{}".to_vec() }
    }

    fn returned(json: &str) -> InvocationResponse {
        InvocationResponse::Returned(json.as_bytes().to_vec())
    }

    #[test]
    fn the_first_answer_is_final() {
        let rendezvous = Rendezvous::default();
        rendezvous.settle(returned("0"));
        rendezvous.offer(current("a"));
        rendezvous.next(Duration::ZERO).unwrap();
        rendezvous.settle(returned("1"));
        rendezvous.settle(returned("2"));
        assert_eq!(rendezvous.wait_answer(), returned("1"));
        rendezvous.settle(returned("3"));
        rendezvous.offer(current("b"));
        rendezvous.settle(returned("late, to a"));
        rendezvous.next(Duration::ZERO).unwrap();
        rendezvous.settle(returned("4"));
        assert_eq!(rendezvous.wait_answer(), returned("4"));
    }

    #[test]
    fn an_event_is_the_same_until_it_is_answered() {
        let rendezvous = Rendezvous::default();
        assert!(rendezvous.next(Duration::ZERO).is_none());
        rendezvous.offer(current("a"));
        for _ in 0..2 {
            assert_eq!(rendezvous.next(Duration::ZERO).unwrap().request_id, "a");
        }
        rendezvous.settle(returned("1"));
        assert!(rendezvous.next(Duration::ZERO).is_none());
    }

    #[test]
    fn readiness_is_waited_for_and_kept() {
        let rendezvous = Rendezvous::default();
        assert!(!rendezvous.wait_ready(Duration::ZERO));
        rendezvous.ready();
        rendezvous.ready();
        assert!(rendezvous.wait_ready(Duration::ZERO));
    }
}
