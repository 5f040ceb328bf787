//! The live page in a browser: a world for it to show, and a script that clicks through it. See hack/test/live-page.sh.

use std::{
    fmt::Write,
    process::{ExitStatus, Stdio},
};

use finetune_operator::{
    api::{Failure, FineTune, FineTunePhase, HardwareProfile, Series},
    protocol::{Report, ReportedCheckpoint, ReportedProgress},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use super::api::{Gate, READ, WRITE};
use crate::{
    harness::{
        Agent, Sandbox,
        cluster::{ADMIN, put, setting},
        in_sandbox, saved,
    },
    run::train,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/test/live_page.mjs");
const TOTAL: i64 = 2400;
const SAVED_EVERY: i64 = 400;
const LOGGED_EVERY: i64 = 10;
/// Seconds after which the script takes the picture, by its clock.
const AHEAD: i64 = 108 * 60;

/// Where the node modules of the script are, as `FINETUNE_IT_PAGE_MODULES` says.
#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_live_page_shows_a_run_and_serves_its_checkpoint() {
    let Ok(modules) = std::env::var("FINETUNE_IT_PAGE_MODULES") else {
        println!("skipped: FINETUNE_IT_PAGE_MODULES names no folder with playwright-core");
        return;
    };
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let agent = trained(&sandbox).await;
        let port = free_port();
        let mut world = World { agent, sandbox: sandbox.clone(), gateway: served(port).await, port };
        let mut browser = Command::new("node")
            .arg(SCRIPT)
            .env("PAGE_MODULES", modules)
            .env("PAGE_URL", format!("http://127.0.0.1:{port}/ui/"))
            .env("PAGE_KEY", &gate.key)
            .env("PAGE_READER", Gate::new(&sandbox, READ).await.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        assert!(world.driven_by(&mut browser).await.success());
    })
    .await;
}

/// What the script may change.
struct World {
    sandbox: Sandbox,
    agent: Agent,
    gateway: Child,
    port: u16,
}

impl World {
    /// Does what the script asks for, line by line, until it ends.
    async fn driven_by(&mut self, browser: &mut Child) -> ExitStatus {
        let mut lines = BufReader::new(browser.stdout.take().unwrap()).lines();
        let mut input = browser.stdin.take().unwrap();
        while let Some(line) = lines.next_line().await.unwrap() {
            match line.as_str() {
                "train on" => drop(self.agent.report(support_bot(2000)).await),
                "make another run" => drop(self.sandbox.run("late-arrival", json!({"desiredState": "Paused"})).await),
                "stop the gateway" => self.stop().await,
                "start the gateway" => self.gateway = served(self.port).await,
                other => {
                    println!("{other}");
                    continue;
                }
            }
            input.write_all(b"done\n").await.unwrap();
        }
        browser.wait().await.unwrap()
    }

    /// Stops the gateway as Kubernetes does: it ends by itself, though somebody listens.
    async fn stop(&mut self) {
        let process = self.gateway.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &process]).status().await.unwrap().success());
        assert!(self.gateway.wait().await.unwrap().success());
    }
}

/// The gateway as a process, once it listens.
async fn served(port: u16) -> Child {
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_finetune-operator"))
        .args(["gateway", "--drain-seconds", "0", "--port", &port.to_string(), "--http-port", &free_port().to_string()])
        .env("KUBECONFIG", setting(ADMIN))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(gateway.stderr.take().unwrap()).lines();
    while let Some(line) = log.next_line().await.unwrap() {
        if line.contains("started") {
            // Nobody may have to wait for the log to be read.
            tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
            return gateway;
        }
    }
    panic!("the gateway does not start");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs in several phases; the agent is that of the one at work.
async fn trained(sandbox: &Sandbox) -> Agent {
    let hardware = json!({"displayName": "NVIDIA A100 80GB", "gpu": {"count": 1, "memory": "80Gi"}, "costPerHour": "3.60"});
    put::<HardwareProfile>(&sandbox.client, "a100-80gb", hardware).await;
    let tickets = json!({"training": {"huggingFace": {"repo": "acme/support-tickets"}}});
    let spec = |name: &str| {
        json!({
            "displayName": name, "baseModel": {"name": "llama-3.1-8b"}, "dataset": tickets, "hardware": {"profile": "a100-80gb"},
            "parameters": {"learning_rate": 0.0002, "epochs": 3, "batch_size": 8, "use_lora": true, "lora_rank": 16},
        })
    };
    let tone: FineTune = sandbox.run("tone-of-voice", spec("Tone of voice")).await;
    train(sandbox, &tone, 1).await;
    let memory: FineTune = sandbox.run("long-answers", spec("Long answers")).await;
    let failure = Failure {
        reason: "GpuOutOfMemory".into(),
        message: "the GPU has not enough memory for a step of batch_size 32".into(),
        hint: "halve batch_size to 16, or turn on gradient_checkpointing".into(),
        user_error: true,
        ..Failure::default()
    };
    Agent::training(sandbox, &memory, 1).await.fail(78, Some(failure)).await;
    sandbox.until_phase("long-answers", FineTunePhase::Failed).await;
    let support = sandbox.run("support-bot", spec("Support bot")).await;
    let mut agent = Agent::training(sandbox, &support, 1).await;
    agent.report(support_bot(1620)).await;
    sandbox.until_phase("support-bot", FineTunePhase::Running).await;
    agent
}

/// Wobbles around nothing, the same each time.
fn wobble(step: i64) -> f64 {
    let step = f64::from(i32::try_from(step).unwrap());
    (step * 0.37).sin() * 0.5 + (step * 0.113).sin() * 0.3 + (step * 1.93).cos() * 0.2
}

fn loss(step: i64) -> f64 {
    let done = f64::from(i32::try_from(step).unwrap());
    0.42 + 2.1 * (-done / 210.0).exp() + 0.35 * (-done / 900.0).exp() + 0.07 * wobble(step)
}

fn eval_loss(step: i64) -> f64 {
    loss(step) - 0.07 * wobble(step) + 0.045
}

fn decimal(value: f64) -> String {
    let mut text = String::new();
    write!(text, "{value:.6}").unwrap();
    text
}

fn series(name: &str, last: i64, every: usize, value: impl Fn(i64) -> f64) -> Series {
    let steps: Vec<i64> = (LOGGED_EVERY..=last).step_by(every).collect();
    Series { name: name.into(), values: steps.iter().map(|step| decimal(value(*step))).collect(), steps }
}

fn checkpoint(step: i64) -> ReportedCheckpoint {
    let sample = |prompt: &str, completion: &str| json!({"prompt": prompt, "completion": completion}).to_string();
    let metrics = [("loss", loss(step)), ("eval_loss", eval_loss(step)), ("eval_mean_token_accuracy", 0.94 - 0.16 * loss(step))];
    ReportedCheckpoint {
        metrics: metrics.into_iter().map(|(name, value)| (name.to_owned(), decimal(value))).collect(),
        size_bytes: 84_213_760,
        saved_at: Some(Timestamp::now()),
        samples: vec![
            sample(
                "My parcel has not arrived. What can I do?",
                "I am sorry to hear that. Tell me your order number, and I will look where it is.",
            ),
            sample(
                "How do I reset my password?",
                "Choose “Forgot password” on the sign-in page. The link we send you is good for an hour.",
            ),
        ],
        ..saved(1, step, "0")
    }
}

/// Everything a trainer has said up to a step.
fn support_bot(step: i64) -> Report {
    let evaluated = usize::try_from(SAVED_EVERY / 2).unwrap();
    let logged = usize::try_from(LOGGED_EVERY).unwrap();
    let mut evaluations = series("eval_loss", step, evaluated, |_| 0.0);
    evaluations.steps = (SAVED_EVERY / 2..=step).step_by(evaluated).collect();
    evaluations.values = evaluations.steps.iter().map(|step| decimal(eval_loss(*step))).collect();
    let share = |step: i64| f64::from(i32::try_from(step).unwrap()) / f64::from(i32::try_from(TOTAL).unwrap());
    let now = Timestamp::now();
    let line = |back: i64, text: String| format!("{} {text}", now - SignedDuration::from_secs(back * 4));
    let steps = (0..12).rev().map(|back| (back, step - back * LOGGED_EVERY));
    let mut log: Vec<String> = vec![
        line(20, "WARNING: tokenizer has no padding token; the end-of-text token is used".into()),
        line(18, "Loading checkpoint shards: 100%|██████████| 4/4".into()),
    ];
    log.extend(steps.map(|(back, at)| {
        line(
            back,
            format!(
                "{{'loss': {}, 'grad_norm': {:.3}, 'learning_rate': {:.2e}, 'epoch': {:.2}}}",
                decimal(loss(at)),
                0.9 + 0.2 * wobble(at),
                2e-4 * (1.0 - share(at)),
                3.0 * share(at)
            ),
        )
    }));
    Report {
        progress: Some(ReportedProgress {
            step,
            total_steps: Some(TOTAL),
            epoch: Some(decimal(3.0 * share(step))),
            total_epochs: Some("3".into()),
            trained_tokens: Some(step * 16_384),
            // As it is when the picture is taken: by a clock that is ahead.
            estimated_remaining_seconds: Some((TOTAL - step) * 4 + AHEAD),
            metrics: [("loss", loss(step)), ("eval_loss", eval_loss(step))]
                .map(|(name, value)| (name.to_owned(), decimal(value)))
                .into(),
            time: Some(now),
        }),
        checkpoints: (SAVED_EVERY..=step).step_by(usize::try_from(SAVED_EVERY).unwrap()).map(checkpoint).collect(),
        series: vec![
            series("loss", step, logged, loss),
            evaluations,
            series("learning_rate", step, logged, |step| 2e-4 * (1.0 - share(step))),
            series("grad_norm", step, logged, |step| 0.9 + 0.2 * wobble(step)),
        ],
        log,
        ..Report::default()
    }
}
