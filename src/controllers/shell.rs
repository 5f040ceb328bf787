//! The shell around every plan: observe, plan, write. What differs between kinds is in [`Planned`].

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    runner::{Pace, Reconciler, Setback},
    world::World,
};
use crate::{
    cluster::{Class, Cluster, Error, Subject},
    plan::{ASIDE, Change, Next, Notice, Plan},
    settings::Settings,
};

/// A kind that plans are made for.
pub trait Planned: Subject + 'static {
    /// The facts a plan is made from.
    type Observed: Send + Sync;
    /// Its status.
    type Status: PartialEq + Send;
    /// Whether others write fields of the status that its controller owns: then what the controller has not seen is not written over.
    const SHARED: bool = false;

    /// Everything the watches know that bears on `object`. Reads nothing from the API server.
    fn observe(object: &Arc<Self>, shell: &Shell) -> Self::Observed;
    /// What is to be done.
    fn plan(observed: &Self::Observed, settings: &Settings, now: Timestamp) -> Plan<Self::Status>;
    /// The status as it stands.
    fn status(&self) -> Self::Status;
    /// The fields of the status its controller owns.
    fn owned(status: Self::Status) -> serde_json::Value;
    /// Takes a failed write for a fact; whether that calls for another plan.
    fn learn(observed: &mut Self::Observed, error: &Error) -> bool;
    /// Takes for a fact that what it is to have beside it was refused; whether its status says something else for that.
    fn learn_of_refusal(_: &mut Self::Observed, _: &'static str, _: &str) -> bool {
        false
    }
}

/// What a controller works with.
pub struct Shell {
    /// What is watched.
    pub world: Arc<World>,
    /// What is written to.
    pub cluster: Cluster,
    /// What the installation decided.
    pub settings: Arc<Settings>,
    /// What its reconciles share.
    pub pace: Pace,
}

impl<K: Planned> Reconciler<K> for Shell {
    fn pace(&self) -> &Pace {
        &self.pace
    }

    async fn reconcile(&self, object: Arc<K>) -> Result<Next, Setback> {
        if self.pace.is_stale(&*object) {
            return Ok(Next::OnChange);
        }
        let mut observed = K::observe(&object, self);
        match self.carry_out(&*object, &observed).await {
            Err(setback) if !self.learns(&*object, &mut observed, &setback) => Err(setback),
            Err(setback) if setback.aside => {
                // All else is done: what is left is to say so.
                let told = K::plan(&observed, &self.settings, Timestamp::now()).status;
                self.write_status(&*object, told).await?;
                Err(setback)
            }
            Err(_) => self.carry_out(&*object, &observed).await,
            done => done,
        }
    }
}

impl Shell {
    fn learns<K: Planned>(&self, object: &K, observed: &mut K::Observed, setback: &Setback) -> bool {
        if !setback.aside || setback.error.class() == Class::NamespaceTerminating {
            return K::learn(observed, &setback.error);
        }
        let refused = ASIDE.into_iter().filter_map(|what| Some((what, self.pace.refusals.why(object, what)?)));
        refused.fold(false, |learned, (what, why)| K::learn_of_refusal(observed, what, &why) || learned)
    }

    async fn carry_out<K: Planned>(&self, object: &K, observed: &K::Observed) -> Result<Next, Setback> {
        let plan = K::plan(observed, &self.settings, Timestamp::now());
        let (aside, changes): (Vec<_>, Vec<_>) = plan.changes.into_iter().partition(|change| change.aside().is_some());
        if let Some(after) = self.cluster.apply(object, &changes).await? {
            self.pace.wrote(object, &after, Timestamp::now());
        }
        self.write_status(object, plan.status).await?;
        self.cluster.publish(object, &plan.notices);
        self.carry_out_aside(object, aside, plan.next).await
    }

    async fn write_status<K: Planned>(&self, object: &K, status: Option<K::Status>) -> Result<(), Error> {
        if let Some(status) = status.filter(|status| *status != object.status()) {
            let over = object.resource_version().filter(|_| K::SHARED);
            let after = self.cluster.write_status(object, K::owned(status), over).await?;
            self.pace.wrote(object, &after, Timestamp::now());
        }
        Ok(())
    }

    /// The writes beside the object, each for itself. Returns the first that failed, once all were tried.
    async fn carry_out_aside<K: Planned>(&self, object: &K, aside: Vec<Change>, mut next: Next) -> Result<Next, Setback> {
        let refusals = &self.pace.refusals;
        for what in ASIDE.into_iter().filter(|what| aside.iter().all(|change| change.aside() != Some(*what))) {
            refusals.forget(object, what);
        }
        let mut failed = None;
        for change in aside {
            let what = change.aside().unwrap_or_default();
            if let Some(rest) = refusals.rest(object, what, Timestamp::now()) {
                next = next.or_sooner(Next::After(rest));
                continue;
            }
            match self.cluster.apply(object, &[change]).await {
                Ok(_) => refusals.forget(object, what),
                Err(error) => {
                    self.tell_refusal(object, what, &error);
                    failed = failed.or(Some(error));
                }
            }
        }
        failed.map_or(Ok(next), |error| Err(Setback { error, aside: true, next }))
    }

    fn tell_refusal<K: Planned>(&self, object: &K, what: &'static str, error: &Error) {
        if error.class() != Class::Refused {
            return;
        }
        let message = error.with_cause();
        if self.pace.refusals.note(object, what, &message, Timestamp::now()) {
            self.cluster.publish(object, &[Notice { warning: true, reason: "WriteRefused", message }]);
        }
    }
}
