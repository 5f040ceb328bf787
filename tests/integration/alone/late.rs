//! A write that comes late, when the server knows more than its writer did.

use axum::http::StatusCode;

use finetune_operator::{
    api::{Checkpoint, CheckpointPhase, names},
    protocol::Report,
};

use crate::{
    harness::{Agent, proxy::Proxied, sandbox::with_sandbox, saved, wait::until},
    imports::{import, of},
};

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn that_files_are_being_read_is_not_written_over_what_was_found_in_them() {
    with_sandbox(|sandbox| async move {
        let proxied = Proxied::start(&sandbox, None).await;
        let held = proxied.hold("/checkpoints/imported/status?&force=true&fieldManager=finetune-operator-controller");
        let checkpoint = import(&sandbox, "models").await;
        held.here.await.unwrap();
        let mut reader = Agent::of_role(&sandbox, &of(&checkpoint), names::ROLE_IMPORT).await;
        reader.report(Report { checkpoints: vec![saved(0, 7, "1.0")], ..Report::default() }).await;
        let is_ready =
            |checkpoint: &Checkpoint| checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Ready);
        until(&sandbox.api(), "imported", "it is Ready", is_ready).await;
        held.go_on.send(()).unwrap();
        assert_eq!(held.answer.await.unwrap(), StatusCode::CONFLICT);
        let now: Checkpoint = sandbox.api().get("imported").await.unwrap();
        assert!(is_ready(&now), "{:?}", now.status);
    })
    .await;
}
