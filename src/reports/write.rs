//! Carries out what a report changes: one request for each object, in an order that any crash leaves healable.

use std::sync::Arc;

use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::merge::{StatusWrite, Writes};
use super::metrics::ReportMetrics;
use super::naming::{candidate_names, key_of};
use super::recent::Recent;
use super::refusal::Refusal;
use crate::api::condition::{READY, RECONCILING, STALLED};
use crate::api::{Checkpoint, CheckpointStatus, FineTune, FineTuneHistory, GROUP, Progress, VERSION};

/// Field manager of Checkpoints and histories.
pub const REPORTS_MANAGER: &str = "finetune-operator-reports";
/// Field manager of `FineTune.status.progress`.
pub const PROGRESS_MANAGER: &str = "finetune-operator-progress";

/// Writes to the API server and remembers what it answered.
pub(super) struct Writer {
    client: Client,
    recent: Recent,
    metrics: ReportMetrics,
}

impl Writer {
    pub(super) const fn new(client: Client, recent: Recent, metrics: ReportMetrics) -> Self {
        Self { client, recent, metrics }
    }

    /// Carries out `writes` in `namespace`; `run` is name and uid of the FineTune, when they are about one.
    ///
    /// # Errors
    /// The first write that failed; what came before it stays, and the next report finds it done.
    pub(super) async fn write(&self, namespace: &str, run: Option<(&str, &str)>, writes: Writes) -> Result<(), Refusal> {
        let mut statuses = Vec::new();
        if let Some((name, uid)) = run {
            for checkpoint in writes.create {
                statuses.extend(self.create_checkpoint(namespace, (name, uid), checkpoint).await?);
            }
        }
        statuses.extend(writes.statuses);
        for status in statuses {
            self.write_checkpoint_status(namespace, status).await?;
        }
        if let Some(history) = writes.history {
            self.write_history(namespace, history).await?;
        }
        if let (Some((name, uid)), Some(write)) = (run, writes.progress) {
            self.write_progress(namespace, (name, uid), &write.progress).await?;
        }
        Ok(())
    }

    /// Creates a Checkpoint; the status it is to get then. A name that is taken may be ours already (a retried request), or that of another
    /// object: then the other name is tried.
    async fn create_checkpoint(
        &self,
        namespace: &str,
        (run, uid): (&str, &str),
        mut checkpoint: Checkpoint,
    ) -> Result<Option<StatusWrite>, Refusal> {
        let Some((key, status)) = key_of(&checkpoint, uid).zip(checkpoint.status.take()) else { return Ok(None) };
        let api: Api<Checkpoint> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams { field_manager: Some(REPORTS_MANAGER.into()), ..PostParams::default() };
        let first = checkpoint.metadata.name.clone().unwrap_or_default();
        let others = candidate_names(run, uid, key).into_iter().filter(|name| *name != first).collect::<Vec<_>>();
        for name in std::iter::once(first.clone()).chain(others) {
            checkpoint.metadata.name = Some(name.clone());
            self.metrics.count_write("Checkpoint");
            let created = match api.create(&params, &checkpoint).await {
                Err(kube::Error::Api(said)) if said.is_already_exists() => {
                    let there = api.get(&name).await.map_err(|error| failed("Checkpoint", namespace, &name, &error))?;
                    Some(there).filter(|there| key_of(there, uid) == Some(key))
                }
                created => Some(created.map_err(|error| failed("Checkpoint", namespace, &name, &error))?),
            };
            let Some(created) = created else { continue };
            let write = created.metadata.uid.clone().map(|uid| StatusWrite { name, uid, status });
            self.recent.checkpoints.keep(Arc::new(created)).await;
            return Ok(write);
        }
        Err(Refusal::Internal(format!("every name for step {} of FineTune {namespace}/{run} is taken", key.step)))
    }

    async fn write_checkpoint_status(&self, namespace: &str, write: StatusWrite) -> Result<(), Refusal> {
        let StatusWrite { name, uid, status } = write;
        let api: Api<Checkpoint> = Api::namespaced(self.client.clone(), namespace);
        let body = applied("Checkpoint", (&name, &uid), &owned_status(&status));
        self.metrics.count_write("CheckpointStatus");
        let params = PatchParams::apply(REPORTS_MANAGER).force();
        match api.patch_status(&name, &params, &Patch::Apply(body)).await {
            Ok(checkpoint) => self.recent.checkpoints.keep(Arc::new(checkpoint)).await,
            Err(error) if is_gone(&error) => {
                tracing::debug!(namespace, checkpoint = name, uid, "the Checkpoint is gone");
                self.recent.checkpoints.forget(namespace, &name).await;
            }
            Err(error) => return Err(failed("Checkpoint", namespace, &name, &error)),
        }
        Ok(())
    }

    async fn write_history(&self, namespace: &str, history: FineTuneHistory) -> Result<(), Refusal> {
        let name = history.metadata.name.clone().unwrap_or_default();
        let api: Api<FineTuneHistory> = Api::namespaced(self.client.clone(), namespace);
        self.metrics.count_write("FineTuneHistory");
        let written = if history.metadata.uid.is_none() {
            let params = PostParams { field_manager: Some(REPORTS_MANAGER.into()), ..PostParams::default() };
            api.create(&params, &history).await
        } else {
            let params = PatchParams { field_manager: Some(REPORTS_MANAGER.into()), ..PatchParams::default() };
            let body = json!({
                "metadata": {"uid": history.metadata.uid, "resourceVersion": history.metadata.resource_version},
                "spec": {
                    "series": history.spec.series,
                    "events": history.spec.events,
                    "earlierSaves": history.spec.earlier_saves,
                    "logs": history.spec.logs,
                },
            });
            api.patch(&name, &params, &Patch::Merge(body)).await
        };
        match written {
            Ok(history) => self.recent.histories.keep(Arc::new(history)).await,
            // Another replica was first, or it was deleted: the next report meets what the watch shows by then.
            Err(kube::Error::Api(said)) if [404, 409].contains(&said.code) => {
                self.recent.histories.forget(namespace, &name).await;
                return Err(Refusal::NotYet(format!(
                    "the history of FineTune {namespace}/{name} has changed meanwhile: report again"
                )));
            }
            Err(error) => return Err(failed("FineTuneHistory", namespace, &name, &error)),
        }
        Ok(())
    }

    async fn write_progress(&self, namespace: &str, (name, uid): (&str, &str), progress: &Progress) -> Result<(), Refusal> {
        let api: Api<FineTune> = Api::namespaced(self.client.clone(), namespace);
        let body = applied("FineTune", (name, uid), &json!({"progress": progress}));
        self.metrics.count_write("FineTuneProgress");
        let params = PatchParams::apply(PROGRESS_MANAGER).force();
        match api.patch_status(name, &params, &Patch::Apply(body)).await {
            Ok(mut fine_tune) => {
                fine_tune.metadata.managed_fields = None;
                self.recent.fine_tunes.keep(Arc::new(fine_tune)).await;
                Ok(())
            }
            Err(error) if is_gone(&error) => {
                Err(Refusal::Gone(format!("FineTune {namespace}/{name} of uid {uid} does not exist")))
            }
            Err(error) => Err(failed("FineTune", namespace, name, &error)),
        }
    }
}

fn applied(kind: &str, (name, uid): (&str, &str), status: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": kind,
        "metadata": {"name": name, "uid": uid},
        "status": status,
    })
}

/// The status without what the Checkpoint controller owns: `best`, and conditions that are none of ours.
fn owned_status(status: &CheckpointStatus) -> Value {
    let ours = |kind: &str| [READY, STALLED, RECONCILING].contains(&kind);
    let mut status = status.clone();
    status.conditions.retain(|condition| ours(&condition.type_));
    let mut value = serde_json::to_value(&status).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("best");
    }
    value
}

/// The object is gone, or another of its name has come: server-side apply answers a conflict when the uid does not fit.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(said) if [404, 409].contains(&said.code))
}

fn failed(kind: &str, namespace: &str, name: &str, error: &kube::Error) -> Refusal {
    if let kube::Error::Api(said) = error
        && said.is_forbidden()
        && said.message.contains("being terminated")
    {
        return Refusal::Gone(format!("namespace {namespace} is being terminated"));
    }
    tracing::warn!(kind, namespace, name, %error, "a report could not be written");
    Refusal::Internal(format!("{kind} {namespace}/{name} could not be written: report again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_is_left_to_its_owner() {
        let status = CheckpointStatus { best: true, size_bytes: 3, ..CheckpointStatus::default() };
        let value = owned_status(&status);
        assert_eq!(value.get("best"), None);
        assert_eq!(value.get("sizeBytes"), Some(&json!(3)));
    }

    #[test]
    fn a_namespace_on_its_way_out_is_told_from_other_refusals() {
        let said = |message: &str| kube::Error::Api(kube::core::Status::failure(message, "Forbidden").with_code(403).boxed());
        let gone = failed("Checkpoint", "team", "x", &said("unable to create new content because it is being terminated"));
        assert_eq!(gone.code(), 404);
        assert_eq!(failed("Checkpoint", "team", "x", &said("no")).code(), 500);
    }
}
