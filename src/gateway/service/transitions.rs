//! What may be asked of a run in which state, and what it changes. Pure.

use serde_json::{Value, json};

use super::standing;
use crate::api::{DesiredState, FineTune, FineTunePhase as Phase};

/// What a caller asks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Train: begin, go on after a pause, or begin again after a stop or a failure.
    Run,
    /// End for good, and keep every checkpoint.
    Stop,
    /// End the pods, and go on later.
    Pause,
    /// Go on after a pause.
    Resume,
    /// A new attempt of a run that was stopped or has failed.
    Restart {
        /// Whether to begin anew rather than with the last checkpoint.
        scratch: bool,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is so already.
    Done,
    /// This patch makes it so.
    Edit(Value),
    /// Not in this state.
    Refused(String),
}

/// What `action` means for the run as it stands.
#[must_use]
pub fn decide(action: Action, run: &FineTune) -> Verdict {
    if run.metadata.deletion_timestamp.is_some() {
        return Verdict::Refused("the fine-tune is being deleted".into());
    }
    let (phase, desired) = (standing::phase(run), run.spec.desired_state);
    let over = !standing::is_open(phase);
    match action {
        Action::Stop if phase == Phase::Stopped || desired == DesiredState::Stopped => Verdict::Done,
        Action::Stop if over => refused("stopped", phase),
        Action::Stop => want(DesiredState::Stopped),
        Action::Pause | Action::Resume | Action::Run if desired == DesiredState::Stopped && !over => refused("changed", phase),
        Action::Pause if over => refused("paused", phase),
        Action::Pause if desired == DesiredState::Paused => Verdict::Done,
        Action::Pause => want(DesiredState::Paused),
        Action::Resume if over => refused("resumed", phase),
        Action::Run if over && phase != Phase::Succeeded => restart(run, false),
        Action::Run if over => refused("run again", phase),
        Action::Resume | Action::Run if desired == DesiredState::Running => Verdict::Done,
        Action::Resume | Action::Run => want(DesiredState::Running),
        Action::Restart { scratch } if matches!(phase, Phase::Stopped | Phase::Failed) => restart(run, scratch),
        Action::Restart { .. } => refused("restarted (only a stopped or failed one can)", phase),
    }
}

/// Whether the run may be deleted now.
///
/// # Errors
/// Why not.
pub fn may_be_deleted(run: &FineTune) -> Result<(), String> {
    let phase = standing::phase(run);
    if standing::is_at_work(phase) {
        return Err(format!("the fine-tune is {}: stop it before it is deleted", told(phase)));
    }
    Ok(())
}

fn want(state: DesiredState) -> Verdict {
    Verdict::Edit(json!({"spec": {"desiredState": state}}))
}

fn restart(run: &FineTune, scratch: bool) -> Verdict {
    let policy = if scratch { "Scratch" } else { "LastCheckpoint" };
    let restarts = run.spec.restarts.saturating_add(1);
    Verdict::Edit(json!({"spec": {"desiredState": "Running", "restarts": restarts, "startFrom": {"policy": policy}}}))
}

fn refused(what: &str, phase: Phase) -> Verdict {
    Verdict::Refused(format!("a fine-tune that is {} cannot be {what}", told(phase)))
}

fn told(phase: Phase) -> String {
    format!("{phase:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 10] = [
        Phase::Pending,
        Phase::Queued,
        Phase::Preparing,
        Phase::Running,
        Phase::Pausing,
        Phase::Paused,
        Phase::Stopping,
        Phase::Stopped,
        Phase::Succeeded,
        Phase::Failed,
    ];

    fn run(phase: Phase) -> FineTune {
        let mut run = FineTune::default();
        run.spec.restarts = 4;
        run.spec.desired_state = match phase {
            Phase::Pausing | Phase::Paused => DesiredState::Paused,
            Phase::Stopping | Phase::Stopped => DesiredState::Stopped,
            _ => DesiredState::Running,
        };
        run.status.get_or_insert_default().phase = phase;
        run
    }

    /// One letter a phase: D(one), E(dit), R(efused).
    fn table(action: Action) -> String {
        PHASES
            .iter()
            .map(|phase| match decide(action, &run(*phase)) {
                Verdict::Done => 'D',
                Verdict::Edit(_) => 'E',
                Verdict::Refused(_) => 'R',
            })
            .collect()
    }

    #[test]
    fn every_action_has_its_states() {
        //                              PQPRPPSSSF
        assert_eq!(table(Action::Stop), "EEEEEEDDRR");
        assert_eq!(table(Action::Pause), "EEEEDDRRRR");
        assert_eq!(table(Action::Resume), "DDDDEERRRR");
        assert_eq!(table(Action::Run), "DDDDEERERE");
        assert_eq!(table(Action::Restart { scratch: false }), "RRRRRRRERE");
        let deletable: String = PHASES.iter().map(|phase| if may_be_deleted(&run(*phase)).is_ok() { 'D' } else { 'R' }).collect();
        assert_eq!(deletable, "DDRRRDRDDD");
    }

    #[test]
    fn a_restart_raises_the_counter_and_says_where_it_begins() {
        let Verdict::Edit(patch) = decide(Action::Restart { scratch: true }, &run(Phase::Failed)) else { panic!("refused") };
        assert_eq!(patch, json!({"spec": {"desiredState": "Running", "restarts": 5, "startFrom": {"policy": "Scratch"}}}));
    }

    #[test]
    fn what_is_being_deleted_takes_no_orders() {
        let mut run = run(Phase::Running);
        run.metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T07:00:00Z")).unwrap();
        assert!(matches!(decide(Action::Pause, &run), Verdict::Refused(_)));
    }
}
