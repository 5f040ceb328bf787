//! The controller process: its flags, and what runs in it from start to shutdown.

use std::{sync::Arc, time::Duration};

use kube::{Client, Config};
use tokio::sync::watch;

use super::{
    census::Census,
    kueue::Kueue,
    leader,
    namespaces::Namespaces,
    permitted, probes, queues,
    runner::{self, Pace},
    shell::Shell,
    world::{Wakes, World},
};
use crate::{
    api::Output,
    cluster::Cluster,
    reports,
    settings::{Gateway, Settings},
    signals::asked_to_stop,
    telemetry::{self, Metrics},
};

/// Flags of `finetune-operator controller`. Every flag can be given by its environment variable.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Namespace the operator runs in: of its Lease and of the report server's certificate
    #[arg(long, env = "POD_NAMESPACE", default_value = "finetune-system")]
    namespace: String,
    /// Name of this replica, unique among them
    #[arg(long, env = "POD_NAME")]
    name: Option<String>,
    /// Image that the agents in training pods run: the operator's own
    #[arg(long, env = "FINETUNE_AGENT_IMAGE")]
    image: String,
    /// Pull policy of that image
    #[arg(long, env = "FINETUNE_AGENT_PULL_POLICY", default_value = "IfNotPresent")]
    image_pull_policy: String,
    /// URL of the report server as pods reach it; by default the Service finetune-operator-reports of --namespace
    #[arg(long, env = "FINETUNE_REPORT_URL")]
    report_url: Option<String>,
    /// Port the report server listens on (TLS)
    #[arg(long, env = "FINETUNE_REPORT_PORT", default_value_t = 8443)]
    report_port: u16,
    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "FINETUNE_HTTP_PORT", default_value_t = 8080)]
    http_port: u16,
    /// The namespaces to work in, with commas between them; all when absent
    #[arg(long, env = "FINETUNE_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Output of runs that name none, as JSON, such as {"volumeTemplate":{"size":"50Gi"}}
    #[arg(long, env = "FINETUNE_DEFAULT_OUTPUT", value_parser = output)]
    default_output: Option<Output>,
    /// Seconds all files of a checkpoint must have stood still before it is proven
    #[arg(long, env = "FINETUNE_SETTLE_SECONDS", default_value_t = 10)]
    settle_seconds: u32,
    /// Seconds without a step, a printed line or a written file after which an attempt is given up; 0 waits for ever
    #[arg(long, env = "FINETUNE_STALL_TIMEOUT", default_value_t = 0)]
    stall_timeout: u32,
    /// Logged points in a row whose loss is no number after which a run has diverged and fails; 0 lets it go on
    #[arg(long, env = "FINETUNE_DIVERGENCE_POINTS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    divergence_points: u32,
    /// Seconds a trainer is given to save and end when it is asked to stop
    #[arg(long, env = "FINETUNE_GRACE_PERIOD", default_value_t = 600)]
    grace_period: i64,
    /// Seconds between two looks into a Kueue queue while a run waits in it
    #[arg(long, env = "FINETUNE_QUEUE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    queue_seconds: u32,
    /// Gateway of the Gateway API that leads to served models, as NAMESPACE/NAME; none when absent
    #[arg(long, env = "FINETUNE_GATEWAY")]
    gateway: Option<Gateway>,
    /// Elect one replica that writes; without it every replica does, so run only one
    #[arg(long, env = "FINETUNE_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set)]
    leader_election: bool,
    /// How log lines look
    #[arg(long, env = "FINETUNE_LOG_FORMAT", value_enum, default_value_t)]
    log_format: telemetry::Format,
    /// What is logged, as a tracing filter
    #[arg(long, env = "RUST_LOG", default_value = "info,kube=warn,kube_lease_manager=warn")]
    log: String,
}

fn output(text: &str) -> Result<Output, String> {
    if text.trim().is_empty() {
        return Err("is empty: leave it out instead".to_owned());
    }
    serde_json::from_str(text).map_err(|error| format!("is not an output as in FineTune.spec.output: {error}"))
}

/// Why the process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cluster to talk to.
    #[error("cannot find a cluster: run in a pod, or set KUBECONFIG")]
    NoCluster(#[source] Box<kube::Error>),
    /// The report server cannot run.
    #[error("the report server cannot run")]
    Reports(#[from] reports::Error),
    /// The election cannot run.
    #[error(transparent)]
    Leader(#[from] leader::Error),
    /// The port of the probes is taken.
    #[error("cannot serve probes")]
    Probes(#[from] std::io::Error),
    /// A watch ended.
    #[error("a watch ended")]
    Watch(#[from] kube::runtime::reflector::store::WriterDropped),
    /// Another replica leads now; this one starts over.
    #[error("the lease was lost: this replica starts over")]
    LeaseLost,
}

/// Runs until the process is asked to stop, or cannot go on.
///
/// # Errors
/// Why it cannot go on.
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    telemetry::init(arguments.log_format, &arguments.log);
    let client = connect().await.map_err(|error| Error::NoCluster(Box::new(error)))?;
    let metrics = Arc::new(Metrics::default());
    let (stop, stopped) = watch::channel(false);
    let told = Namespaces::of(&arguments.watch_namespaces);
    let namespaces = permitted::places(&client, &told).await;
    let (world, wakes, watches) = World::watch(&client, &namespaces, arguments.gateway.is_some());
    let authority = reports::ensure_authority(&client, &arguments.namespace).await?;
    let settings = Arc::new(arguments.settings(&authority.ca_pem));
    tokio::spawn(watches);
    metrics.register(|registry| registry.register_collector(Box::new(Census(Arc::clone(&world)))));
    let probes = tokio::spawn(probes::serve(arguments.http_port, Arc::clone(&world), Arc::clone(&metrics), ended(&stopped)));
    let server = reports::serve(reports_of(&client, &world, &metrics, &arguments), authority, ended(&stopped));
    let mut server = tokio::spawn(server);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace = arguments.namespace, "started");
    let seen = Arc::clone(&world);
    let mut lead = tokio::spawn(lead(arguments, client.clone(), (world, wakes), (settings, metrics), ended(&stopped)));
    let outcome = tokio::select! {
        outcome = &mut lead => outcome.unwrap_or(Ok(())),
        outcome = &mut server => outcome.map_or(Ok(()), |served| served.map_err(Error::from)),
        () = permitted::until_others(&client, (&told, &namespaces), || seen.is_ready()) => Ok(()),
        () = asked_to_stop() => Ok(()),
    };
    tracing::info!("stopping");
    let _ = stop.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(10), async {
        // It may be its end that ends everything: then nothing more is to be heard of it.
        if !server.is_finished() {
            let _ = server.await;
        }
        let _ = probes.await;
    })
    .await;
    outcome
}

/// A client that asks once. Whoever asks has a pause of its own: watches, reconciles and agents. The client's retries would come on top, the first
/// seven within a second, and the last so far apart that it sleeps on long after the server is back.
async fn connect() -> Result<Client, kube::Error> {
    let mut config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.default_retry = false;
    Client::try_from(config)
}

/// Waits for its turn to lead, then reconciles until asked to stop.
async fn lead(
    arguments: Arguments,
    client: Client,
    (world, wakes): (Arc<World>, Wakes),
    (settings, metrics): (Arc<Settings>, Arc<Metrics>),
    stopped: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    world.synced().await?;
    let identity = arguments.identity();
    let lost = if arguments.leader_election {
        futures::future::Either::Left(leader::lead(client.clone(), &arguments.namespace, &identity).await?)
    } else {
        futures::future::Either::Right(std::future::pending())
    };
    tracing::info!(identity, "leading");
    metrics.leads(true);
    world.look_at_everything();
    let places =
        queues::follow(Kueue::new(client.clone(), Duration::from_secs(settings.queue_seconds.into())), Arc::clone(&world));
    let cluster = Cluster::new(client, Some(identity));
    let shell = || {
        let (world, settings, metrics) = (Arc::clone(&world), Arc::clone(&settings), Arc::clone(&metrics));
        Arc::new(Shell { world, cluster: cluster.clone(), settings, pace: Pace::new(metrics) })
    };
    let work = futures::future::join4(
        places,
        runner::run(world.fine_tunes.clone(), wakes.fine_tunes, shell(), std::future::pending()),
        runner::run(world.checkpoints.store().clone(), wakes.checkpoints, shell(), std::future::pending()),
        runner::run(world.deployments.clone(), wakes.deployments, shell(), std::future::pending()),
    );
    tokio::select! {
        _ = work => Ok(()),
        () = lost => Err(Error::LeaseLost),
        () = stopped => Ok(()),
    }
}

fn reports_of(client: &Client, world: &Arc<World>, metrics: &Metrics, arguments: &Arguments) -> reports::Reports {
    let stores = reports::Stores {
        fine_tunes: world.fine_tunes.clone(),
        checkpoints: world.checkpoints.store().clone(),
        pods: world.pods.store().clone(),
        jobs: world.jobs.store().clone(),
        histories: world.histories.clone(),
        permissions: world.serving.permissions.clone(),
        deployments: world.deployments.clone(),
        complete: world.readiness(),
    };
    let host = arguments.report_host();
    let settings =
        reports::Settings::new(arguments.report_port, vec![host]).with_default_output(arguments.default_output.clone());
    let server = reports::Reports::new(client.clone(), stores, settings);
    metrics.register(|registry| server.metrics().register(registry));
    server
}

impl Arguments {
    fn settings(&self, report_ca: &str) -> Settings {
        Settings {
            namespace: self.namespace.clone(),
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            report_url: self.report_url(),
            report_ca: report_ca.to_owned(),
            default_output: self.default_output.clone(),
            settle_seconds: self.settle_seconds,
            stall_seconds: (self.stall_timeout > 0).then_some(self.stall_timeout),
            divergence_points: (self.divergence_points > 0).then_some(self.divergence_points),
            grace_seconds: self.grace_period,
            queue_seconds: self.queue_seconds,
            gateway: self.gateway.clone(),
        }
    }

    fn report_url(&self) -> String {
        let default = || format!("https://finetune-operator-reports.{}.svc:443", self.namespace);
        self.report_url.clone().unwrap_or_else(default).trim_end_matches('/').to_owned()
    }

    /// Name in the URL of the report server, for its certificate.
    fn report_host(&self) -> String {
        let url = self.report_url();
        let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).split('/').next().unwrap_or_default();
        authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_owned()
    }

    fn identity(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("finetune-operator-{}", uuid::Uuid::new_v4()))
    }
}

fn ended(stopped: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopped = stopped.clone();
    async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    }
}
