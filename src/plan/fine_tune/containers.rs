//! The containers of a training pod: watch, prepare, trainer. Pure.

use k8s_openapi::{api::core::v1 as corev1, apimachinery::pkg::api::resource::Quantity};

use super::{distributed, resolution::Resolution, volumes};
use crate::{
    api::{Completion, HardwareProfileSpec},
    protocol::{CALLBACK_PORT, RunConfig, env, paths},
    settings::Settings,
};

/// Name of the trainer's container.
pub const TRAINER: &str = "trainer";
/// Name of the init container.
pub const PREPARE: &str = "prepare";
/// Name of the native sidecar.
pub const WATCH: &str = "watch";

/// The native sidecar: outlives the trainer, and alone talks to the controller.
pub fn watch(resolution: &Resolution, config: &RunConfig, settings: &Settings) -> corev1::Container {
    let mut mounts = volumes::shared_mounts(resolution);
    mounts.push(volumes::token_mount());
    mounts.push(volumes::mount("tmp", "/tmp"));
    let mut env = vec![config_env(config), var(env::REPORT_URL, &settings.report_url), var(env::REPORT_CA, &settings.report_ca)];
    env.extend(distributed::node_env(resolution));
    corev1::Container {
        name: WATCH.into(),
        args: Some(words(&["agent", "watch"])),
        restart_policy: Some("Always".into()),
        env: Some(env),
        env_from: Some(output_credentials(resolution)),
        volume_mounts: Some(mounts),
        ..agent(settings)
    }
}

/// The init container: gets the inputs, picks what to resume from, writes the parameters file.
pub fn prepare(resolution: &Resolution, config: &RunConfig, settings: &Settings) -> corev1::Container {
    let mut credentials = output_credentials(resolution);
    credentials.extend(resolution.sources().into_iter().filter_map(|(source, _, prefix)| {
        let secret = source.object_store.as_ref()?.secret_name.as_ref()?;
        Some(from_secret(secret, prefix))
    }));
    let mut mounts = volumes::shared_mounts(resolution);
    mounts.push(volumes::mount("home", paths::HOME));
    mounts.push(volumes::mount("tmp", "/tmp"));
    corev1::Container {
        name: PREPARE.into(),
        args: Some(words(&["agent", "prepare"])),
        env: Some(vec![config_env(config)]),
        env_from: Some(credentials),
        volume_mounts: Some(mounts),
        ..agent(settings)
    }
}

/// The runtime's container under the wrapper.
pub fn trainer(resolution: &Resolution, config: &RunConfig, launcher_env: Vec<corev1::EnvVar>) -> corev1::Container {
    let runtime = &resolution.runtime.spec;
    let overrides = resolution.spec.trainer.clone().unwrap_or_default();
    let own_command = !overrides.command.is_empty();
    let command = if own_command { overrides.command } else { runtime.command.clone() };
    let args = if own_command || !overrides.args.is_empty() { overrides.args } else { runtime.args.clone() };
    let completion = match runtime.completion {
        Completion::Verified => "verified",
        Completion::ExitCode => "exit-code",
    };
    let mut wrapped = words(&[paths::WRAPPER, "--dir", paths::RUN, "--completion", completion, "--"]);
    wrapped.extend(command);
    wrapped.extend(args);
    let mut mounts = volumes::shared_mounts(resolution);
    mounts.extend(volumes::trainer_mounts());
    corev1::Container {
        name: TRAINER.into(),
        image: Some(resolution.image()),
        command: Some(wrapped),
        env: Some(trainer_env(resolution, config, launcher_env)),
        env_from: Some(overrides.env_from),
        resources: Some(resources(&resolution.hardware.spec, runtime.resources.as_ref())),
        security_context: Some(overlay(&restricted(false), runtime.security_context.as_ref())),
        volume_mounts: Some(mounts),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..corev1::Container::default()
    }
}

/// Ours first, so that `$(NAME)` in the runtime's and the user's values can refer to them; of equal names the user's wins.
fn trainer_env(resolution: &Resolution, config: &RunConfig, launcher_env: Vec<corev1::EnvVar>) -> Vec<corev1::EnvVar> {
    let validation = config.validation_dataset.as_ref().map_or("", |input| input.target());
    let callback = format!("http://127.0.0.1:{CALLBACK_PORT}/status");
    let mut all = vec![
        var("FINETUNE_NAME", &config.name),
        var("FINETUNE_PARAMETERS_FILE", paths::PARAMETERS),
        var("FINETUNE_MODEL", config.base_model.target()),
        var("FINETUNE_DATASET", config.dataset.target()),
        var("FINETUNE_VALIDATION_DATASET", validation),
        var("FINETUNE_OUTPUT", &config.output_dir()),
        var("FINETUNE_RESUME_FROM", paths::RESUME),
        var("KUBEFLOW_TRAINER_SERVER_URL", &callback),
        var("KUBEFLOW_TRAINER_SERVER_TOKEN", paths::CALLBACK_TOKEN),
        var("HOME", paths::HOME),
        var("USER", "trainer"),
        var("PYTHONUNBUFFERED", "1"),
    ];
    all.extend(launcher_env);
    all.extend(resolution.sources().into_iter().find_map(|(source, ..)| hub_token(source)));
    let overrides = resolution.spec.trainer.iter().flat_map(|trainer| trainer.env.iter());
    for entry in resolution.runtime.spec.env.iter().chain(overrides) {
        all.retain(|known| known.name != entry.name);
        all.push(entry.clone());
    }
    all
}

/// The token of a gated repository, for who downloads it.
pub fn hub_token(source: &crate::api::Source) -> Option<corev1::EnvVar> {
    let secret = source.hugging_face.as_ref()?.secret_name.clone()?;
    let selector = corev1::SecretKeySelector { name: secret, key: "HF_TOKEN".into(), optional: None };
    let from = corev1::EnvVarSource { secret_key_ref: Some(selector), ..corev1::EnvVarSource::default() };
    Some(corev1::EnvVar { name: "HF_TOKEN".into(), value: None, value_from: Some(from) })
}

/// What the runtime asks for, and over it the resources of the profile.
pub fn resources(hardware: &HardwareProfileSpec, beside: Option<&corev1::ResourceRequirements>) -> corev1::ResourceRequirements {
    let mut wanted = beside.cloned().unwrap_or_default();
    let mut limits = wanted.limits.take().unwrap_or_default();
    let mut requests = wanted.requests.take().unwrap_or_default();
    if hardware.gpu.count > 0 {
        limits.insert(hardware.gpu.resource_name.clone(), Quantity(hardware.gpu.count.to_string()));
    }
    if let Some(memory) = &hardware.memory {
        limits.insert("memory".into(), Quantity(memory.clone()));
        requests.insert("memory".into(), Quantity(memory.clone()));
    }
    if let Some(cpu) = &hardware.cpu {
        requests.insert("cpu".into(), Quantity(cpu.clone()));
    }
    corev1::ResourceRequirements { limits: Some(limits), requests: Some(requests), ..wanted }
}

/// A container of the agent, before it is told what to do.
pub fn agent(settings: &Settings) -> corev1::Container {
    let quantities = |cpu: Option<&str>, memory: &str| {
        let memory = ("memory".to_owned(), Quantity(memory.into()));
        Some(cpu.map(|cpu| ("cpu".to_owned(), Quantity(cpu.into()))).into_iter().chain([memory]).collect())
    };
    corev1::Container {
        image: Some(settings.image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        resources: Some(corev1::ResourceRequirements {
            requests: quantities(Some("20m"), "64Mi"),
            limits: quantities(None, "1Gi"),
            ..corev1::ResourceRequirements::default()
        }),
        security_context: Some(restricted(true)),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..corev1::Container::default()
    }
}

/// What the restricted Pod Security Standard asks of a container.
pub fn restricted(read_only: bool) -> corev1::SecurityContext {
    corev1::SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(corev1::Capabilities { drop: Some(vec!["ALL".into()]), ..corev1::Capabilities::default() }),
        read_only_root_filesystem: read_only.then_some(true),
        ..corev1::SecurityContext::default()
    }
}

/// `base`, and over it what `over` sets.
pub fn overlay(base: &corev1::SecurityContext, over: Option<&corev1::SecurityContext>) -> corev1::SecurityContext {
    let merged = [Some(base), over].into_iter().flatten().fold(serde_json::Map::new(), |mut merged, context| {
        if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(context) {
            merged.extend(fields);
        }
        merged
    });
    serde_json::from_value(merged.into()).unwrap_or_else(|_| base.clone())
}

fn output_credentials(resolution: &Resolution) -> Vec<corev1::EnvFromSource> {
    let store = resolution.output.object_store.as_ref();
    store.and_then(|store| store.secret_name.as_ref()).map(|secret| from_secret(secret, "OUTPUT_")).into_iter().collect()
}

/// Every key of a Secret as an environment variable with a prefix.
pub fn from_secret(secret: &str, prefix: &str) -> corev1::EnvFromSource {
    corev1::EnvFromSource {
        prefix: Some(prefix.into()),
        secret_ref: Some(corev1::SecretEnvSource { name: secret.into(), optional: None }),
        ..corev1::EnvFromSource::default()
    }
}

/// The configuration of the agent.
pub fn config_env(config: &RunConfig) -> corev1::EnvVar {
    var(env::CONFIG, &serde_json::to_string(config).unwrap_or_default().replace("$(", "$$("))
}

/// A plain variable.
pub fn var(name: &str, value: &str) -> corev1::EnvVar {
    corev1::EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

/// Owned copies of `items`.
pub fn words(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}
