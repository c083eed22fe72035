//! The triggers of all functions, as one value that is handed around.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::function::FunctionId;
use crate::trigger::Trigger;

/// All triggers of all functions, by function. A clone is cheap, and one that was made from another
/// by [`TriggerSet::with`] shares with it what is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriggerSet {
    /// One function's each, never empty; ordered by function.
    groups: Arc<Vec<Arc<[Trigger]>>>,
}

/// One function's triggers before and after; never both empty.
#[derive(Clone, Copy, Debug)]
pub struct ChangedTriggers<'a> {
    /// As they were.
    pub before: &'a [Trigger],
    /// As they are.
    pub after: &'a [Trigger],
}

impl TriggerSet {
    /// All of them, by function.
    pub fn iter(&self) -> impl Iterator<Item = &Trigger> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// These, but for some functions, whose triggers are now the ones given.
    #[must_use]
    pub fn with<'a>(
        &self,
        functions: impl IntoIterator<Item = (&'a FunctionId, &'a [Trigger])>,
    ) -> Self {
        let mut groups = Vec::clone(&self.groups);
        for (function, triggers) in functions {
            let place = groups.binary_search_by(|group| function_of(group).cmp(&Some(function)));
            match place {
                Ok(at) if triggers.is_empty() => drop(groups.remove(at)),
                Ok(at) if *groups[at] == *triggers => {}
                Ok(at) => groups[at] = triggers.into(),
                Err(_) if triggers.is_empty() => {}
                Err(at) => groups.insert(at, triggers.into()),
            }
        }
        Self { groups: Arc::new(groups) }
    }

    /// The functions whose triggers are not as they were. Takes next to nothing for what is shared.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> Vec<ChangedTriggers<'a>> {
        let mut changed = Vec::new();
        if Arc::ptr_eq(&self.groups, &before.groups) {
            return changed;
        }
        let (mut old, mut new) = (&before.groups[..], &self.groups[..]);
        loop {
            let order = match (old.first(), new.first()) {
                (None, None) => return changed,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) if Arc::ptr_eq(a, b) => Ordering::Equal,
                (Some(a), Some(b)) => function_of(a).cmp(&function_of(b)),
            };
            let before = if order.is_le() { take_first(&mut old) } else { None };
            let after = if order.is_ge() { take_first(&mut new) } else { None };
            if !is_same(before, after) {
                let [before, after] = [before, after].map(|group| group.map_or(&[][..], |g| g));
                changed.push(ChangedTriggers { before, after });
            }
        }
    }
}

impl From<Vec<Trigger>> for TriggerSet {
    fn from(mut all: Vec<Trigger>) -> Self {
        all.sort_by(|a, b| a.id.function.cmp(&b.id.function));
        let groups = all.chunk_by(|a, b| a.id.function == b.id.function).map(Arc::from);
        Self { groups: Arc::new(groups.collect()) }
    }
}

fn function_of(group: &[Trigger]) -> Option<&FunctionId> {
    group.first().map(|trigger| &trigger.id.function)
}

fn take_first<'a>(groups: &mut &'a [Arc<[Trigger]>]) -> Option<&'a Arc<[Trigger]>> {
    let (first, rest) = groups.split_first()?;
    *groups = rest;
    Some(first)
}

fn is_same(before: Option<&Arc<[Trigger]>>, after: Option<&Arc<[Trigger]>>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after) || before == after,
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::Namespace;
    use crate::trigger::{TimerTrigger, TriggerId, TriggerSpec};

    fn function(number: u8) -> FunctionId {
        let name = format!("fn-{number}").parse().unwrap();
        FunctionId { namespace: Namespace::default(), name }
    }

    fn timers(number: u8, crons: &[u8]) -> Vec<Trigger> {
        let timer = |(index, cron): (usize, &u8)| {
            let name = format!("timer-{index}").parse().unwrap();
            let cron = format!("{cron} * * * *");
            let spec = TriggerSpec::new(TimerTrigger { cron, ..TimerTrigger::default() });
            Trigger { id: TriggerId { function: function(number), name }, spec, enabled: true }
        };
        crons.iter().enumerate().map(timer).collect()
    }

    proptest! {
        /// Whatever the steps, the result is what would have been made at once, and the
        /// differences between two states lead from one to the other.
        #[test]
        fn steps_and_differences_agree(
            steps in prop::collection::vec(
                (0u8..12, prop::collection::vec(0u8..3, 0..3)), 0..40),
            seen in 0usize..40,
        ) {
            let (mut now, mut before) = (TriggerSet::default(), TriggerSet::default());
            let mut model = std::collections::BTreeMap::new();
            for (index, (number, crons)) in steps.iter().enumerate() {
                let triggers = timers(*number, crons);
                now = now.with([(&function(*number), &triggers[..])]);
                model.insert(function(*number), triggers);
                if index == seen {
                    before = now.clone();
                }
            }
            let at_once = TriggerSet::from(model.into_values().flatten().collect::<Vec<_>>());
            prop_assert_eq!(&now, &at_once);
            let changed = now.changed_since(&before);
            let id = |changed: &ChangedTriggers<'_>| {
                let any = changed.after.first().or(changed.before.first());
                any.unwrap().id.function.clone()
            };
            prop_assert!(changed.iter().all(|each| each.before != each.after));
            let ids: Vec<_> = changed.iter().map(id).collect();
            let applied = ids.iter().zip(&changed).map(|(id, each)| (id, each.after));
            prop_assert_eq!(before.with(applied), now.clone());
            prop_assert!(now.changed_since(&at_once).is_empty());
        }
    }
}
