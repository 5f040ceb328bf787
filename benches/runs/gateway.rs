//! What the REST gateway adds to the API server's own answer: lists of many jobs and creates at once, through each dialect and without it, in turns.

use std::time::{Duration, Instant};

use finetune_operator::api::{FineTune, HardwareProfile, TrainingRuntime, names};
use futures::{StreamExt, future::join_all, stream};
use k8s_openapi::api::{authentication::v1 as authentication, core::v1 as corev1, rbac::v1 as rbac};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    harness::{
        Sandbox,
        cluster::{ADMIN, config},
    },
    process::Gateway,
    table::{Row, median, plain, row},
};

/// Objects that are made at the same time.
const AT_ONCE: usize = 32;
/// Objects the gateway reads at a time, and so does who asks without it.
const CHUNK: u32 = 500;
/// Creates at the same time.
const CREATES: usize = 100;
/// How often each thing is measured.
const ROUNDS: usize = 5;
/// How much longer than the API server a list may take, and a create, at the median.
const TOLERANCE: (f64, f64) = (1.3, 1.2);
/// Most memory of a gateway that lists, in KiB: a quarter of what the chart gives it.
const MEMORY: u64 = 128 * 1024;

/// What was seen.
#[derive(Default)]
pub struct Listed {
    jobs: usize,
    direct: Vec<Duration>,
    lists: Vec<(&'static str, Vec<Duration>)>,
    created: Vec<Duration>,
    creates: Vec<(&'static str, Vec<Duration>)>,
    memory: (u64, u64),
}

/// How each dialect is asked for a page, by a filter, and for a new job.
struct Dialect {
    name: &'static str,
    list: String,
    jobs: String,
    new: Value,
}

fn dialects(namespace: &str, jobs: usize) -> Vec<Dialect> {
    let oxen = format!("/api/repos/{namespace}/bench/fine_tunes");
    let page = jobs.min(10_000) / 2;
    vec![
        Dialect {
            name: "OpenAI",
            list: "/v1/fine_tuning/jobs?limit=100&metadata[team]=a".into(),
            jobs: "/v1/fine_tuning/jobs".into(),
            new: json!({"model": "it-tiny", "training_file": "s3://bucket/rows"}),
        },
        Dialect {
            name: "Oxen",
            list: format!("{oxen}?status=completed&page_size=100&page={}", page / 100),
            jobs: oxen,
            new: json!({"resource": "models/rows.jsonl", "base_model": "it-tiny", "script_type": "it-sft"}),
        },
        Dialect {
            name: "Strongly",
            list: format!("/api/v1/fine-tuning/jobs?status=completed&limit=100&offset={page}&sort=name:asc"),
            jobs: "/api/v1/fine-tuning/jobs".into(),
            new: json!({"name": "bench", "baseModel": "it-tiny", "trainingDataset": "s3://bucket/rows"}),
        },
    ]
}

/// Fills a namespace with `jobs`, and lists and creates with the token of an account there. The operator must not run yet: it would have a say.
pub async fn measure(jobs: usize, sandbox: &Sandbox) -> Listed {
    if jobs == 0 {
        return Listed::default();
    }
    put_defaults(&sandbox.client).await;
    fill(jobs, sandbox).await;
    let caller = Caller::new(sandbox).await;
    let dialects = dialects(&sandbox.namespace, jobs);
    let mut seen = Listed { jobs, ..Listed::default() };
    seen.lists = dialects.iter().map(|dialect| (dialect.name, Vec::new())).collect();
    seen.creates.clone_from(&seen.lists);
    let begin = caller.gateway.usage().memory;
    for dialect in &dialects {
        caller.ask("GET", &dialect.list, None).await;
    }
    for _ in 0..ROUNDS {
        seen.direct.push(caller.direct().await);
        for (dialect, (_, times)) in dialects.iter().zip(&mut seen.lists) {
            times.push(caller.ask("GET", &dialect.list, None).await);
        }
    }
    seen.memory = (begin, caller.gateway.usage().memory);
    for _ in 0..ROUNDS {
        seen.created.extend(join_all((0..CREATES).map(|_| caller.create())).await);
        for (dialect, (_, times)) in dialects.iter().zip(&mut seen.creates) {
            times.extend(join_all((0..CREATES).map(|_| caller.ask("POST", &dialect.jobs, Some(&dialect.new)))).await);
        }
    }
    let params = ListParams::default();
    sandbox.api::<FineTune>().delete_collection(&DeleteParams::background(), &params).await.unwrap();
    seen
}

/// What stands in where a create names no script and no hardware.
async fn put_defaults(client: &Client) {
    let defaults = json!({"metadata": {"labels": {names::IS_DEFAULT: "true"}}});
    let params = PatchParams::default();
    Api::<TrainingRuntime>::all(client.clone()).patch("it-sft", &params, &Patch::Merge(&defaults)).await.unwrap();
    Api::<HardwareProfile>::all(client.clone()).patch("it-gpu", &params, &Patch::Merge(&defaults)).await.unwrap();
}

/// A run as people write them, with the status of one that is over.
async fn fill(jobs: usize, sandbox: &Sandbox) {
    let runs: Api<FineTune> = sandbox.api();
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "Succeeded", "message": "the run has trained to its end",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
    };
    let status = json!({
        "observedGeneration": 1, "phase": "Succeeded", "conditions": [condition("Ready"), condition("Finished")],
        "attempt": 1, "lineage": 1, "jobName": "job", "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T01:00:00Z",
        "checkpointCount": 4, "latestCheckpoint": "job-step-100", "bestCheckpoint": "job-step-100",
        "progress": {"attempt": 1, "step": 100, "totalSteps": 100, "percent": 100, "lastReportTime": "2026-01-01T01:00:00Z",
            "metrics": {"loss": "0.5", "eval_loss": "0.6"}},
    });
    let begin = Instant::now();
    let one = |number: usize| {
        let (runs, status) = (runs.clone(), status.clone());
        async move {
            let name = format!("job-{number}");
            let metadata = json!({"name": name, "labels": {"finetune.dev/repository": "bench"}});
            let spec = json!({
                "baseModel": {"name": "it-tiny"}, "dataset": {"training": {"huggingFace": {"repo": "org/rows"}}},
                "runtime": {"name": "it-sft"}, "parameters": {"learning_rate": 0.001, "epochs": 3},
                "displayName": format!("Job {number}"), "metadata": {"team": if number.is_multiple_of(2) { "a" } else { "b" }},
            });
            sandbox.create::<FineTune>(json!({"metadata": metadata, "spec": spec})).await;
            let patch: Patch<Value> = Patch::Merge(json!({"status": status}));
            runs.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
        }
    };
    stream::iter((0..jobs).map(one)).buffer_unordered(AT_ONCE).collect::<()>().await;
    eprintln!("{jobs} jobs were made in {:.0?}", begin.elapsed());
}

/// One account, with the gateway and without it.
struct Caller {
    gateway: Gateway,
    http: reqwest::Client,
    token: String,
    client: Client,
    namespace: String,
}

impl Caller {
    async fn new(sandbox: &Sandbox) -> Self {
        let account: corev1::ServiceAccount = sandbox.create(json!({"metadata": {"name": "bench"}})).await;
        let name = account.metadata.name.unwrap();
        let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": sandbox.namespace});
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "finetune-operator-edit"});
        sandbox.create::<rbac::RoleBinding>(json!({"metadata": {"name": "bench"}, "roleRef": role, "subjects": [subject]})).await;
        let request = authentication::TokenRequest::default();
        let accounts: Api<corev1::ServiceAccount> = sandbox.api();
        let answer = accounts.create_token_request(&name, &PostParams::default(), &request).await.unwrap();
        let token = answer.status.unwrap().token;
        let mut config: Config = config(ADMIN).await;
        config.auth_info = kube::config::AuthInfo { token: Some(token.clone().into()), ..Default::default() };
        let client = Client::try_from(config).unwrap();
        let gateway = Gateway::start().await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { gateway, http, token, client, namespace: sandbox.namespace.clone() }
    }

    /// How long the gateway takes for an answer, to its last byte.
    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Duration {
        let begin = Instant::now();
        let url = format!("{}{path}", self.gateway.url);
        let mut request = self.http.request(method.parse().unwrap(), url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let code = answer.status();
        let text = answer.text().await.unwrap();
        assert!(code.is_success(), "{method} {path}: {code} {text}");
        begin.elapsed()
    }

    /// How long the API server takes to hand all jobs out, in the same chunks; nothing is done with them.
    async fn direct(&self) -> Duration {
        let begin = Instant::now();
        let mut token = String::new();
        loop {
            let path =
                format!("/apis/finetune.dev/v1alpha1/namespaces/{}/finetunes?limit={CHUNK}&continue={token}", self.namespace);
            let body = self.client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
            token = continue_of(&body);
            if token.is_empty() {
                break;
            }
        }
        begin.elapsed()
    }

    /// How long the API server takes to make the object the gateway would ask for.
    async fn create(&self) -> Duration {
        let object = json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"generateName": "direct-"},
            "spec": {"baseModel": {"name": "it-tiny"}, "dataset": {"training": {"objectStore": {"uri": "s3://bucket/rows"}}},
                "runtime": {"name": "it-sft"}},
        });
        let path = format!("/apis/finetune.dev/v1alpha1/namespaces/{}/finetunes", self.namespace);
        let begin = Instant::now();
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(serde_json::to_vec(&object).unwrap()).unwrap();
        self.client.request_text(request).await.unwrap();
        begin.elapsed()
    }
}

/// Where a list goes on: that stands behind its objects.
fn continue_of(list: &str) -> String {
    list.rsplit_once("\"continue\":\"").and_then(|(_, rest)| rest.split_once('"')).map_or("", |(token, _)| token).to_owned()
}

impl Listed {
    /// A row for each dialect's lists and creates, and one for the memory.
    pub fn rows(&self) -> Vec<Row> {
        if self.jobs == 0 {
            return Vec::new();
        }
        let milliseconds = |times: &[Duration]| format!("{:.0} ms", 1000.0 * median(times));
        let mut rows = vec![plain(&format!("the API server hands {} jobs out", self.jobs), milliseconds(&self.direct))];
        let beside = |times: &[Duration], alone: &[Duration]| {
            let ratio = median(times) / median(alone);
            (ratio, format!("{} ({ratio:.2} ×)", milliseconds(times)))
        };
        for (dialect, times) in &self.lists {
            let (ratio, text) = beside(times, &self.direct);
            let name = format!("**list**, {dialect}: a filter over them and a page of 100");
            rows.push(row(&name, text, format!("≤ {:.1} ×", TOLERANCE.0), ratio <= TOLERANCE.0));
        }
        rows.push(plain(&format!("{CREATES} creates at once without the gateway, the median"), milliseconds(&self.created)));
        for (dialect, times) in &self.creates {
            let (ratio, text) = beside(times, &self.created);
            let name = format!("**create**, {dialect}: {CREATES} at once, the median");
            rows.push(row(&name, text, format!("≤ {:.1} ×", TOLERANCE.1), ratio <= TOLERANCE.1));
        }
        let text = format!("{} MiB ({} MiB before)", self.memory.1 / 1024, self.memory.0 / 1024);
        rows.push(row(
            "**most memory of the gateway**, lists",
            text,
            format!("≤ {} MiB", MEMORY / 1024),
            self.memory.1 <= MEMORY,
        ));
        rows
    }

    /// Whether the memory stayed below its limit; times are for people to judge.
    pub fn held(&self) -> bool {
        self.memory.1 <= MEMORY
    }
}
