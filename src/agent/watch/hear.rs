//! What a session hears of its trainer: posts, saves and logged lines, each handed to the parts that keep
//! progress and history. Reads logs and writes the history file.

use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::callback::Post;
use super::disk;
use super::diverge::Source;
use super::lines::{self, Said};
use super::log;
use super::scan::News;
use super::session::{HISTORY, Session};
use crate::checkpoint_files::TrainerState;

impl Session {
    /// Takes a progress post.
    pub(super) fn on_post(&mut self, post: &Post) {
        self.alive = true;
        self.tracker.post(post, Timestamp::now());
        if let Some(said) = self.posted.fresh(post) {
            let step = said.step.unwrap_or_default();
            self.divergence.logged(Source::Posts, step, &said);
            self.sample(step, &said);
        }
    }

    fn sample(&mut self, step: i64, said: &Said) {
        if self.history.sample(step, said.epoch, &said.metrics) {
            self.hasten();
        }
    }

    /// Takes what a scan has shown.
    pub(super) fn on_news(&mut self, news: News) {
        self.alive = true;
        match news {
            News::Checkpoints(all) => {
                self.checkpoints = all;
                self.hasten();
            }
            News::State(state) => self.on_state(&state),
            // The trainer writes: that it lives is all there is to say.
            News::Written => {}
        }
    }

    /// Takes a state this attempt has saved.
    pub(super) fn on_state(&mut self, state: &TrainerState) {
        self.tracker.state(state, Timestamp::now());
        self.history.record(state);
        self.divergence.saved(state);
        self.unwritten = true;
    }

    /// Writes the history beside the checkpoints, where a new one has brought it forward.
    pub(super) async fn write_history(&mut self) {
        if !std::mem::take(&mut self.unwritten) {
            return;
        }
        let (path, lines) = (self.places.lineage(&self.config).join(HISTORY), self.history.to_lines());
        let written = spawn_blocking(move || disk::write_whole(&path, lines.as_bytes())).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            tracing::warn!(%error, "history not written");
        }
    }

    /// Reads what was logged since the last look.
    pub(super) fn read_logs(&mut self) {
        let now = Timestamp::now();
        for line in self.records.new_lines() {
            if let Some(said) = lines::trainer_log(&line) {
                let step = said.step.unwrap_or_default();
                self.alive = true;
                self.tracker.record(&said, now);
                self.divergence.logged(Source::Records, step, &said);
                self.sample(step, &said);
            }
        }
        for line in self.log.new_lines() {
            self.alive = true;
            let line = log::message(&line);
            if let Some(bar) = lines::bar(line) {
                self.tracker.bar(&bar, now);
            }
            if let Some(said) = lines::python_dict(line) {
                self.tracker.printed(&said, now);
                // Without posts, the step is that of the bar drawn before the dict was printed.
                let step = said.step.or_else(|| self.tracker.step());
                self.divergence.logged(Source::Lines, step.unwrap_or_default(), &said);
                if let Some(step) = step.filter(|_| !self.tracker.is_told()) {
                    self.sample(step, &said);
                }
            }
        }
    }
}
