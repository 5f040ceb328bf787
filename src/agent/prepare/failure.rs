//! What a failed preparation is called, whose fault it is, and what helps. Pure.

use super::PrepareError;
use crate::agent::inputs::InputError;
use crate::agent::resume::ResumeError;
use crate::agent::store::{StoreError, is_full};
use crate::api::Failure;
use crate::checkpoint_files::cut;
use crate::protocol::exit;

/// What an input is to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The base model.
    BaseModel,
    /// The training data.
    Dataset,
    /// The evaluation data.
    ValidationDataset,
    /// The weights of a checkpoint.
    Weights,
}

impl Role {
    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BaseModel => "base model",
            Self::Dataset => "dataset",
            Self::ValidationDataset => "validation dataset",
            Self::Weights => "weights",
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::BaseModel => "BaseModelInvalid",
            Self::Dataset | Self::ValidationDataset => "DatasetInvalid",
            Self::Weights => CHECKPOINT,
        }
    }
}

/// Reason and remedy; no remedy where it may pass by itself.
struct Class {
    reason: &'static str,
    hint: &'static str,
    user_error: bool,
}

const TRANSIENT: Class = Class { reason: "PrepareFailed", hint: "", user_error: false };
const FULL: Class = Class {
    reason: "StorageFull",
    hint: "enlarge the volume, or keep fewer checkpoints (checkpoints.keepLast)",
    user_error: true,
};
const CHECKPOINT: &str = "CheckpointInvalid";

/// The failure an error is shown as.
pub(in crate::agent) fn of(error: &PrepareError) -> Failure {
    let (class, field) = match error {
        PrepareError::Input { role, source } => of_input(role.reason(), source),
        PrepareError::Store(source) => (of_store("OutputInvalid", source), Some("spec.output")),
        PrepareError::Resume(source) => of_resume(source),
        PrepareError::File(source) if is_full(&source.source) => (FULL, None),
        PrepareError::Config { .. } | PrepareError::File(_) => (TRANSIENT, None),
    };
    Failure {
        reason: class.reason.to_owned(),
        message: cut(&error.to_string(), 2048).to_owned(),
        hint: class.hint.to_owned(),
        field: field.map(|field| cut(field, 256).to_owned()),
        exit_code: Some(if class.user_error { exit::USER_ERROR } else { 1 }),
        user_error: class.user_error,
    }
}

/// The failure as Kubernetes keeps it: one line of at most 4096 bytes.
pub(in crate::agent) fn termination_message(failure: &Failure) -> String {
    const MOST: usize = 4096;
    let mut failure = failure.clone();
    loop {
        let text = serde_json::to_string(&failure).unwrap_or_default();
        if text.len() <= MOST || failure.message.is_empty() {
            return text;
        }
        // Escaping can make a message several times as long as it is.
        failure.message = cut(&failure.message, failure.message.len() / 2).to_owned();
    }
}

fn of_resume(error: &ResumeError) -> (Class, Option<&str>) {
    let hint = "choose another checkpoint, or leave startFrom.checkpoint out";
    match error {
        ResumeError::Output { .. } => (TRANSIENT, None),
        ResumeError::Store(source) => (of_store("OutputInvalid", source), Some("spec.output")),
        ResumeError::Input(source) => of_input(CHECKPOINT, source),
        ResumeError::Damaged { .. } => (Class { reason: CHECKPOINT, hint, user_error: true }, Some("spec.startFrom.checkpoint")),
    }
}

fn of_input<'a>(reason: &'static str, error: &'a InputError) -> (Class, Option<&'a str>) {
    let reason = if matches!(error, InputError::NotPermitted { .. }) { "NotPermitted" } else { reason };
    let hint = match error {
        InputError::Missing { .. } => "correct the path, or put the files there",
        InputError::Empty { .. } => "put the files there",
        InputError::Outside { .. } => "copy the files into the volume",
        InputError::Unreadable { .. } => "let the group of the pod (fsGroup 1000) read the files",
        InputError::Damaged { .. } => "choose another checkpoint, or put the files back as they were",
        InputError::NotPermitted { .. } => "ask its owner for a CheckpointPermission",
        InputError::Failed { .. } => return (TRANSIENT, Some(error.field())),
        InputError::Store { source, .. } => return (of_store(reason, source), Some(error.field())),
    };
    (Class { reason, hint, user_error: true }, Some(error.field()))
}

fn of_store(reason: &'static str, error: &StoreError) -> Class {
    match error {
        StoreError::NoCredentials { .. } | StoreError::AccessDenied { .. } => Class {
            reason: "StorageAccessDenied",
            hint: "check secretName, and what its keys may do with the bucket",
            user_error: true,
        },
        _ if error.is_full() => FULL,
        _ if error.is_final() => Class { reason, hint: "correct the uri, or put the files there", user_error: true },
        _ => TRANSIENT,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;

    fn input(source: InputError) -> Failure {
        of(&PrepareError::Input { role: Role::Dataset, source })
    }

    fn store(source: StoreError) -> Failure {
        let field = "spec.dataset.training".to_owned();
        input(InputError::Store { field, source })
    }

    #[test]
    fn a_missing_dataset_is_the_users_to_mend_and_names_the_field() {
        let names = ("volume://c/x".to_owned(), "spec.dataset.training".to_owned());
        let found = input(InputError::Missing { label: names.0, field: names.1, found: vec!["y".into()] });
        assert_eq!(found.reason, "DatasetInvalid");
        assert_eq!(found.field.as_deref(), Some("spec.dataset.training"));
        assert_eq!(found.exit_code, Some(78));
        assert!(found.user_error && found.message.contains("beside it are: y"));
    }

    #[test]
    fn failures_of_a_store_are_told_apart() {
        let uri = || "s3://b/p".to_owned();
        let denied = StoreError::AccessDenied { uri: uri(), problem: String::new() };
        let full = StoreError::local(Path::new("/x"), io::ErrorKind::StorageFull.into());
        let down = StoreError::Failed { uri: uri(), problem: "timeout".to_owned() };
        let cases = [
            (denied, "StorageAccessDenied", true),
            (StoreError::Nothing { uri: uri() }, "DatasetInvalid", true),
            (full, "StorageFull", true),
            (down, "PrepareFailed", false),
        ];
        for (error, reason, user_error) in cases {
            let failure = store(error);
            assert_eq!((failure.reason.as_str(), failure.user_error), (reason, user_error));
        }
    }

    #[test]
    fn the_termination_message_fits_and_stays_json() {
        let failure = Failure { message: "\u{1}".repeat(2048), ..Failure::default() };
        let text = termination_message(&failure);
        assert!(text.len() <= 4096);
        serde_json::from_str::<Failure>(&text).unwrap();
    }
}
