//! What is live at one moment: immutable, and cheap to make from the one before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hanshu_core::ports::{FunctionEntry, RegistrySnapshot};
use hanshu_core::{Digest, FunctionId, FunctionName, Namespace, Qualifier, Revision, TriggerSet};

/// A namespace's functions are in so many parts: a change copies one of them.
const SHARDS: usize = 32;

/// Everything that is live at one moment.
#[derive(Debug, Default)]
pub struct CatalogSnapshot {
    /// The registry's counter when the snapshot was read.
    pub counter: i64,
    /// Namespaces without a function are left out. A snapshot that follows on another shares with
    /// it every namespace, part and function that is the same.
    functions: HashMap<Namespace, Arc<SnapshotShards>>,
    /// All triggers of all functions, enabled or not.
    pub triggers: TriggerSet,
}

type SnapshotShards = [Arc<SnapshotShard>; SHARDS];
type SnapshotShard = HashMap<FunctionName, Arc<LiveFunction>>;

/// A function of the snapshot, with lookups made in advance.
#[derive(Debug)]
pub(crate) struct LiveFunction {
    id: FunctionId,
    entry: FunctionEntry,
    pub(crate) latest: Option<Arc<Revision>>,
    pub(crate) versions: HashMap<u32, Arc<Revision>>,
    /// Of `latest` and of each version.
    digests: Vec<Digest>,
}

impl CatalogSnapshot {
    pub(crate) fn new(read: RegistrySnapshot) -> Self {
        let mut functions = HashMap::new();
        let mut triggers = Vec::new();
        for entry in read.functions {
            let Some((first, _)) = entry.revisions.first() else { continue };
            let id = first.function.clone();
            triggers.extend(entry.triggers.iter().cloned());
            shard_mut(&mut functions, &id)
                .insert(id.name.clone(), Arc::new(LiveFunction::new(id, entry)));
        }
        Self { counter: read.counter, functions, triggers: triggers.into() }
    }

    /// This one, but for some functions, which are as given; `None` for one that is gone.
    pub(crate) fn with(
        &self,
        counter: i64,
        changed: Vec<(FunctionId, Option<FunctionEntry>)>,
    ) -> Self {
        let triggers = changed.iter().map(|(id, entry)| {
            let triggers = entry.as_ref().map_or(&[][..], |entry| &entry.triggers);
            (id, triggers)
        });
        let triggers = self.triggers.with(triggers);
        let mut functions = self.functions.clone();
        for (id, entry) in changed {
            let part = shard_mut(&mut functions, &id);
            match entry {
                Some(entry) => part.insert(id.name.clone(), Arc::new(LiveFunction::new(id, entry))),
                None => part.remove(&id.name),
            };
        }
        functions.retain(|_, parts| parts.iter().any(|part| !part.is_empty()));
        Self { counter, functions, triggers }
    }

    pub(crate) fn find(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
    ) -> Option<&Arc<LiveFunction>> {
        self.functions.get(namespace)?[shard_of(name)].get(name)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<LiveFunction>> {
        self.functions.values().flat_map(|parts| &**parts).flat_map(|part| part.values())
    }

    /// One function with everything that belongs to it.
    pub fn function(&self, id: &FunctionId) -> Option<&FunctionEntry> {
        self.find(&id.namespace, &id.name).map(|live| &live.entry)
    }

    /// All functions of a namespace, ordered by name; of all namespaces without one.
    pub fn list(&self, namespace: Option<&Namespace>) -> Vec<&FunctionEntry> {
        let wanted =
            |live: &&Arc<LiveFunction>| namespace.is_none_or(|only| *only == live.id.namespace);
        let mut all: Vec<_> = self.all().filter(wanted).collect();
        all.sort_by_key(|live| &live.id);
        all.into_iter().map(|live| &live.entry).collect()
    }

    /// The packages of every live revision.
    pub fn packages(&self) -> Vec<Digest> {
        let codes: BTreeSet<_> = self.live().map(|revision| &revision.code).collect();
        codes.into_iter().cloned().collect()
    }

    /// Every live revision of every function.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Revision>> {
        self.all().flat_map(|live| live.latest.iter().chain(live.versions.values()))
    }

    /// Every function, with the digests of its live revisions: pools of others are retired.
    pub fn revisions(&self) -> impl Iterator<Item = (&FunctionId, &[Digest])> {
        self.all().map(|live| (&live.id, &live.digests[..]))
    }

    /// As [`Self::revisions`], but only functions that are not as they were in an older snapshot,
    /// with no digest for those that are gone.
    pub fn revisions_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a FunctionId, &'a [Digest])> {
        let new = self.unlike(before).map(|live| (&live.id, &live.digests[..]));
        let gone = before.unlike(self).filter(|old| self.function(&old.id).is_none());
        new.chain(gone.map(|old| (&old.id, &[][..])))
    }

    /// The functions that are not the same in the other one.
    fn unlike<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Arc<LiveFunction>> {
        let parts = self.functions.iter().flat_map(|(namespace, parts)| {
            let others = other.functions.get(namespace);
            let other = move |at: usize| others.map(|others| &others[at]);
            parts.iter().enumerate().map(move |(at, part)| (part, other(at)))
        });
        let apart = parts.filter(|(part, other)| !other.is_some_and(|o| Arc::ptr_eq(part, o)));
        apart.flat_map(|(part, other)| {
            part.values().filter(move |live| {
                let same = other.and_then(|other| other.get(&live.id.name));
                !same.is_some_and(|same| Arc::ptr_eq(live, same))
            })
        })
    }
}

/// Which part a function is in: the upper bits of its name's FNV-1a hash.
fn shard_of(name: &FunctionName) -> usize {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = name.as_str().bytes().fold(0x811c_9dc5, step);
    (hash >> 16) as usize % SHARDS
}

/// The part that a function belongs into, copied if another snapshot has it too.
fn shard_mut<'a>(
    functions: &'a mut HashMap<Namespace, Arc<SnapshotShards>>,
    id: &FunctionId,
) -> &'a mut SnapshotShard {
    let parts = Arc::make_mut(functions.entry(id.namespace.clone()).or_default());
    Arc::make_mut(&mut parts[shard_of(&id.name)])
}

impl LiveFunction {
    fn new(id: FunctionId, entry: FunctionEntry) -> Self {
        let mut latest = None;
        let mut versions = HashMap::new();
        for (revision, _) in &entry.revisions {
            let shared = Arc::new(revision.clone());
            match revision.version {
                Qualifier::Latest => latest = Some(shared),
                Qualifier::Version(number) => drop(versions.insert(number, shared)),
            }
        }
        let digests = entry.revisions.iter().map(|(revision, _)| revision.digest.clone()).collect();
        Self { id, entry, latest, versions, digests }
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
