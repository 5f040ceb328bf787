//! Doing what a caller asks of a run.

use std::time::Duration;

use kube::ResourceExt;

use super::transitions::{Action, Verdict, decide, may_be_deleted};
use super::{Session, runs, standing};
use crate::api::{FineTune, FineTunePhase};
use crate::gateway::errors::Refusal;

/// Times a change is tried again because the run changed in between.
const TRIES: usize = 8;

/// Carries out an action, and returns the run as it is then.
///
/// # Errors
/// There is no such run, it cannot be done in its state, or the caller may not.
pub async fn act(session: &Session, id: &str, action: Action) -> Result<FineTune, Refusal> {
    for _ in 0..TRIES {
        let run = runs::get(session, id).await?;
        match decide(action, &run) {
            Verdict::Done => return Ok(run),
            Verdict::Refused(why) => return Err(Refusal::conflict(why)),
            Verdict::Edit(patch) => {
                if let Some(changed) = session.cluster.edit(&run, patch).await? {
                    return Ok(changed);
                }
            }
        }
    }
    Err(busy())
}

/// The run once it is in one of these phases, or as it is when patience ends.
///
/// # Errors
/// It is gone, or the API server does not answer.
pub async fn settled(
    session: &Session,
    run: FineTune,
    patience: Duration,
    phases: &[FineTunePhase],
) -> Result<FineTune, Refusal> {
    if patience.is_zero() {
        return Ok(run);
    }
    let holds = |run: &FineTune| phases.contains(&standing::phase(run));
    let found = session.cluster.wait(&run.name_any(), patience, holds).await?;
    found.ok_or_else(|| Refusal::no_fine_tune(&run.name_any()))
}

/// Deletes a run that is not at work.
///
/// # Errors
/// There is no such run, it is at work, or the caller may not.
pub async fn delete(session: &Session, id: &str) -> Result<FineTune, Refusal> {
    for _ in 0..TRIES {
        let run = runs::get(session, id).await?;
        may_be_deleted(&run).map_err(Refusal::conflict)?;
        if run.metadata.deletion_timestamp.is_some() || session.cluster.delete(&run, true).await? {
            return Ok(run);
        }
    }
    Err(busy())
}

fn busy() -> Refusal {
    Refusal::conflict("the fine-tune changes too quickly: try again")
}
