//! What the operator asks of the API server, from the audit log.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    time::{Duration, Instant},
};

use serde::Deserialize;

pub use crate::harness::audit::Request;
use crate::harness::{
    audit,
    cluster::{AUDIT_LOG, setting},
};

/// The operator has fallen silent when it asked for nothing for this long.
const SILENT: Duration = Duration::from_secs(3);
/// How often the log is read. The API server answers only after it has written the line, so nothing is read too early.
const READ_EVERY: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
struct Line {
    stage: String,
    #[serde(flatten)]
    request: Request,
}

/// The audit log from some moment on.
pub struct AuditLog {
    reader: BufReader<File>,
    partial: String,
    operator: String,
}

impl AuditLog {
    /// The log without what it holds already.
    pub fn from_now_on() -> Self {
        let mut file = File::open(setting(AUDIT_LOG)).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        Self { reader: BufReader::new(file), partial: String::new(), operator: audit::operator() }
    }

    /// What the operator asked for since the last look, each request once.
    pub fn news(&mut self) -> Vec<Request> {
        let mut found = Vec::new();
        while self.reader.read_line(&mut self.partial).unwrap() > 0 && self.partial.ends_with('\n') {
            let line = serde_json::from_str::<Line>(&std::mem::take(&mut self.partial)).unwrap();
            // A watch is logged when it begins, and again when it ends.
            let counts = line.stage == if line.request.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
            if counts && line.request.user.username == self.operator {
                found.push(line.request);
            }
        }
        found
    }

    /// What the operator asks for until it asks for nothing any more but its lease.
    pub async fn until_silent(&mut self, patience: Duration) -> Vec<Request> {
        let (begin, mut last, mut found) = (Instant::now(), Instant::now(), Vec::new());
        while last.elapsed() < SILENT {
            assert!(begin.elapsed() < patience, "the operator does not fall silent");
            let news = self.news();
            if news.iter().any(|request| !is_lease(request)) {
                last = Instant::now();
            }
            found.extend(news);
            tokio::time::sleep(READ_EVERY).await;
        }
        found
    }
}

/// Whether a request is about the lease of the leader.
pub fn is_lease(request: &Request) -> bool {
    request.object_ref.resource == "leases"
}
