//! Which of our runs wait in Kueue's queues, and what Kueue last said of them. While none waits, Kueue is asked nothing.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use k8s_openapi::api::batch::v1 as batch;
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::{sync::Notify, time::Instant};

use super::{
    kueue::{FIRST, Kueue, Queue},
    world::World,
};
use crate::{
    api::{FineTune, QueueStatus, names},
    plan::queue,
};

/// Kueue has this long to take up a run that has just joined a queue, and one look then serves all that joined meanwhile.
const SETTLE: Duration = Duration::from_secs(1);

/// What Kueue said of runs that wait, by uid of their Job.
#[derive(Default)]
pub struct Queues {
    places: RwLock<HashMap<String, QueueStatus>>,
    joined: Notify,
}

impl Queues {
    /// What Kueue said of the run of a Job; nothing before it was asked.
    pub fn place(&self, job: &str) -> Option<QueueStatus> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).get(job).cloned()
    }

    /// A run has joined a queue.
    pub fn joined(&self) {
        self.joined.notify_one();
    }

    /// Notes what Kueue says of the run of a Job. Whether that is news.
    fn note(&self, job: String, place: QueueStatus) -> bool {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = places.get(&job) != Some(&place);
        places.insert(job, place);
        is_news
    }

    /// Forgets runs that wait no longer.
    fn keep_only(&self, jobs: &HashSet<&str>) {
        self.places.write().unwrap_or_else(PoisonError::into_inner).retain(|job, _| jobs.contains(job.as_str()));
    }
}

/// Asks Kueue about the runs that wait, and wakes those of which it says something new. Never ends.
pub async fn follow(kueue: Kueue, world: Arc<World>) {
    let mut lookout = Lookout::new(kueue, world.jobs.store().clone(), Arc::clone(&world.queues));
    loop {
        for run in lookout.look().await {
            world.wake(run);
        }
        lookout.until_due().await;
    }
}

/// A run that waits.
struct Waiting {
    job: Arc<batch::Job>,
    uid: String,
}

impl Waiting {
    fn run(&self) -> Option<ObjectRef<FineTune>> {
        let name = self.job.labels().get(names::FINE_TUNE)?;
        Some(ObjectRef::new(name).within(&self.job.namespace().unwrap_or_default()))
    }
}

/// Looks into each queue in which a run waits, when its time has come.
struct Lookout {
    kueue: Kueue,
    jobs: Store<batch::Job>,
    queues: Arc<Queues>,
    due: HashMap<Queue, Instant>,
}

impl Lookout {
    fn new(kueue: Kueue, jobs: Store<batch::Job>, queues: Arc<Queues>) -> Self {
        Self { kueue, jobs, queues, due: HashMap::new() }
    }

    /// Looks into the queues that are due. The runs of which there is news.
    async fn look(&mut self) -> Vec<ObjectRef<FineTune>> {
        let waiting = self.waiting();
        self.queues.keep_only(&waiting.values().flatten().map(|run| run.uid.as_str()).collect());
        let now = Instant::now();
        self.due.retain(|queue, due| waiting.contains_key(queue) || *due > now);
        let mut news = Vec::new();
        for (queue, runs) in waiting {
            if self.due.get(&queue).is_none_or(|due| *due <= now) {
                news.extend(self.look_into(&queue, runs).await);
                self.due.insert(queue, Instant::now() + self.kueue.interval());
            }
        }
        news
    }

    /// The runs that wait, by queue.
    fn waiting(&self) -> BTreeMap<Queue, Vec<Waiting>> {
        let mut waiting: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for job in self.jobs.state() {
            let Some(name) = queue::waits_in(&job).map(str::to_owned) else { continue };
            let queue = Queue { namespace: job.namespace().unwrap_or_default(), name };
            waiting.entry(queue).or_default().push(Waiting { uid: job.uid().unwrap_or_default(), job });
        }
        waiting
    }

    async fn look_into(&mut self, queue: &Queue, mut runs: Vec<Waiting>) -> Vec<ObjectRef<FineTune>> {
        let pending = self.kueue.pending(queue).await;
        runs.sort_by_key(|run| (pending.position(&run.uid).unwrap_or(i64::MAX), run.job.creation_timestamp().map(|time| time.0)));
        let jobs: Vec<_> = runs.iter().map(|run| run.uid.as_str()).collect();
        let workloads = self.kueue.workloads(&queue.namespace, &jobs[..jobs.len().min(FIRST)]).await;
        let mut places = queue::places(&jobs, &pending, &workloads);
        let mut place = |run: &Waiting| places.remove(&run.uid).unwrap_or_default();
        runs.iter().filter(|run| self.queues.note(run.uid.clone(), place(run))).filter_map(Waiting::run).collect()
    }

    /// Waits until a queue is due, or a run joins one.
    async fn until_due(&self) {
        let due = async {
            match self.due.values().min() {
                Some(due) => tokio::time::sleep_until(*due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = self.queues.joined.notified() => tokio::time::sleep(SETTLE).await,
        }
    }
}

#[cfg(test)]
mod tests;
