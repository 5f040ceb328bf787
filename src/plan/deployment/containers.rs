//! The containers of a serving pod: fetch, the server's init command, the sidecar, the server. Pure.

use k8s_openapi::{api::core::v1 as corev1, apimachinery::pkg::util::intstr::IntOrString};

use super::{resolution::Resolution, volumes};
use crate::{
    plan::fine_tune::{
        containers::{agent, from_secret, hub_token, overlay, resources, restricted, var, words},
        volumes::{input, mount, token_mount},
    },
    protocol::{FetchConfig, Input, SERVE_ALIVE, SERVE_DRAINED, SERVE_PORT, SERVE_READY, env, paths},
    settings::Settings,
};

/// Name of the server's container.
pub const SERVER: &str = "server";
/// Name of the init container that gets weights and base model.
pub const FETCH: &str = "fetch";
/// Name of the init container that runs the runtime's own command.
pub const INIT: &str = "init";
/// Name of the sidecar that asks the server which models it lists.
pub const SERVE: &str = "serve";

/// Seconds between two looks at a server that starts, and how many it gets: half an hour, for large models from slow stores.
pub const STARTUP: (i32, i32) = (3, 600);

/// Gets what has to be downloaded, and looks at what lies on volumes, so that a wrong path is said before a server stumbles over it.
pub fn fetch(resolution: &Resolution, settings: &Settings) -> corev1::Container {
    let credentials = resolution.sources().into_iter().filter_map(|(source, _, prefix)| {
        let secret = source.object_store.as_ref()?.secret_name.as_ref()?;
        Some(from_secret(secret, prefix))
    });
    let config = serde_json::to_string(&config(resolution)).unwrap_or_default();
    let mut mounts = volumes::claim_mounts(resolution);
    mounts.push(mount(volumes::SOURCES, paths::SOURCES));
    let mut vars = vec![plain(env::FETCH_CONFIG, &config)];
    if resolution.elsewhere.is_some() {
        // By its token the controller knows the pod, and gives it the way to the checkpoint for as long as that is permitted.
        mounts.push(token_mount());
        vars.extend([var(env::REPORT_URL, &settings.report_url), var(env::REPORT_CA, &settings.report_ca)]);
    }
    corev1::Container {
        name: FETCH.into(),
        args: Some(words(&["agent", "fetch"])),
        env: Some(vars),
        env_from: Some(credentials.collect()),
        volume_mounts: Some(mounts),
        ..agent(settings)
    }
}

fn config(resolution: &Resolution) -> FetchConfig {
    let status = resolution.checkpoint.status.as_ref();
    let is_stored = resolution.elsewhere.is_some() || resolution.checkpoint.spec.storage.object_store.is_some();
    FetchConfig {
        weights: weights(resolution),
        digest: status.and_then(|status| status.digest.clone()).filter(|_| is_stored),
        base_model: base_model(resolution),
    }
}

/// How the weights look from inside the pod.
fn weights(resolution: &Resolution) -> Input {
    if resolution.elsewhere.is_some() {
        let checkpoint = resolution.checkpoint.metadata.uid.clone().unwrap_or_default();
        return Input::Shared { checkpoint, to: format!("{}/weights", paths::SOURCES), field: "spec.checkpoint".into() };
    }
    input(&resolution.checkpoint.spec.storage, "spec.checkpoint", "WEIGHTS_")
}

fn base_model(resolution: &Resolution) -> Option<Input> {
    let found = resolution.sources().into_iter().find(|(.., prefix)| *prefix == "MODEL_")?;
    Some(input(found.0, found.1, found.2))
}

/// The runtime's own command before the server, where it has one for what is served.
pub fn init(resolution: &Resolution) -> Option<corev1::Container> {
    let wanted = resolution.runtime.spec.adapter.as_ref()?.init.as_ref().filter(|_| resolution.adapter.is_some())?;
    let mut mounts = volumes::server_mounts(resolution);
    for mount in &mut mounts {
        if mount.name == volumes::MODEL {
            mount.read_only = None;
        }
    }
    Some(corev1::Container {
        name: INIT.into(),
        image: Some(wanted.image.clone().unwrap_or_else(|| resolution.runtime.spec.image.clone())),
        command: Some(wanted.command.clone()),
        args: Some(wanted.args.clone()),
        volume_mounts: Some(mounts),
        ..runtime_container(resolution)
    })
}

/// The sidecar: says whether the server serves the model. It starts before the server and ends after it.
pub fn serve(resolution: &Resolution, settings: &Settings) -> corev1::Container {
    let runtime = &resolution.runtime.spec;
    let port = SERVE_PORT.to_string();
    let server = format!("http://127.0.0.1:{}", runtime.port);
    let name = resolution.model_name();
    let mut args = words(&["agent", "serve", "--port", &port, "--server", &server]);
    match (&runtime.readiness.path, &runtime.readiness.models_path) {
        (Some(path), _) => args.extend(words(&["--path", path])),
        (None, list) => {
            args.extend(words(&["--models-path", list.as_deref().unwrap_or("/v1/models"), "--model", &name]));
        }
    }
    corev1::Container {
        name: SERVE.into(),
        args: Some(args),
        restart_policy: Some("Always".into()),
        ports: Some(vec![port_of("ready", SERVE_PORT.into())]),
        liveness_probe: Some(corev1::Probe { period_seconds: Some(20), ..asks(SERVE_ALIVE) }),
        ..agent(settings)
    }
}

/// The runtime's server. It is ready when the sidecar has seen the model in its list, and alive while it takes connections.
pub fn server(resolution: &Resolution) -> corev1::Container {
    let runtime = &resolution.runtime.spec;
    let adapter = runtime.adapter.as_ref().filter(|_| resolution.adapter.is_some());
    let model = runtime.model.as_ref().filter(|_| resolution.adapter.is_none());
    let (command, args) = match (adapter, model) {
        (Some(adapter), _) => (adapter.command.clone(), adapter.args.clone()),
        (None, Some(model)) => (model.command.clone(), model.args.clone()),
        (None, None) => (Vec::new(), Vec::new()),
    };
    let takes_connections = corev1::TCPSocketAction { port: IntOrString::Int(runtime.port), host: None };
    corev1::Container {
        name: SERVER.into(),
        command: Some(command),
        args: Some(args),
        ports: Some(vec![port_of("http", runtime.port)]),
        volume_mounts: Some(volumes::server_mounts(resolution)),
        lifecycle: Some(drained()),
        startup_probe: Some(corev1::Probe {
            period_seconds: Some(STARTUP.0),
            failure_threshold: Some(STARTUP.1),
            ..asks(SERVE_READY)
        }),
        readiness_probe: Some(corev1::Probe { period_seconds: Some(5), ..asks(SERVE_READY) }),
        liveness_probe: Some(corev1::Probe {
            tcp_socket: Some(takes_connections),
            period_seconds: Some(20),
            failure_threshold: Some(6),
            timeout_seconds: Some(5),
            ..corev1::Probe::default()
        }),
        ..runtime_container(resolution)
    }
}

/// What the runtime's containers have in common.
fn runtime_container(resolution: &Resolution) -> corev1::Container {
    let runtime = &resolution.runtime.spec;
    corev1::Container {
        image: Some(runtime.image.clone()),
        env: Some(server_env(resolution)),
        resources: Some(resources(&resolution.hardware.spec, runtime.resources.as_ref())),
        security_context: Some(overlay(&restricted(false), runtime.security_context.as_ref())),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..corev1::Container::default()
    }
}

/// Ours first, so that `$(NAME)` in the runtime's values can refer to them; of equal names the runtime's wins.
fn server_env(resolution: &Resolution) -> Vec<corev1::EnvVar> {
    let weights = weights(resolution);
    let mut all = vec![var("MODEL_NAME", &resolution.model_name())];
    if let (Some(adapter), Some(base)) = (&resolution.adapter, base_model(resolution)) {
        all.extend([
            plain("BASE_MODEL", base.target()),
            plain("ADAPTER_PATH", weights.target()),
            var("ADAPTER_RANK", &adapter.rank.to_string()),
            var("MODEL_PATH", paths::MODEL),
        ]);
    } else {
        all.push(plain("MODEL_PATH", weights.target()));
    }
    all.extend([
        var("PORT", &resolution.runtime.spec.port.to_string()),
        var("HOME", paths::HOME),
        var("USER", SERVER),
        var("PYTHONUNBUFFERED", "1"),
    ]);
    all.extend(resolution.sources().into_iter().find_map(|(source, ..)| hub_token(source)));
    for entry in &resolution.runtime.spec.env {
        all.retain(|known| known.name != entry.name);
        all.push(entry.clone());
    }
    all
}

/// A variable whose value is taken as it is.
fn plain(name: &str, value: &str) -> corev1::EnvVar {
    var(name, &value.replace("$(", "$$("))
}

fn port_of(name: &str, port: i32) -> corev1::ContainerPort {
    corev1::ContainerPort {
        name: Some(name.into()),
        container_port: port,
        protocol: Some("TCP".into()),
        ..corev1::ContainerPort::default()
    }
}

/// Before the server is told to end, the sidecar waits until nobody is connected to it any more: servers drop what they are answering.
fn drained() -> corev1::Lifecycle {
    let hook = corev1::LifecycleHandler { http_get: Some(of_sidecar(SERVE_DRAINED)), ..corev1::LifecycleHandler::default() };
    corev1::Lifecycle { pre_stop: Some(hook), ..corev1::Lifecycle::default() }
}

fn of_sidecar(path: &str) -> corev1::HTTPGetAction {
    corev1::HTTPGetAction {
        path: Some(path.into()),
        port: IntOrString::Int(SERVE_PORT.into()),
        ..corev1::HTTPGetAction::default()
    }
}

/// A probe that asks the sidecar.
fn asks(path: &str) -> corev1::Probe {
    let action = of_sidecar(path);
    corev1::Probe { http_get: Some(action), timeout_seconds: Some(5), failure_threshold: Some(3), ..corev1::Probe::default() }
}
