//! Many runs at once, or as many plain Jobs, from the first creation until all are finished.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use finetune_operator::{
    api::{FineTune, condition},
    protocol::{End, Report},
};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    contract::CHECKPOINTS,
    harness::{
        Agent, Sandbox,
        agent::so_far,
        wait::{Object, list},
    },
};

/// The hardware of all runs: without GPUs, so that the simulated nodes have room for all of them at once.
pub const HARDWARE: &str = "bench-cpu";
/// Longest wait for all of a load to finish.
const PATIENCE: Duration = Duration::from_mins(10);
/// Creations under way at once.
const CREATIONS: usize = 32;
/// What the agents report: step and loss of each save.
const SAVES: [(i64, &str); CHECKPOINTS] = [(25, "3.5"), (50, "2.5"), (75, "1.5"), (100, "0.5")];

/// Objects to create and to see through, in a namespace of their own.
pub struct Load {
    /// How many.
    pub count: usize,
    /// How long their pods work before each save.
    pub pause: Duration,
    /// The namespace.
    pub sandbox: Sandbox,
}

/// What the Jobs of runs look like, for Jobs made by hand.
pub struct Shape(Value);

impl Shape {
    /// The shape of the one Job in a namespace.
    pub async fn of_the_only_job(sandbox: &Sandbox) -> Self {
        let job = list(&sandbox.api::<batch::Job>(), "").await.remove(0);
        let mut spec = serde_json::to_value(job.spec.unwrap()).unwrap();
        spec.as_object_mut().unwrap().remove("selector");
        // Without the labels nobody but the Job controller takes note of the Job.
        spec["template"]["metadata"].as_object_mut().unwrap().remove("labels");
        Self(spec)
    }
}

impl Load {
    /// The time that many runs take, created at once.
    pub async fn runs(&self) -> Duration {
        let is_finished = |run: &FineTune| {
            let finished = run.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, condition::FINISHED));
            let phase = run.status.as_ref().map(|status| format!("{:?}", status.phase));
            assert!(!finished || phase.as_deref() == Some("Succeeded"), "{} is {phase:?}", run.name_any());
            finished
        };
        let create = |number: usize| async move {
            self.sandbox.run(&format!("run-{number}"), json!({"hardware": {"profile": HARDWARE}})).await;
        };
        self.through(is_finished, create, true).await
    }

    /// The time that many plain Jobs take.
    pub async fn jobs(&self, shape: &Shape) -> Duration {
        let is_complete = |job: &batch::Job| {
            let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.filter(|condition| condition.status == "True").any(|condition| condition.type_ == "Complete")
        };
        let create = |number: usize| async move {
            let job = json!({"metadata": {"name": format!("job-{number}")}, "spec": shape.0});
            self.sandbox.create::<batch::Job>(job).await;
        };
        self.through(is_complete, create, false).await
    }

    /// Creates everything and plays the agents until every object `is_over`.
    async fn through<K, C>(&self, is_over: impl Fn(&K) -> bool, create: impl Fn(usize) -> C, reports: bool) -> Duration
    where
        K: Object + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        C: Future<Output = ()>,
    {
        let begin = Instant::now();
        let creations = futures::stream::iter(0..self.count).for_each_concurrent(CREATIONS, create);
        let finished = async {
            let mut left = self.count;
            let mut seen = HashSet::new();
            let mut objects = self.changes::<K>();
            while left > 0 {
                let object = objects.next().await.unwrap();
                if is_over(&object) && seen.insert(object.uid()) {
                    left -= 1;
                }
            }
            begin.elapsed()
        };
        let all = async { tokio::join!(creations, finished, self.play(reports)).1 };
        tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("not all finished within {PATIENCE:?}"))
    }

    /// An agent for every pod that comes to run; returns when all have ended their pods.
    async fn play(&self, reports: bool) {
        let mut pods = self.changes::<corev1::Pod>();
        let (mut seen, mut agents) = (HashSet::new(), JoinSet::new());
        while seen.len() < self.count {
            let pod = pods.next().await.unwrap();
            let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
            if runs && seen.insert(pod.uid()) {
                agents.spawn(act(self.sandbox.clone(), pod, self.pause, reports));
            }
        }
        agents.join_all().await;
    }

    /// Every object of a kind as it comes and changes.
    fn changes<K>(&self) -> impl Stream<Item = K> + Unpin
    where
        K: Object + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    {
        let changes = watcher(self.sandbox.api::<K>(), watcher::Config::default()).default_backoff().applied_objects();
        changes.into_stream().filter_map(|change| std::future::ready(change.ok())).boxed()
    }
}

/// Acts out one pod: gets its token, works, saves, ends. Only the pods of runs tell anybody of their saves. A trainer works on while its sidecar
/// reports, so saves come at fixed times, and the end alone waits for the last report.
async fn act(sandbox: Sandbox, pod: corev1::Pod, pause: Duration, reports: bool) {
    let mut agent = Agent::of_pod(&sandbox, pod).await;
    let total = SAVES.last().map_or(0, |(step, _)| *step);
    let mut saves = tokio::time::interval_at(tokio::time::Instant::now() + pause, pause);
    for count in 1..=SAVES.len() {
        saves.tick().await;
        if reports {
            agent.report(so_far(1, &SAVES[..count], total)).await;
        }
    }
    if reports {
        let end = Some(End { exit_code: 0, failure: None });
        let log = vec!["2026-01-01T00:00:00Z done".to_owned()];
        agent.report(Report { end, log, ..so_far(1, &SAVES, total) }).await;
    }
    agent.end("succeed", "").await;
}
