//! What is known of a run: written by the controller, `progress` by the report server alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cost, Progress};

/// What is known of a run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FineTuneStatus {
    /// observedGeneration is the generation of the spec this status was concluded from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// conditions: Ready, Reconciling, Stalled (kstatus), Finished, and Deployed where spec.autoDeploy asks for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::condition::schema")]
    pub conditions: Vec<Condition>,
    /// phase sums the conditions up for people.
    #[serde(default)]
    pub phase: FineTunePhase,
    /// attempt is the number of the newest attempt; 0 before the first.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempt: i64,
    /// lineage counts the starts from scratch, from 1.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub lineage: i64,
    /// restarts is the spec.restarts the newest attempt answers.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub restarts: i64,
    /// failures counted against spec.retries since restarts was raised, of a run on several nodes; one on a single node counts in its Job.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub failures: i32,
    /// jobName of the newest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub job_name: Option<String>,
    /// startTime of the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// completionTime is when the run finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// resumedFrom is the step the newest attempt began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<i64>,
    /// checkpointCount of complete checkpoints.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub checkpoint_count: i64,
    /// latestCheckpoint is the name of the newest Checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub latest_checkpoint: Option<String>,
    /// bestCheckpoint is the name of the best Checkpoint by spec.checkpoints.metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub best_checkpoint: Option<String>,
    /// resolved is what the running attempt was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// attempts tells the story of the last 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["number"]))]
    pub attempts: Vec<Attempt>,
    /// progress is what the trainer last said of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// queue says why the run waits, and where it stands; absent while it does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
    /// cost of the run: what all its attempts held until they ended, or until they lost their nodes. What the running attempt has held since
    /// its turnStart comes on top of that, and is for readers to add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// failure says why the run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A run in one word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FineTunePhase {
    /// Accepted; something it needs is missing.
    #[default]
    Pending,
    /// Waits for its turn.
    Queued,
    /// The pod starts, downloads and checks.
    Preparing,
    /// The trainer trains.
    Running,
    /// The pods end because the run is to pause.
    Pausing,
    /// Paused.
    Paused,
    /// The pods end because the run is to stop.
    Stopping,
    /// Stopped.
    Stopped,
    /// Trained to the end.
    Succeeded,
    /// Failed for good.
    Failed,
}

/// What an attempt was started with: later edits of the spec or of what it refers to do not touch it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// runtime is the TrainingRuntime.
    #[schemars(length(max = 253))]
    pub runtime: String,
    /// hardware is the HardwareProfile.
    #[schemars(length(max = 253))]
    pub hardware: String,
    /// image of the trainer.
    #[schemars(length(max = 512))]
    pub image: String,
    /// output as a URI: `volume://claim/path` or `s3://bucket/prefix`.
    #[schemars(length(max = 2048))]
    pub output: String,
    /// parametersDigest is the SHA-256 of the parameters file.
    #[schemars(length(max = 80))]
    pub parameters_digest: String,
    /// nodes the attempt is spread over.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub nodes: i32,
    /// gpus of all nodes together.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub gpus: i32,
    /// generation of the spec.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub generation: i64,
}

const fn one() -> i32 {
    1
}

/// One attempt.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// number of the attempt, from 1.
    #[schemars(range(min = 1))]
    pub number: i64,
    /// lineage it wrote to.
    #[schemars(range(min = 1))]
    pub lineage: i64,
    /// startTime is when its pod began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// endTime is when its last pod was gone or finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// turnStart is when its pods last got their nodes; absent once what they held since is counted in gpuSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_start: Option<Time>,
    /// gpuSeconds its pods held.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub gpu_seconds: i64,
    /// fromStep is the step it began with.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub from_step: i64,
    /// toStep is the last step it is known to have reached.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub to_step: i64,
    /// reason it ended, in CamelCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
}

/// Where and why a run waits.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// position among all that wait for the same quota, 1 = next. From Kueue only; absent where nobody can know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub position: Option<i64>,
    /// reason the run waits, in the words of Kueue or of the scheduler: what is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// Why a run failed, and what to do about it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// reason in CamelCase, such as GpuOutOfMemory.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// message says what happened.
    #[schemars(length(max = 4096))]
    pub message: String,
    /// hint says what to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub hint: String,
    /// field of the spec at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub field: Option<String>,
    /// exitCode of the container at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// userError is whether a change of the spec or the data is what helps.
    #[serde(default)]
    pub user_error: bool,
}
