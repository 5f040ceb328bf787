//! Events for people: written one after the other beside the work, so that no reconcile waits for them.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Class;
use crate::plan::{Notice, status_text::cut};

/// Tries of one Event, and the pause after the first that the server did not take; it doubles: a minute in all.
const TRIES: (u32, Duration) = (8, Duration::from_millis(500));
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
        if let Err(error) = publish(&recorder, &event, &about).await {
            tracing::warn!(reason = notice.reason, %error, "an event could not be published");
        }
    }
}

/// Waits out a server that is away for a while: what happens then is what people want to read of later.
async fn publish(recorder: &Recorder, event: &Event, about: &ObjectReference) -> Result<(), kube::Error> {
    let (tries, mut pause) = TRIES;
    for _ in 1..tries {
        match recorder.publish(event, about).await {
            Err(error) if super::error::class_of(&error) == Class::Transient => tokio::time::sleep(pause).await,
            done => return done,
        }
        pause *= 2;
    }
    recorder.publish(event, about).await
}
