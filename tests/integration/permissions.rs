//! Checkpoints that other namespaces may use, and may not any more. Simulated nodes run no containers, so the real `agent export` and `agent fetch`
//! run beside them, with the tokens of their pods.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use k8s_openapi::api::{apps::v1 as apps, core::v1 as corev1, events::v1 as events, policy::v1 as policy};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use finetune_operator::{
    api::{Checkpoint, CheckpointPermission, CheckpointPhase, DeploymentPhase, ModelDeployment, condition, names},
    checkpoint_files::{Manifest, Origin, RealFs, RelPath, inspect},
    protocol::{AUDIENCE, FetchConfig, Input, Report, env, sharing::exporter_name},
};

use crate::harness::{
    Agent, Sandbox,
    agent::{token, variable},
    in_sandbox, saved,
    wait::{until, until_gone, until_some},
};

/// Runs a test in two namespaces: of who has checkpoints, and of who would use them.
async fn between<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Sandbox, Sandbox) -> F + Send + 'static) {
    in_sandbox(|owner| async move { in_sandbox(|user| test(owner, user)).await }).await;
}

/// A verified checkpoint written by hand; with a digest of its own, or that of real files.
async fn checkpoint(owner: &Sandbox, name: &str, digest: Option<String>) -> Checkpoint {
    let storage = json!({"volume": {"claimName": "models", "path": format!("old/{name}")}});
    let spec = json!({"baseModel": {"name": "it-tiny"}, "format": "Adapter", "step": 7, "storage": storage});
    let made: Checkpoint = owner.create(json!({"metadata": {"name": name}, "spec": spec})).await;
    let selector = format!("{}={}", names::CHECKPOINT_UID, made.uid().unwrap());
    let mut reader = Agent::of_role(owner, &selector, names::ROLE_IMPORT).await;
    let mut found = saved(0, 7, "1.0");
    found.digest = digest.or(found.digest);
    reader.report(Report { checkpoints: vec![found], ..Report::default() }).await;
    reader.end("succeed", "").await;
    until(&owner.api::<Checkpoint>(), name, "it is Ready", |checkpoint| {
        checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Ready)
    })
    .await
}

async fn serve(user: &Sandbox, owner: &Sandbox, checkpoint: &str) -> ModelDeployment {
    let checkpoint = json!({"name": checkpoint, "namespace": owner.namespace});
    let spec = json!({"checkpoint": checkpoint, "runtime": {"name": "it-server"}, "hardware": {"profile": "it-gpu"}});
    user.create(json!({"metadata": {"name": "bot"}, "spec": spec})).await
}

async fn permit(owner: &Sandbox, name: &str, spec: Value) -> CheckpointPermission {
    owner.create(json!({"metadata": {"name": name}, "spec": spec})).await
}

async fn revoke(owner: &Sandbox, name: &str) {
    owner.api::<CheckpointPermission>().delete(name, &DeleteParams::default()).await.unwrap();
}

async fn until_refused(user: &Sandbox) -> ModelDeployment {
    until(&user.api::<ModelDeployment>(), "bot", "it is not permitted", |deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let stalled = condition::find(&status.conditions, condition::STALLED);
        stalled.is_some_and(|stalled| stalled.status == "True" && stalled.reason == "NotPermitted") && status.replicas == 0
    })
    .await
}

async fn until_serving(user: &Sandbox) -> ModelDeployment {
    until(&user.api::<ModelDeployment>(), "bot", "it serves", |deployment| {
        deployment.status.as_ref().is_some_and(|status| status.phase == DeploymentPhase::Ready)
    })
    .await
}

async fn exporter(owner: &Sandbox, checkpoint: &Checkpoint) -> apps::Deployment {
    let name = exporter_name(&checkpoint.uid().unwrap());
    until(&owner.api::<apps::Deployment>(), &name, "the exporter is there", |_| true).await
}

/// What is left of what was made for a Deployment that may not serve any more.
async fn until_torn_down(user: &Sandbox, workload: &apps::Deployment) {
    until_gone(&user.api(), workload).await;
    let service: Option<corev1::Service> = user.api().get_opt("bot").await.unwrap();
    if let Some(service) = service {
        until_gone(&user.api(), &service).await;
    }
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_permission_opens_a_checkpoint_and_its_end_tears_down_what_served_it() {
    between(|owner, user| async move {
        serve(&user, &owner, "shared").await;
        let message = |deployment: &ModelDeployment| {
            let conditions = &deployment.status.as_ref().unwrap().conditions;
            condition::find(conditions, condition::STALLED).unwrap().message.clone()
        };
        let before = message(&until_refused(&user).await);
        let shared = checkpoint(&owner, "shared", None).await;
        permit(&owner, "for-others", json!({"checkpoint": {"name": "shared"}, "project": "somebody-else"})).await;
        permit(&user, "by-myself", json!({"checkpoint": {"name": "shared"}, "project": user.namespace})).await;
        permit(&owner, "another", json!({"checkpoint": {"name": "shared2"}, "project": user.namespace})).await;
        // Each of these was looked at when the next thing happens in its namespace.
        let deployments: Api<ModelDeployment> = user.api();
        deployments.patch("bot", &PatchParams::default(), &Patch::Merge(json!({"spec": {"modelName": "bot"}}))).await.unwrap();
        let refused = until(&deployments, "bot", "it is looked at again", |bot| {
            bot.status.as_ref().is_some_and(|status| status.observed_generation == bot.metadata.generation)
        })
        .await;
        assert_eq!(message(&refused), before, "that it exists by now is nothing to tell");
        assert!(user.api::<apps::Deployment>().get_opt("bot").await.unwrap().is_none());
        assert!(owner.api::<apps::Deployment>().list(&ListParams::default()).await.unwrap().items.is_empty());

        permit(&owner, "granted", json!({"checkpoint": {"name": "shared"}, "project": user.namespace})).await;
        let served = until_serving(&user).await;
        assert_eq!(served.status.unwrap().model_name.as_deref(), Some("bot"));
        let workload = user.api::<apps::Deployment>().get("bot").await.unwrap();
        let text = serde_json::to_string(&workload.spec).unwrap();
        assert!(!text.contains("persistentVolumeClaim") && !text.contains("old/shared"), "what is the owner's stays there");
        let exporter = exporter(&owner, &shared).await;
        let owners = exporter.owner_references();
        assert!(owners.len() == 1 && owners[0].kind == "Checkpoint" && Some(&owners[0].uid) == shared.metadata.uid.as_ref());

        deployments.patch("bot", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 2}}))).await.unwrap();
        let budget = until(&user.api::<policy::PodDisruptionBudget>(), "bot", "it has a budget", |_| true).await;
        revoke(&owner, "granted").await;
        let refused = until_refused(&user).await;
        until_torn_down(&user, &workload).await;
        until_gone(&user.api(), &budget).await;
        until_gone(&owner.api(), &exporter).await;
        let failure = refused.status.unwrap().failure.unwrap();
        assert_eq!(failure.reason, "NotPermitted");
        until_some(&user.api::<events::Event>(), "", "an Event says why", |event| {
            let about = event.regarding.as_ref().is_some_and(|about| about.uid == refused.metadata.uid);
            about && event.note.as_ref().is_some_and(|note| note.contains("CheckpointPermission"))
        })
        .await;
        permit(&owner, "once-more", json!({"checkpoint": {"name": "shared"}, "project": "*"})).await;
        until_serving(&user).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_public_run_is_open_to_all_and_what_is_shared_stays_with_its_exporter() {
    between(|owner, user| async move {
        let policy = json!({"keepLast": 1, "deletionPolicy": "Delete"});
        let run = owner.run("run", json!({"visibility": "Public", "checkpoints": policy})).await;
        let name = format!("run-{}-public", &run.uid().unwrap()[..8]);
        let permissions: Api<CheckpointPermission> = owner.api();
        let made = until(&permissions, &name, "the run is public", |_| true).await;
        assert_eq!((made.spec.project.as_str(), made.spec.fine_tune.as_ref().unwrap().name.as_str()), ("*", "run"));
        let mut agent = Agent::training(&owner, &run, 1).await;
        agent.report(Report { progress: None, checkpoints: vec![saved(1, 100, "0.5")], ..Report::default() }).await;
        let first = until(&owner.api::<Checkpoint>(), "run-step-100", "it is Ready", |checkpoint| {
            checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Ready)
        })
        .await;
        serve(&user, &owner, "run-step-100").await;
        until_serving(&user).await;
        let exporter = exporter(&owner, &first).await;
        agent.train(&[(100, "0.5"), (200, "0.4"), (300, "0.3")]).await;
        let checkpoints: Api<Checkpoint> = owner.api();
        until(&checkpoints, "run-step-200", "it is surplus", |second| second.metadata.deletion_timestamp.is_some()).await;
        let first = checkpoints.get("run-step-100").await.unwrap();
        assert!(first.metadata.deletion_timestamp.is_none(), "what another namespace serves is no surplus");

        permissions.delete(&name, &DeleteParams::default()).await.unwrap();
        until(&permissions, &name, "it is made again", |found| found.uid() != made.uid()).await;
        until_serving(&user).await;
        owner.edit("run", json!({"visibility": "Private"})).await.unwrap();
        until_refused(&user).await;
        until_gone(&owner.api(), &exporter).await;
        assert!(permissions.get_opt(&name).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_weights_go_from_the_real_exporter_to_the_real_fetch_and_only_while_that_is_permitted() {
    between(|owner, user| async move {
        let files = Files::new();
        let shared = checkpoint(&owner, "shared", Some(files.digest.clone())).await;
        permit(&owner, "granted", json!({"checkpoint": {"name": "shared"}, "project": user.namespace})).await;
        serve(&user, &owner, "shared").await;
        until_serving(&user).await;
        let uid = shared.uid().unwrap();
        let selector = format!("{}={uid},{}={}", names::CHECKPOINT_UID, names::ROLE, names::ROLE_EXPORT);
        let runs = |pod: &corev1::Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        let handing_out = until_some(&owner.api::<corev1::Pod>(), &selector, "the exporter runs", runs).await;
        let selector = format!("{}={}", names::ROLE, names::ROLE_SERVE);
        let serving = until_some(&user.api::<corev1::Pod>(), &selector, "the server runs", runs).await;
        let exporter = files.export(&uid, &handing_out, &token(&owner, Some(&handing_out), AUDIENCE).await).await;
        let mine = token(&user, Some(&serving), AUDIENCE).await;
        let (code, said) = files.fetch(&uid, &serving, (&mine, &exporter)).await;
        assert_eq!(code, 0, "{said}");
        let copied = std::fs::read(files.root.path().join("weights/model.safetensors")).unwrap();
        assert_eq!(copied, std::fs::read(files.root.path().join("checkpoint-4/model.safetensors")).unwrap());

        // The exporter's own token is no pass to its checkpoint, nor are tokens of pods that serve something else, or of none.
        let stranger = token(&user, None, AUDIENCE).await;
        let theirs = token(&owner, Some(&handing_out), AUDIENCE).await;
        for (whose, token) in [("the exporter's", theirs), ("nobody's", stranger)] {
            let (code, said) = files.fetch(&uid, &serving, (&token, &exporter)).await;
            assert_eq!(code, 78, "{whose}: {said}");
        }
        let (code, said) = files.fetch("another-uid", &serving, (&mine, &exporter)).await;
        assert_eq!(code, 78, "{said}");

        revoke(&owner, "granted").await;
        until_refused(&user).await;
        let (code, said) = files.fetch(&uid, &serving, (&mine, &exporter)).await;
        assert!(code != 0, "a permission that was taken back opens nothing: {said}");
    })
    .await;
}

/// Real files of a checkpoint, and the processes that hand them over.
struct Files {
    root: tempfile::TempDir,
    digest: String,
}

/// A running `agent export`, killed when the test ends.
struct Exporter {
    address: String,
    process: Child,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Files {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/trl-full/checkpoint-4");
        let to = root.path().join("checkpoint-4");
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let (fs, dir) = (RealFs::new(root.path()).unwrap(), RelPath::parse("checkpoint-4").unwrap());
        let origin = Origin { fine_tune_uid: String::new(), attempt: 0, lineage: 0 };
        let digest = Manifest::new(&fs, &dir, origin, &inspect(&fs, &dir, 4)).unwrap().digest;
        Self { root, digest }
    }

    fn token(&self, name: &str, token: &str) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::write(&path, token).unwrap();
        path
    }

    async fn export(&self, uid: &str, pod: &corev1::Pod, token: &str) -> Exporter {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finetune-operator"));
        command.args(["agent", "export", "--checkpoint", uid, "--port", "0", "--dir"]).arg(self.root.path().join("checkpoint-4"));
        command.arg("--token").arg(self.token("export-token", token)).env("NO_COLOR", "1");
        for name in [env::REPORT_URL, env::REPORT_CA] {
            command.env(name, variable(pod, name).unwrap());
        }
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let output = process.stderr.take().unwrap();
        let (found, address) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let port = line.split("address=").nth(1).and_then(|rest| rest.rsplit(':').next());
                if let Some((found, port)) = port.and_then(|port| Some((found.take()?, port))) {
                    let _ = found.send(format!("127.0.0.1:{}", port.trim()));
                }
            }
        });
        Exporter { address: address.await.unwrap(), process }
    }

    async fn fetch(&self, uid: &str, pod: &corev1::Pod, (token, exporter): (&str, &Exporter)) -> (i32, String) {
        let to = self.root.path().join("weights").display().to_string();
        let weights = Input::Shared { checkpoint: uid.into(), to, field: "spec.checkpoint".into() };
        let config = FetchConfig { weights, digest: Some(self.digest.clone()), base_model: None };
        let words = self.token("termination-log", "");
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_finetune-operator"));
        command.args(["agent", "fetch", "--patience", "30", "--doubt", "0", "--exporter", &exporter.address, "--token"]);
        command.arg(self.token("fetch-token", token)).arg("--termination-log").arg(&words);
        command.env(env::FETCH_CONFIG, serde_json::to_string(&config).unwrap());
        for name in [env::REPORT_URL, env::REPORT_CA] {
            command.env(name, variable(pod, name).unwrap());
        }
        let ended = command.output().await.unwrap();
        let said = std::fs::read_to_string(&words).unwrap();
        (ended.status.code().unwrap(), said + &String::from_utf8_lossy(&ended.stderr))
    }
}
