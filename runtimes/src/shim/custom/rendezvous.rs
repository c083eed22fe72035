//! Exchanges events and responses between the invoker's connection and the runtime's HTTP calls.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::shim::invocation_response::InvocationResponse;

/// The event that is being processed.
#[derive(Debug)]
pub(super) struct CurrentInvocation {
    pub(super) request_id: String,
    pub(super) payload: Vec<u8>,
}

/// Holds at most one event and at most one response at a time.
#[derive(Debug, Default)]
pub(super) struct Rendezvous {
    state: Mutex<RendezvousState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RendezvousState {
    is_ready: bool,
    /// Set from the offer until the first response.
    current: Option<Arc<CurrentInvocation>>,
    /// Whether the runtime has fetched it. Calls do not name the event that they respond to: a
    /// response before the fetch is a late one to the previous event.
    is_fetched: bool,
    response: Option<InvocationResponse>,
}

impl Rendezvous {
    /// Marks the runtime as ready; repeated calls have no effect.
    pub(super) fn ready(&self) {
        self.lock().is_ready = true;
        self.changed.notify_all();
    }

    /// Waits for the runtime to be ready; false if it is not within this time.
    pub(super) fn wait_ready(&self, patience: Duration) -> bool {
        let waited =
            self.changed.wait_timeout_while(self.lock(), patience, |state| !state.is_ready);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_ready
    }

    /// Sets the next event. The previous one must have been answered.
    pub(super) fn offer(&self, current: CurrentInvocation) {
        let mut state = self.lock();
        state.response = None;
        state.is_fetched = false;
        state.current = Some(Arc::new(current));
        drop(state);
        self.changed.notify_all();
    }

    /// The current event, the same for repeated calls; waits at most `patience` for one.
    pub(super) fn next(&self, patience: Duration) -> Option<Arc<CurrentInvocation>> {
        let waited =
            self.changed.wait_timeout_while(self.lock(), patience, |state| state.current.is_none());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_fetched = state.current.is_some();
        state.current.clone()
    }

    /// Sets the response to the current event. It is dropped if no event was fetched or the event
    /// already has a response: the first one is final.
    pub(super) fn settle(&self, response: InvocationResponse) {
        let mut state = self.lock();
        if state.is_fetched {
            state.is_fetched = false;
            state.current = None;
            state.response = Some(response);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for the response to the event that was offered.
    pub(super) fn wait_response(&self) -> InvocationResponse {
        let mut state = self.lock();
        loop {
            if let Some(response) = state.response.take() {
                return response;
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
        assert_eq!(rendezvous.wait_response(), returned("1"));
        rendezvous.settle(returned("3"));
        rendezvous.offer(current("b"));
        rendezvous.settle(returned("late, to a"));
        rendezvous.next(Duration::ZERO).unwrap();
        rendezvous.settle(returned("4"));
        assert_eq!(rendezvous.wait_response(), returned("4"));
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
