//! The one way in which mutexes are locked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, whether or not a holder has panicked: what these mutexes guard is changed in
/// steps that each leave it valid, so that a panic elsewhere is no reason for a second one here.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
