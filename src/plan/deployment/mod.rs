//! What is to be done about a Deployment of ours: one checkpoint, served. Pure: `plan` sees facts and answers with writes and a status.

mod adapter;
mod availability;
mod children;
mod containers;
mod image;
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
pub(super) use trouble::cannot_serve;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Change, Child, Known, Plan};
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
        // What is deployed already goes on serving, unless its owner has taken the permission back.
        (Some(refusal), _) => (Stage::Blocked(vec![refusal.clone()]), kept(observed, revoked)),
        (None, Err(problems)) => (Stage::Blocked(problems.clone()), kept(observed, revoked)),
        (None, Ok(_)) if !revoked.is_empty() => (Stage::Rolling, revoked),
        (None, Ok(resolution)) => {
            let changes = writes(observed, resolution, settings);
            (if changes.is_empty() { stage::settled(observed, now) } else { Stage::Rolling }, changes)
        }
    };
    let mut status = status::status(observed, &stage, resolution.as_ref().ok(), now);
    if let Some(gateway) = &settings.gateway {
        let is_gone = permission::is_over(observed) || matches!(stage, Stage::Blocked(_)) && observed.workload.is_none();
        status.conditions.extend(route::condition(observed, (gateway, is_gone), now));
    }
    let notices = status::notices(observed, &status);
    Plan { changes, status: Some(status), notices, next: stage::look_again(observed, &stage) }
}

/// What there is to write while nothing new can be served: what may not go on ends, and what goes on follows the number that is wanted. None is
/// waked of what rests, since nobody knows whether it can still be served.
fn kept(observed: &ObservedDeployment, revoked: Vec<Change>) -> Vec<Change> {
    if !revoked.is_empty() {
        return revoked;
    }
    let wanted = observed.deployment.spec.replicas;
    let known = observed.workload.as_deref().filter(|known| known.metadata.deletion_timestamp.is_none());
    let has = known.and_then(|known| known.spec.as_ref()?.replicas).unwrap_or_default();
    let scaled = known.filter(|_| has != 0 && has != wanted).map(|known| Change::Scale {
        name: observed.name().to_owned(),
        known: Known::of(&known.metadata),
        replicas: wanted,
    });
    let budget = known.filter(|_| observed.refusal.is_none()).and_then(|_| availability::change(observed));
    scaled.into_iter().chain(budget).collect()
}

/// The children, as far as they are not as wanted yet.
fn writes(observed: &ObservedDeployment, resolution: &Resolution, settings: &Settings) -> Vec<Change> {
    let (workload, service) = (children::workload(resolution, settings), children::service(resolution));
    let known = observed.workload.as_deref();
    let is_scaled =
        known.is_some_and(|known| known.spec.as_ref().and_then(|spec| spec.replicas) != Some(resolution.spec.replicas));
    let known = known.map(|known| &known.metadata);
    let workload = (is_scaled || differs(known, &workload.metadata))
        .then(|| Change::Apply { child: Child::Workload(Box::new(workload)), known: known.map(Known::of) });
    let known = observed.service.as_ref().map(|known| &known.metadata);
    let service = differs(known, &service.metadata)
        .then(|| Change::Apply { child: Child::Service(Box::new(service)), known: known.map(Known::of) });
    let budget = availability::change(observed);
    let route = settings.gateway.as_ref().and_then(|gateway| route::change(observed, resolution, gateway));
    [service, workload, budget, route].into_iter().flatten().collect()
}

fn differs(known: Option<&ObjectMeta>, wanted: &ObjectMeta) -> bool {
    known.is_none_or(|known| children::revision(known) != children::revision(wanted))
}

#[cfg(test)]
mod tests;
