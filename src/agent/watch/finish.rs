//! The end of training: the last scan, the verdict, and what is left beside the checkpoints. Effects only.

use std::io;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::classify::{self, Evidence};
use super::disk;
use super::ended::Ended;
use super::given_up::GivenUp;
use super::log;
use super::part::Part;
use super::scan::Order;
use super::session::{HISTORY, Session, Sources};
use super::verdict::{Facts, verdict};
use crate::agent::store::lineage_prefix;
use crate::{
    api::Completion,
    protocol::{End, FilesState},
};

impl Session {
    /// Brings everything on record and decides how the attempt has ended.
    pub(super) async fn finish(&mut self, ended: Ended, sources: &mut Sources) -> End {
        self.last_scan(sources).await;
        self.read_logs();
        while let Ok(post) = sources.posts.try_recv() {
            self.on_post(&post);
        }
        // The last points may have come with the end.
        self.given_up = self.given_up.or_else(|| self.divergence.row().map(GivenUp::Diverged));
        let end = verdict(&self.facts(ended));
        self.leave_records(&end).await;
        end
    }

    /// Has the scanner prove what the trainer has left.
    async fn last_scan(&mut self, sources: &mut Sources) {
        let (done, mut told) = oneshot::channel();
        let order = Order::Finish { settle: self.pace.part == Part::First, done };
        if sources.orders.send(order).await.is_err() {
            return;
        }
        let root = loop {
            tokio::select! {
                biased;
                Some(news) = sources.news.recv() => self.on_news(news),
                root = &mut told => break root,
            }
        };
        if let Ok(Some(state)) = root {
            self.on_state(&state);
        }
    }

    fn facts(&self, ended: Ended) -> Facts {
        let tail = log::tail(&self.places.log());
        let ready =
            |it: &&crate::protocol::ReportedCheckpoint| it.lineage == self.config.lineage && it.state == FilesState::Ready;
        let progress = self.tracker.reported();
        let lost = match self.given_up {
            Some(GivenUp::Diverged(row)) => Some(row),
            _ => self.divergence.newest(),
        };
        let evidence = Evidence {
            exit_code: ended.exit,
            signal: ended.signal,
            out_of_memory: ended.out_of_memory,
            log: &tail,
            parameters: &self.config.parameters,
            lost,
            learning_rate: progress.as_ref().and_then(|it| it.metrics.get("learning_rate")).map(String::as_str),
        };
        let diverged = matches!(self.given_up, Some(GivenUp::Diverged(_)));
        Facts {
            exit_code: ended.exit,
            asked: ended.asked,
            given_up: self.given_up,
            // How far training came is the first node's to know.
            completion: if self.pace.part.leads() { self.config.completion } else { Completion::ExitCode },
            step: self.tracker.proven_step(),
            total: self.tracker.total(),
            saved: self.checkpoints.iter().filter(ready).map(|it| it.step).max(),
            recorded_end: self.tracker.recorded_end(),
            failure: if diverged { Some(classify::diverged(&evidence)) } else { classify::failure(&evidence) },
        }
    }

    /// Writes history, log and verdict beside the checkpoints, and uploads them where those go.
    async fn leave_records(&self, end: &End) {
        let stem = self.pace.part.record_stem(self.config.attempt);
        let end = serde_json::to_vec(end).unwrap_or_default();
        let (names, written) = self.write_records(&stem, end).await;
        if let Err(error) = written {
            tracing::warn!(%error, "history or log not written");
        }
        let Some(bucket) = &self.bucket else { return };
        let dir = self.places.lineage(&self.config);
        let prefix = lineage_prefix(&self.config, self.config.lineage);
        for name in names {
            let path = dir.join(&name);
            if let (true, Err(error)) = (path.is_file(), bucket.upload_file(&path, &format!("{prefix}/{name}")).await) {
                tracing::warn!(%error, name, "record not uploaded");
            }
        }
    }

    async fn write_records(&self, stem: &str, end: Vec<u8>) -> (Vec<String>, io::Result<()>) {
        let dir = self.places.lineage(&self.config);
        let mut names = vec![format!("{stem}.log"), format!("{stem}.end.json")];
        let (copy, record) = (dir.join(&names[0]), dir.join(&names[1]));
        let history = self.pace.part.leads().then(|| (dir.join(HISTORY), self.history.to_lines()));
        names.extend(history.is_some().then(|| HISTORY.to_owned()));
        let log = self.places.log();
        let write = move || {
            let history = history.map_or(Ok(()), |(path, lines)| disk::write_whole(&path, lines.as_bytes()));
            // Each for itself: a full disk may still take the small ones.
            [disk::write_whole(&record, &end), history, log::copy(&log, &copy)].into_iter().collect()
        };
        (names, spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}
