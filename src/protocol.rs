//! What the controller and the agent agree on: the report, the layout of a training pod, and what neither quotes. Pure.

pub mod redact;

pub mod sharing;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{AdapterFacts, Bindings, Completion, Failure, Series, WeightsFormat};

/// Audience of the tokens agents authenticate with.
pub const AUDIENCE: &str = "reports.finetune.dev";
/// Path reports are posted to.
pub const REPORT_PATH: &str = "/v1/report";
/// Largest body of a report, in bytes.
pub const MAX_REPORT_BYTES: usize = 2 * 1024 * 1024;
/// Most checkpoints one report can carry.
pub const MAX_REPORTED_CHECKPOINTS: usize = 1000;

/// Where things are in a training pod.
pub mod paths {
    /// Shared by prepare, watch and trainer.
    pub const RUN: &str = "/var/run/finetune";
    /// The wrapper `prepare` puts there.
    pub const WRAPPER: &str = "/var/run/finetune/bin/finetune-run";
    /// The parameters file (JSON) the trainer reads.
    pub const PARAMETERS: &str = "/var/run/finetune/parameters.json";
    /// What `prepare` found out, for `watch` ([`super::Prepared`] as JSON).
    pub const PREPARED: &str = "/var/run/finetune/prepared.json";
    /// A link to the checkpoint to resume from; absent when there is none.
    pub const RESUME: &str = "/var/run/finetune/resume";
    /// A token file that Hugging Face's callback insists on; its content means nothing.
    pub const CALLBACK_TOKEN: &str = "/var/run/finetune/callback-token";
    /// Written by the wrapper when the trainer has exited (`key=value` lines: exit, signal, asked, oom, time).
    pub const ENDED: &str = "/var/run/finetune/ended";
    /// Written by `watch` when it gives the attempt up (`key=value` lines: reason and what is known of it).
    pub const TERMINATE: &str = "/var/run/finetune/terminate";
    /// Written by `watch` when everything is on record (`key=value` lines: exit, message).
    pub const DRAINED: &str = "/var/run/finetune/drained";
    /// The bounded log of the trainer.
    pub const LOG: &str = "/var/run/finetune/log/trainer.log";
    /// Claims are mounted below, by claim name.
    pub const VOLUMES: &str = "/finetune/volumes";
    /// Downloads go below.
    pub const SOURCES: &str = "/finetune/sources";
    /// The folder of the run; lineages lie below.
    pub const OUTPUT: &str = "/finetune/output";
    /// Where a server's init command leaves the model it made, for instance an adapter merged into its base.
    pub const MODEL: &str = "/finetune/model";
    /// The one checkpoint an exporter hands out.
    pub const CHECKPOINT: &str = "/finetune/checkpoint";
    /// The manifest that lies beside it on its volume.
    pub const MANIFEST: &str = "/finetune/manifest.json";
    /// Home of the trainer.
    pub const HOME: &str = "/finetune/home";
    /// The projected report token, mounted into `watch` alone.
    pub const TOKEN: &str = "/var/run/secrets/finetune.dev/token";
}

/// Environment variables of the agent's containers.
pub mod env {
    /// [`super::RunConfig`] as JSON.
    pub const CONFIG: &str = "FINETUNE_RUN_CONFIG";
    /// [`super::FetchConfig`] as JSON.
    pub const FETCH_CONFIG: &str = "FINETUNE_FETCH_CONFIG";
    /// PEM of the CA that signs the report server's certificate.
    pub const REPORT_CA: &str = "FINETUNE_REPORT_CA";
    /// URL of the report server, without path.
    pub const REPORT_URL: &str = "FINETUNE_REPORT_URL";
    /// Rank of the pod among the nodes of the attempt; absent where there is but one.
    pub const NODE: &str = "FINETUNE_NODE";
}

/// Port of the local endpoint Hugging Face's callback posts progress to.
pub const CALLBACK_PORT: u16 = 28_081;

/// Port at which the sidecar of a serving pod says whether the model is served.
pub const SERVE_PORT: u16 = 28_082;
/// Path there that answers 200 once the server serves the model.
pub const SERVE_READY: &str = "/readyz";
/// Path there that answers 200 while the sidecar runs.
pub const SERVE_ALIVE: &str = "/livez";
/// Answers once nobody is connected to the server any more, or [`DRAIN_SECONDS`] have passed.
pub const SERVE_DRAINED: &str = "/drained";
/// Seconds a server whose pod goes is given to answer what it was asked.
pub const DRAIN_SECONDS: u64 = 60;

/// Exit codes of the containers of a training pod.
pub mod exit {
    /// A failure that only the user can mend; never retried.
    pub const USER_ERROR: i32 = 78;
    /// Asked to stop before the end; not counted, resumes.
    pub const INTERRUPTED: i32 = 85;
    /// Exit 0 before the end without explanation; counted, resumes.
    pub const INCOMPLETE: i32 = 86;
}

/// Everything `prepare` and `watch` need to know of a run; written by the controller into [`env::CONFIG`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunConfig {
    /// Name of the FineTune.
    pub name: String,
    /// Namespace of the FineTune.
    pub namespace: String,
    /// Uid of the FineTune; a folder of another uid is never resumed.
    pub uid: String,
    /// Number of this attempt.
    pub attempt: i64,
    /// Lineage this attempt writes to.
    pub lineage: i64,
    /// Nodes the attempt is spread over.
    #[serde(default = "one")]
    pub nodes: i32,
    /// The base model.
    pub base_model: Input,
    /// The training data.
    pub dataset: Input,
    /// The evaluation data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_dataset: Option<Input>,
    /// The object store checkpoints are uploaded to; the output is a volume when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Store>,
    /// What the attempt begins with.
    pub start: Start,
    /// Parameters under the script's names: defaults, then the user's, renamed.
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// Keys under which paths and the seed are added to the parameters.
    pub bind: Bindings,
    /// The seed; a key of the user's own wins.
    pub seed: i64,
    /// What counts as the end of training.
    pub completion: Completion,
    /// Seconds all files of a checkpoint must have stood still.
    pub settle_seconds: u32,
    /// Seconds without a new step or another sign of life after which the attempt is given up; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_seconds: Option<u32>,
    /// Logged points in a row whose loss is no number after which the run has diverged; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence_points: Option<u32>,
}

const fn one() -> i32 {
    1
}

impl RunConfig {
    /// Directory the trainer writes checkpoints to, as its containers see it.
    #[must_use]
    pub fn output_dir(&self) -> String {
        format!("{}/{}", paths::OUTPUT, lineage_folder(self.lineage))
    }
}

/// Name of the folder of a lineage inside the folder of a run.
#[must_use]
pub fn lineage_folder(lineage: i64) -> String {
    format!("lineage-{lineage}")
}

/// Name of the folder of a run inside its output: name and the first eight characters of the uid.
#[must_use]
pub fn run_folder(name: &str, uid: &str) -> String {
    format!("{name}-{}", short_uid(uid))
}

/// The first eight characters of a uid.
#[must_use]
pub fn short_uid(uid: &str) -> &str {
    uid.get(..8).unwrap_or(uid)
}

/// Where an input comes from, as a pod sees it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    /// A file or directory on a mounted claim.
    Path {
        /// Absolute path in the pod.
        path: String,
        /// What the user calls it (`volume://claim/path`), for messages.
        label: String,
        /// Field of the spec it comes from.
        field: String,
    },
    /// A prefix to download.
    Download {
        /// The prefix and its credentials.
        store: Store,
        /// Absolute path of the directory it is downloaded to.
        to: String,
        /// Field of the spec it comes from.
        field: String,
    },
    /// A Checkpoint of another namespace, which its exporter hands out.
    Shared {
        /// Uid of the Checkpoint.
        checkpoint: String,
        /// Absolute path of the directory it is downloaded to.
        to: String,
        /// Field of the spec it comes from.
        field: String,
    },
    /// A repository the trainer fetches by itself.
    Hub {
        /// `organisation/name`.
        repo: String,
        /// Branch, tag or commit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<String>,
    },
}

impl Input {
    /// What the trainer is given: a path, or the name of a repository.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Path { path, .. } => path,
            Self::Download { to, .. } | Self::Shared { to, .. } => to,
            Self::Hub { repo, .. } => repo,
        }
    }
}

/// A prefix in an S3-compatible bucket.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// `s3://bucket/prefix`, without trailing slash.
    pub uri: String,
    /// Endpoint of a store that is not AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Prefix of the environment variables that hold the credentials, such as `OUTPUT_` for `OUTPUT_AWS_ACCESS_KEY_ID`.
    pub credentials: String,
}

/// What `fetch` needs to know; written by the controller into [`env::FETCH_CONFIG`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FetchConfig {
    /// The weights of the checkpoint.
    pub weights: Input,
    /// Digest they must have, where they are downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The base model, where the weights do not stand alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<Input>,
}

/// What an attempt begins with.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// The last good checkpoint of the lineage, or the base model when there is none.
    LastCheckpoint,
    /// The base model, whatever lies in the folder.
    Scratch,
    /// A checkpoint of another run; only while the lineage has none of its own.
    Warm {
        /// Where it is.
        from: Input,
        /// Its step.
        step: i64,
    },
}

/// What `prepare` found out.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Prepared {
    /// Step of the checkpoint the attempt resumes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<i64>,
    /// Steps of checkpoints that were refused, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<i64, String>,
}

/// What an agent says: always the whole current truth, so that any one report heals all that were lost.
///
/// Who says it is never in the body: the token names the pod, the pod names run and attempt.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// Grows by one with each report of a pod.
    pub sequence: u64,
    /// Step the attempt resumed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<i64>,
    /// How far the trainer is; absent before its first word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ReportedProgress>,
    /// Every checkpoint known in the run's folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<ReportedCheckpoint>,
    /// Downsampled series; only with news worth keeping (a checkpoint, an evaluation, the end).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Series>,
    /// Last lines of the log; with the series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// How the attempt ended; nothing more is to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// How far the trainer is.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportedProgress {
    /// Optimizer updates done.
    pub step: i64,
    /// Optimizer updates planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_steps: Option<i64>,
    /// Epoch reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Epochs planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_epochs: Option<String>,
    /// Tokens trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_tokens: Option<i64>,
    /// Seconds to go, as the trainer estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_remaining_seconds: Option<i64>,
    /// Newest value of each metric, as decimals.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, String>,
    /// When the trainer said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// One checkpoint in the run's folder.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportedCheckpoint {
    /// Step it was saved at.
    pub step: i64,
    /// Lineage it belongs to.
    pub lineage: i64,
    /// Attempt that wrote it.
    pub attempt: i64,
    /// Whether it is whole.
    pub state: FilesState,
    /// Why it is not, when it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Kind of weights.
    pub format: WeightsFormat,
    /// When its last file was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_at: Option<Timestamp>,
    /// Metrics at its step, as decimals.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, String>,
    /// Bytes of all its files.
    #[serde(default)]
    pub size_bytes: i64,
    /// Number of its files.
    #[serde(default)]
    pub file_count: i64,
    /// Digest over paths, sizes and SHA-256 of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether training can go on from it.
    #[serde(default)]
    pub resumable: bool,
    /// What adapter_config.json says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterFacts>,
    /// Samples the trainer wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<String>,
}

/// Whether the files of a checkpoint are whole.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesState {
    /// Verified.
    Ready,
    /// Damaged for good.
    Corrupt,
    /// Gone, for instance by the trainer's own rotation.
    Missing,
}

/// How an attempt ended.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    /// Exit code the trainer's container ends with (after mapping, see [`exit`]).
    pub exit_code: i32,
    /// Why it failed; absent on success and interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// What `watch` leaves as the termination message of the trainer's container: the little that survives
/// when no report arrives. At most 3 KiB of JSON; the oldest steps are left out first.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TerminationMessage {
    /// Why the attempt failed; absent on success and interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Lineage the steps belong to.
    pub lineage: i64,
    /// Steps of the verified checkpoints of the lineage, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<i64>,
    /// Whether the last report arrived.
    pub delivered: bool,
}

/// What the report server answers.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Seconds to leave between two reports that carry nothing but progress.
    pub interval_seconds: u32,
    /// Checkpoints to remove from the output now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<CheckpointKey>,
}

/// Names a checkpoint within its run.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointKey {
    /// Lineage it belongs to.
    pub lineage: i64,
    /// Step it was saved at.
    pub step: i64,
}
