//! Keeps a reader for each enabled trigger that reads a stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hanshu_core::{Trigger, TriggerId, TriggerSet, TriggerSpec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::consumer::{ConsumerIdentity, StreamSource};
use super::reader::StreamReader;
use super::stream_status::StreamStatusMap;
use crate::dispatch_context::DispatchContext;
use crate::stop_signals::StopSignals;
use crate::trigger_kinds::stream_source;
use crate::trigger_watch::TriggersView;

/// Reads the streams of the enabled triggers.
#[derive(Debug)]
pub struct StreamReaderSet {
    context: DispatchContext,
    statuses: StreamStatusMap,
    readers: HashMap<TriggerId, RunningReader>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct RunningReader {
    spec: TriggerSpec,
    /// Cancelled when the trigger is switched off, changed or removed.
    stop: CancellationToken,
    /// Cancelled when the reader has ended.
    ended: CancellationToken,
}

/// The longest time between two looks at the triggers.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

impl StreamReaderSet {
    /// Reads nothing until [`Self::run`].
    pub fn new(context: DispatchContext, statuses: StreamStatusMap) -> Self {
        Self { context, statuses, readers: HashMap::new(), tasks: TaskTracker::new() }
    }

    /// Reads until `stop.intake`; batches that run may end until `stop.work`. What is cut off
    /// stays this node's in the stream, and runs again at its next start, or on another node.
    pub async fn run(mut self, mut view: TriggersView, stop: StopSignals) {
        while !stop.intake.is_cancelled() {
            self.reconcile(&view.take(), &stop);
            stop.intake.run_until_cancelled(view.changed(LOOK_INTERVAL)).await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Makes the readers match the triggers.
    fn reconcile(&mut self, triggers: &TriggerSet, stop: &StopSignals) {
        let enabled = triggers.iter().filter(|trigger| trigger.enabled);
        let wanted: HashMap<_, _> = enabled
            .filter_map(|trigger| Some((&trigger.id, (trigger, stream_source(&trigger.spec)?))))
            .collect();
        // A changed trigger's new reader waits for the old one: they have one consumer's name.
        let mut ending = HashMap::new();
        self.readers.retain(|id, reader| {
            if wanted.get(id).is_some_and(|(trigger, _)| trigger.spec == reader.spec) {
                return true;
            }
            reader.stop.cancel();
            ending.insert(id.clone(), reader.ended.clone());
            false
        });
        for (id, (trigger, source)) in wanted {
            if !self.readers.contains_key(id) {
                self.start(trigger, source, ending.remove(id), stop);
            }
        }
    }

    fn start(
        &mut self,
        trigger: &Trigger,
        source: Arc<dyn StreamSource>,
        before: Option<CancellationToken>,
        stop: &StopSignals,
    ) {
        let token = stop.intake.child_token();
        let reader = StreamReader {
            context: self.context.clone(),
            statuses: self.statuses.clone(),
            id: trigger.id.clone(),
            kind: trigger.spec.kind(),
            source,
            identity: ConsumerIdentity {
                group: format!("hanshu:{}", trigger.id),
                consumer: self.context.node.to_string(),
            },
            stop: StopSignals { intake: token.clone(), work: stop.work.clone() },
            tasks: self.tasks.clone(),
            consumer: None,
            errors: 0,
        };
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        self.tasks.spawn(async move {
            let _ended = guard;
            if let Some(before) = before {
                before.cancelled().await;
            }
            reader.run().await;
        });
        let running = RunningReader { spec: trigger.spec.clone(), stop: token, ended };
        self.readers.insert(trigger.id.clone(), running);
    }
}
