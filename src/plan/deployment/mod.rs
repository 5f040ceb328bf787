//! What is to be done about a Deployment of ours: one checkpoint, served. Pure: `plan` sees facts and answers with writes and a status.

mod adapter;
mod availability;
mod children;
mod containers;
mod observed;
pub mod permission;
mod resolution;
mod route;
mod stage;
mod status;
mod trouble;
mod volumes;

pub(super) use children::{fingerprint, revision};
pub use observed::{ObservedDeployment, Route, claims_of};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Change, Child, Plan};
use crate::{api::ModelDeploymentStatus, settings::Settings};
use resolution::Resolution;
use stage::Stage;

/// What is to be done about a Deployment of ours, given what is known of the world.
#[must_use]
pub fn plan(observed: &ObservedDeployment, settings: &Settings, now: Timestamp) -> Plan<ModelDeploymentStatus> {
    if observed.deployment.metadata.deletion_timestamp.is_some() || observed.namespace_terminating {
        // Workload, Service and pods go with their owner.
        return Plan::nothing();
    }
    let resolution = resolution::resolve(observed);
    let revoked = permission::revoked(observed);
    let (stage, changes) = match (&observed.refusal, &resolution) {
        (Some(refusal), _) => (Stage::Blocked(vec![refusal.clone()]), revoked),
        // What is deployed already goes on serving, unless its owner has taken the permission back.
        (None, Err(problems)) => (Stage::Blocked(problems.clone()), revoked),
        (None, Ok(_)) if !revoked.is_empty() => (Stage::Rolling, revoked),
        (None, Ok(resolution)) => {
            let changes = writes(observed, resolution, settings);
            (if changes.is_empty() { stage::settled(observed, now) } else { Stage::Rolling }, changes)
        }
    };
    let mut status = status::status(observed, &stage, resolution.as_ref().ok(), now);
    if let Some(gateway) = &settings.gateway {
        status.conditions.extend(route::condition(observed, gateway, now));
    }
    let notices = status::notices(observed, &status);
    Plan { changes, status: Some(status), notices, next: stage::look_again(observed, &stage) }
}

/// The children, as far as they are not as wanted yet.
fn writes(observed: &ObservedDeployment, resolution: &Resolution, settings: &Settings) -> Vec<Change> {
    let (workload, service) = (children::workload(resolution, settings), children::service(resolution));
    let known = observed.workload.as_deref();
    let is_scaled =
        known.is_some_and(|known| known.spec.as_ref().and_then(|spec| spec.replicas) != Some(resolution.spec.replicas));
    let known = known.map(|known| &known.metadata);
    let workload = (is_scaled || differs(known, &workload.metadata))
        .then(|| Change::Apply { child: Child::Workload(Box::new(workload)), uid: uid(known) });
    let known = observed.service.as_ref().map(|known| &known.metadata);
    let service =
        differs(known, &service.metadata).then(|| Change::Apply { child: Child::Service(Box::new(service)), uid: uid(known) });
    let budget = availability::change(observed, resolution);
    let route = settings.gateway.as_ref().and_then(|gateway| route::change(observed, resolution, gateway));
    [service, workload, budget, route].into_iter().flatten().collect()
}

fn uid(metadata: Option<&ObjectMeta>) -> Option<String> {
    metadata.and_then(|metadata| metadata.uid.clone())
}

fn differs(known: Option<&ObjectMeta>, wanted: &ObjectMeta) -> bool {
    known.is_none_or(|known| children::revision(known) != children::revision(wanted))
}

#[cfg(test)]
mod tests;
