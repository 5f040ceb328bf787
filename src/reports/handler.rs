//! One report from request to answer: who speaks, for whom, is it sound, what does it change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use axum::{Json, extract::rejection::JsonRejection};
use jiff::Timestamp;
use moka::future::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::authentication::{Authenticator, PodIdentity};
use super::authorization::{RunSpeaker, Speaker};
use super::limits::{self, PodLimits, whole_seconds};
use super::merge::{self, Observed, Writes};
use super::metrics::ReportMetrics;
use super::pacing;
use super::refusal::Refusal;
use super::stores::Lookup;
use super::validation::{Bounds, validate};
use super::write::Writer;
use crate::api::Output;
use crate::protocol::{Answer, MAX_REPORT_BYTES, Report};

const MAX_SPEAKERS_OF_A_RUN: usize = 64;

/// What is remembered of a run between its reports; held while one of them is written, so that they never overtake each other.
#[derive(Default)]
struct Memory {
    progress_written: Option<Instant>,
    sequences: BTreeMap<String, u64>,
}

impl Memory {
    /// Whether the pod has said this already.
    fn has_heard(&self, pod_uid: &str, sequence: u64) -> bool {
        self.sequences.get(pod_uid).is_some_and(|last| sequence <= *last)
    }

    fn hear(&mut self, pod_uid: &str, sequence: u64) {
        if !self.sequences.contains_key(pod_uid) && self.sequences.len() >= MAX_SPEAKERS_OF_A_RUN {
            self.sequences.pop_first();
        }
        self.sequences.insert(pod_uid.to_owned(), sequence);
    }
}

/// Handles reports.
pub(super) struct Handler {
    pub(super) authenticator: Authenticator,
    pub(super) lookup: Lookup,
    pub(super) writer: Writer,
    pub(super) default_output: Option<Output>,
    pub(super) metrics: ReportMetrics,
    pods: Mutex<PodLimits>,
    running: Semaphore,
    runs: Cache<String, Arc<tokio::sync::Mutex<Memory>>>,
}

impl Handler {
    pub(super) fn new(authenticator: Authenticator, lookup: Lookup, writer: Writer, metrics: ReportMetrics) -> Self {
        Self {
            authenticator,
            lookup,
            writer,
            default_output: None,
            metrics,
            pods: Mutex::default(),
            running: Semaphore::new(limits::CONCURRENT_REPORTS),
            runs: Cache::builder().max_capacity(20_000).time_to_idle(Duration::from_hours(1)).build(),
        }
    }

    /// The answer to a request.
    pub(super) async fn handle(&self, request: Request<Body>) -> Result<Json<Answer>, Refusal> {
        let handled = tokio::time::timeout(limits::REPORT_TIMEOUT, self.receive(request)).await;
        let answer = handled.unwrap_or_else(|_| Err(Refusal::Internal("the report took too long: report again".into())));
        self.metrics.count_report(answer.as_ref().map_or_else(Refusal::reason, |_| "Accepted"));
        answer.map(Json)
    }

    async fn receive(&self, request: Request<Body>) -> Result<Answer, Refusal> {
        let _permit = self.permit()?;
        let identity = self.identify(request.headers()).await?;
        let speaker = self.lookup.speaker(&identity).await?;
        let report = read(request).await?;
        match speaker {
            Speaker::Run(speaker) => self.run(&identity.namespace, &identity.uid, &speaker, &report).await,
            Speaker::Import { checkpoint, uid } => self.import(&identity.namespace, (&checkpoint, &uid), &report).await,
        }
    }

    /// Leave to work, while not too many do.
    pub(super) fn permit(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.running.try_acquire().map_err(|_| Refusal::TooMany(1))
    }

    /// The pod that speaks, unless it speaks too often or too early.
    pub(super) async fn identify(&self, headers: &HeaderMap) -> Result<PodIdentity, Refusal> {
        let identity = self.authenticator.authenticate(bearer(headers)?).await?;
        let admitted = self.pods.lock().unwrap_or_else(PoisonError::into_inner).admit(&identity.uid, Instant::now());
        admitted.map_err(|wait| Refusal::TooMany(whole_seconds(wait)))?;
        if !self.lookup.is_ready() {
            return Err(Refusal::NotYet("this replica is still reading what there is: report again".into()));
        }
        Ok(identity)
    }

    async fn run(&self, namespace: &str, pod: &str, speaker: &RunSpeaker, report: &Report) -> Result<Answer, Refusal> {
        let memory = self.runs.get_with(speaker.uid.clone(), async { Arc::default() }).await;
        let mut memory = memory.lock().await;
        let facts = self.lookup.run(namespace, speaker, report).await?;
        validate(report, Bounds::of_run(speaker, &facts.fine_tune))?;
        let observed = Observed {
            fine_tune: &facts.fine_tune,
            checkpoints: &facts.checkpoints,
            taken: &facts.taken,
            history: facts.history.as_deref(),
            default_output: self.default_output.as_ref(),
        };
        let interval = pacing::interval_seconds(self.lookup.active_runs());
        if !memory.has_heard(pod, report.sequence) {
            let mut writes = merge::merge(speaker, &observed, report, Timestamp::now())?;
            let due = pacing::is_due(memory.progress_written, Instant::now(), interval);
            writes.progress = writes.progress.filter(|progress| progress.urgent || due);
            self.write_run(namespace, speaker, writes, &mut memory).await?;
            memory.hear(pod, report.sequence);
        }
        Ok(Answer {
            interval_seconds: pacing::told_seconds(interval, rand::random()),
            delete: merge::deletions(speaker, &observed),
        })
    }

    async fn write_run(&self, namespace: &str, speaker: &RunSpeaker, writes: Writes, memory: &mut Memory) -> Result<(), Refusal> {
        let progressed = writes.progress.is_some();
        if !writes.is_empty() {
            self.writer.write(namespace, Some((&speaker.fine_tune, &speaker.uid)), writes).await?;
        }
        if progressed {
            memory.progress_written = Some(Instant::now());
        }
        Ok(())
    }

    async fn import(&self, namespace: &str, (name, uid): (&str, &str), report: &Report) -> Result<Answer, Refusal> {
        validate(report, Bounds::of_import())?;
        let memory = self.runs.get_with(uid.to_owned(), async { Arc::default() }).await;
        let _memory = memory.lock().await;
        let checkpoint = self.lookup.checkpoint(namespace, name).await?;
        if checkpoint.metadata.uid.as_deref() != Some(uid) {
            return Err(Refusal::Gone(format!("Checkpoint {namespace}/{name} of uid {uid} does not exist")));
        }
        let writes = merge::merge_import(&checkpoint, report, Timestamp::now());
        self.writer.write(namespace, None, writes).await?;
        let interval = pacing::interval_seconds(self.lookup.active_runs());
        Ok(Answer { interval_seconds: interval, delete: Vec::new() })
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(Refusal::NoToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refusal::NoToken)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Refusal::NoToken);
    }
    Ok(token)
}

async fn read(request: Request<Body>) -> Result<Report, Refusal> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > MAX_REPORT_BYTES) {
        return Err(Refusal::TooLarge);
    }
    let body = axum::body::to_bytes(request.into_body(), MAX_REPORT_BYTES);
    let body = tokio::time::timeout(limits::BODY_TIMEOUT, body).await.map_err(|_| Refusal::TooSlow)?;
    let body = body.map_err(|_| Refusal::TooLarge)?;
    match Json::<Report>::from_bytes(&body) {
        Ok(Json(report)) => Ok(report),
        Err(rejection) => Err(malformed(&rejection)),
    }
}

/// The path of the field and what is wrong with it, as the parser says.
fn malformed(rejection: &JsonRejection) -> Refusal {
    let text = std::error::Error::source(rejection).map_or_else(|| rejection.body_text(), ToString::to_string);
    match text.split_once(": ") {
        Some((field, message)) if !field.contains(' ') => Refusal::invalid(field, message),
        _ => Refusal::invalid(".", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_tokens_are_taken() {
        let said = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, header::HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(said("Bearer abc"), Ok("abc".into()));
        assert_eq!(said("bearer  abc"), Ok("abc".into()));
        for value in ["", "Bearer", "Bearer ", "Basic abc"] {
            assert_eq!(said(value), Err(Refusal::NoToken), "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), Err(Refusal::NoToken));
    }

    #[test]
    fn a_field_the_parser_refuses_is_named() {
        let refusal = |text: &str| match Json::<Report>::from_bytes(text.as_bytes()) {
            Ok(_) => None,
            Err(rejection) => Some(malformed(&rejection)),
        };
        let field = |text| match refusal(text) {
            Some(Refusal::Invalid { field, .. }) => field,
            other => format!("{other:?}"),
        };
        assert_eq!(field(r#"{"sequence":1,"progress":{"step":"x"}}"#), "progress.step");
        assert_eq!(field(r#"{"sequence":-1}"#), "sequence");
        assert_eq!(refusal("{").map(|refusal| refusal.code()), Some(422));
    }

    #[test]
    fn what_a_pod_has_said_before_is_known_and_the_memory_is_bounded() {
        let mut memory = Memory::default();
        assert!(!memory.has_heard("pod", 1));
        memory.hear("pod", 5);
        assert!(memory.has_heard("pod", 5) && memory.has_heard("pod", 4) && !memory.has_heard("pod", 6));
        for pod in 0..1000 {
            memory.hear(&pod.to_string(), 1);
        }
        assert_eq!(memory.sequences.len(), MAX_SPEAKERS_OF_A_RUN);
    }
}
