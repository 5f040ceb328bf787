//! Stands in for the agent in a simulated pod: reports with a token of that pod, and ends the pod.

use std::time::Duration;

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1 as corev1,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use finetune_operator::{
    api::{AdapterFacts, Failure, FineTune, Series, WeightsFormat, names},
    protocol::{AUDIENCE, Answer, End, FilesState, REPORT_PATH, Report, ReportedCheckpoint, ReportedProgress, env},
};

use super::{
    sandbox::{Sandbox, of},
    wait::until_some,
};

/// Tries of a report before the test gives up: the operator may be on its way up again.
const TRIES: u32 = 60;

/// The agent of one pod.
pub struct Agent {
    sandbox: Sandbox,
    http: reqwest::Client,
    url: String,
    sequence: u64,
    /// Its pod.
    pub pod: corev1::Pod,
    /// Its token.
    pub token: String,
}

impl Agent {
    /// The agent of the training pod of an attempt, once it runs.
    pub async fn training(sandbox: &Sandbox, run: &FineTune, attempt: i64) -> Self {
        Self::of_role(sandbox, &format!("{},{}={attempt}", of(run), names::ATTEMPT), names::ROLE_TRAIN).await
    }

    /// The agent of the first running pod of a role that a selector finds.
    pub async fn of_role(sandbox: &Sandbox, selector: &str, role: &str) -> Self {
        let selector = format!("{selector},{}={role}", names::ROLE);
        let pods: Api<corev1::Pod> = sandbox.api();
        let runs = |pod: &corev1::Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        };
        let pod = until_some(&pods, &selector, &format!("a {role} pod runs"), runs).await;
        Self::of_pod(sandbox, pod).await
    }

    /// The agent of a pod. One of a pod that reports nothing can only end it.
    pub async fn of_pod(sandbox: &Sandbox, pod: corev1::Pod) -> Self {
        let ca = variable(&pod, env::REPORT_CA).unwrap_or_default();
        let roots = reqwest::Certificate::from_pem_bundle(ca.as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only(roots).build().unwrap();
        let url = format!("{}{REPORT_PATH}", variable(&pod, env::REPORT_URL).unwrap_or_default());
        let token = token(sandbox, Some(&pod), AUDIENCE).await;
        Self { sandbox: sandbox.clone(), http, url, sequence: 0, pod, token }
    }

    /// Posts a report once, with any token, and returns status code and body.
    pub async fn post(&self, token: Option<&str>, report: &Report) -> Result<(u16, String), reqwest::Error> {
        let request = self.http.post(&self.url).json(report);
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Posts a report as often as it takes, as the real agent does: what is refused for a reason that may pass is said again.
    pub async fn report(&mut self, mut report: Report) -> Answer {
        self.sequence += 1;
        report.sequence = self.sequence;
        let mut last = String::new();
        for _ in 0..TRIES {
            match self.post(Some(&self.token), &report).await {
                Ok((200, body)) => return serde_json::from_str(&body).unwrap(),
                Ok((code @ (401 | 403 | 429 | 500..), body)) => last = format!("{code} {body}"),
                Ok((code, body)) => panic!("the report was refused: {code} {body}"),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("the report does not arrive: {last}");
    }

    /// Reports a training from its first word to its recorded end: after each save everything saved so far, as the real agent does.
    pub async fn train(&mut self, saves: &[(i64, &str)]) {
        let attempt = self.attempt();
        let total = saves.last().map_or(0, |(step, _)| *step);
        self.report(Report { progress: Some(progress(0, total, "9.0")), ..Report::default() }).await;
        for count in 1..=saves.len() {
            self.report(so_far(attempt, &saves[..count], total)).await;
        }
        let end = Some(End { exit_code: 0, failure: None });
        self.report(Report { end, log: vec!["2026-01-01T00:00:00Z done".into()], ..so_far(attempt, saves, total) }).await;
    }

    /// The attempt its pod belongs to.
    pub fn attempt(&self) -> i64 {
        self.pod.labels().get(names::ATTEMPT).unwrap().parse().unwrap()
    }

    /// Reports how training ended, and ends the pod so: the last words are a failure as the real agent leaves it, or none.
    pub async fn fail(&mut self, code: i32, failure: Option<Failure>) {
        let words = failure
            .as_ref()
            .map_or_else(String::new, |failure| json!({"failure": failure, "lineage": 1, "delivered": true}).to_string());
        self.report(Report { end: Some(End { exit_code: code, failure }), ..Report::default() }).await;
        self.end(&format!("fail:{code}"), &words).await;
    }

    /// Ends the pod: `succeed`, or `fail:CODE` with the last words of its first container.
    pub async fn end(&self, outcome: &str, message: &str) {
        let notes = json!({"test.finetune.dev/outcome": outcome, "test.finetune.dev/message": message});
        let patch = Patch::Merge(json!({"metadata": {"uid": self.pod.uid(), "annotations": notes}}));
        let pods: Api<corev1::Pod> = self.sandbox.api();
        pods.patch(&self.pod.name_any(), &PatchParams::default(), &patch).await.unwrap();
    }
}

/// Somebody else's finalizer.
const HOLD: &str = "test.finetune.dev/hold";

impl Agent {
    /// Keeps the pod though it is deleted, as a slow node does.
    pub async fn hold(&self) {
        self.change_finalizers(|finalizers| finalizers.push(HOLD.into())).await;
    }

    /// Lets the pod go.
    pub async fn let_go(&self) {
        self.change_finalizers(|finalizers| finalizers.retain(|name| name != HOLD)).await;
    }

    /// The controller of Jobs has a finalizer of its own there, which comes and goes: what was read must still hold.
    async fn change_finalizers(&self, change: impl Fn(&mut Vec<String>)) {
        let pods: Api<corev1::Pod> = self.sandbox.api();
        loop {
            let there = pods.get(&self.pod.name_any()).await.unwrap();
            let mut finalizers = there.finalizers().to_vec();
            change(&mut finalizers);
            let metadata = json!({"finalizers": finalizers, "resourceVersion": there.resource_version()});
            let patch = Patch::Merge(json!({"metadata": metadata}));
            match pods.patch(&self.pod.name_any(), &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                patched => break drop(patched.unwrap()),
            }
        }
    }
}

/// A token of the namespace's ServiceAccount, bound to a pod or not.
pub async fn token(sandbox: &Sandbox, pod: Option<&corev1::Pod>, audience: &str) -> String {
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    });
    let spec = TokenRequestSpec { audiences: vec![audience.into()], bound_object_ref: bound, expiration_seconds: None };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts: Api<corev1::ServiceAccount> = sandbox.api();
    accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap().status.unwrap().token
}

/// What is known after some saves of a training of `total` steps.
pub fn so_far(attempt: i64, saves: &[(i64, &str)], total: i64) -> Report {
    let (step, loss) = saves.last().copied().unwrap_or((0, "9.0"));
    Report {
        progress: Some(progress(step, total, loss)),
        checkpoints: saves.iter().map(|(step, loss)| saved(attempt, *step, loss)).collect(),
        series: vec![Series {
            name: "loss".into(),
            steps: saves.iter().map(|(step, _)| *step).collect(),
            values: saves.iter().map(|(_, loss)| (*loss).to_owned()).collect(),
        }],
        ..Report::default()
    }
}

fn progress(step: i64, total: i64, loss: &str) -> ReportedProgress {
    ReportedProgress {
        step,
        total_steps: Some(total),
        estimated_remaining_seconds: Some(total - step),
        metrics: [("loss".to_owned(), loss.to_owned())].into(),
        ..ReportedProgress::default()
    }
}

/// A verified adapter of one step; its training and evaluation loss are the same.
pub fn saved(attempt: i64, step: i64, loss: &str) -> ReportedCheckpoint {
    ReportedCheckpoint {
        step,
        lineage: 1,
        attempt,
        state: FilesState::Ready,
        message: String::new(),
        format: WeightsFormat::Adapter,
        saved_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        metrics: ["loss", "eval_loss"].map(|name| (name.to_owned(), loss.to_owned())).into(),
        size_bytes: 1000 + step,
        file_count: 7,
        digest: Some(format!("sha256:{step:064}")),
        resumable: true,
        adapter: Some(AdapterFacts { rank: 16, target_modules: vec!["q_proj".into()], ..AdapterFacts::default() }),
        samples: Vec::new(),
    }
}

/// The value of a variable in any container of a pod.
pub fn variable(pod: &corev1::Pod, name: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.flat_map(|container| container.env.iter().flatten()).find(|variable| variable.name == name)?.value.clone()
}
