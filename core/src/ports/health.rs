//! What keeps triggers from working now.

use crate::TriggerId;

/// The health of the triggers that need something outside, such as a user's stream.
pub trait TriggerHealth: Send + Sync {
    /// Why the trigger does not work, in one sentence, fit for its owner; `None` if it does. From
    /// memory.
    fn problem(&self, trigger: &TriggerId) -> Option<String>;

    /// Every problem that is known, with its trigger. From memory.
    fn problems(&self) -> Vec<(TriggerId, String)>;
}
