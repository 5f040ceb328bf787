//! The shell around every plan: observe, plan, write. What differs between kinds is in [`Planned`].

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    runner::{Pace, Reconciler},
    world::World,
};
use crate::{
    cluster::{Cluster, Error, Subject},
    plan::{Change, Next, Plan},
    settings::Settings,
};

/// A kind that plans are made for.
pub trait Planned: Subject + 'static {
    /// The facts a plan is made from.
    type Observed: Send + Sync;
    /// Its status.
    type Status: PartialEq + Send;

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

    async fn reconcile(&self, object: Arc<K>) -> Result<Next, Error> {
        if self.pace.is_stale(&*object) {
            return Ok(Next::OnChange);
        }
        let mut observed = K::observe(&object, self);
        match self.carry_out(&*object, &observed).await {
            Err(error) if K::learn(&mut observed, &error) => self.carry_out(&*object, &observed).await,
            result => result,
        }
    }
}

impl Shell {
    async fn carry_out<K: Planned>(&self, object: &K, observed: &K::Observed) -> Result<Next, Error> {
        let plan = K::plan(observed, &self.settings, Timestamp::now());
        let (aside, changes): (Vec<_>, Vec<_>) = plan.changes.into_iter().partition(Change::is_aside);
        if let Some(after) = self.cluster.apply(object, &changes).await? {
            self.pace.wrote(object, &after, Timestamp::now());
        }
        if let Some(status) = plan.status.filter(|status| *status != object.status()) {
            let after = self.cluster.write_status(object, K::owned(status)).await?;
            self.pace.wrote(object, &after, Timestamp::now());
        }
        self.cluster.publish(object, &plan.notices);
        self.cluster.apply(object, &aside).await?;
        Ok(plan.next)
    }
}
