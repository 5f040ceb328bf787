//! What an installation decides once for all runs. Pure data.

use crate::api::Output;

/// What an installation decides once for all runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Namespace the operator runs in.
    pub namespace: String,
    /// Image of the agent: the operator's own.
    pub image: String,
    /// Pull policy of that image.
    pub image_pull_policy: String,
    /// URL of the report server as pods reach it, without path.
    pub report_url: String,
    /// PEM of the CA that signs the report server's certificate.
    pub report_ca: String,
    /// Output of runs that name none.
    pub default_output: Option<Output>,
    /// Seconds all files of a checkpoint must have stood still.
    pub settle_seconds: u32,
    /// Seconds without a step, a line or a file after which an attempt is given up; never when absent.
    pub stall_seconds: Option<u32>,
    /// Logged points in a row whose loss is no number after which a run has diverged; never when absent.
    pub divergence_points: Option<u32>,
    /// Seconds a trainer is given to save and end when it is asked to stop.
    pub grace_seconds: i64,
    /// Seconds between two looks into a queue. A place that changed is written at most once in twice that time.
    pub queue_seconds: u32,
    /// The Gateway that leads to served models from outside; none when absent.
    pub gateway: Option<Gateway>,
}

/// Names a Gateway of the Gateway API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::str::FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |part: &str| !part.is_empty() && !part.contains('/');
        match text.split_once('/').filter(|(namespace, name)| is_name(namespace) && is_name(name)) {
            Some((namespace, name)) => Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() }),
            None => Err("is not NAMESPACE/NAME of a Gateway, such as infra/main".to_owned()),
        }
    }
}
