//! Events for people: written one after the other beside the work, so that no reconcile waits for them.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::plan::{Notice, status_text::cut};

/// Events that may wait; more are dropped.
const WAITING: usize = 1024;
/// Longest note of an Event, in bytes.
const LONGEST_NOTE: usize = 1000;

/// Where notices are handed in.
#[derive(Clone)]
pub(super) struct Events {
    waiting: Sender<(ObjectReference, Notice)>,
}

impl Events {
    /// Starts the writer; it ends with the last of its senders. `instance` is the name of this process in Events.
    pub(super) fn start(client: Client, instance: Option<String>) -> Self {
        let recorder = Recorder::new(client, Reporter { controller: "finetune-operator".into(), instance });
        let (waiting, due) = channel(WAITING);
        tokio::spawn(write(recorder, due));
        Self { waiting }
    }

    /// Hands a notice in.
    pub(super) fn tell(&self, about: ObjectReference, notice: &Notice) {
        if self.waiting.try_send((about, notice.clone())).is_err() {
            tracing::warn!(reason = notice.reason, "an event was dropped: too many wait");
        }
    }
}

async fn write(recorder: Recorder, mut due: Receiver<(ObjectReference, Notice)>) {
    while let Some((about, notice)) = due.recv().await {
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.into(),
            note: Some(cut(&notice.message, LONGEST_NOTE)),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &about).await {
            tracing::warn!(reason = notice.reason, %error, "an event could not be published");
        }
    }
}
