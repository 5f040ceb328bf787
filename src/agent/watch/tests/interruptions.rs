//! Attempts that do not come to their end: stalled, diverged, stopped, or begun with damage.

use super::*;
use crate::agent::fixture::damage;
use crate::agent::resume;

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_was_asked_to_stop_is_interrupted_whatever_it_says() {
    let mut server = server().await;
    let pod = Pod::start(tempfile::tempdir().unwrap(), config(), &server, None).await;
    pod.prepared(None);
    pod.post(40, &[("current_step", "40"), ("total_steps", "100")]).await;
    pod.post(100, &[("current_step", "40"), ("total_steps", "100")]).await;
    pod.save(40);
    pod.end(0, true);
    let report = server.until("the end", |it| it.end.is_some()).await;
    assert_eq!(report.end.map(|end| (end.exit_code, end.failure)), Some((85, None)));
    assert_eq!(report.progress.unwrap().step, 40);
    assert_eq!(pod.drained().await.0, 85);
    pod.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_asked_to_stop_at_its_last_step_has_succeeded() {
    let mut server = server().await;
    let pod = Pod::start(tempfile::tempdir().unwrap(), config(), &server, None).await;
    pod.prepared(None);
    pod.post(99, &[("current_step", "100"), ("total_steps", "100")]).await;
    pod.save(100);
    server.until("the last checkpoint", |it| is(it, 100, FilesState::Ready)).await;
    pod.end(0, true);
    let report = server.until("the end", |it| it.end.is_some()).await;
    assert_eq!(report.end.map(|end| (end.exit_code, end.failure)), Some((0, None)));
    assert_eq!(pod.drained().await.0, 0);
    pod.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_does_not_get_on_is_given_up() {
    let mut server = server().await;
    let config = RunConfig { stall_seconds: Some(1), ..config() };
    let pod = Pod::start(tempfile::tempdir().unwrap(), config, &server, None).await;
    pod.prepared(None);
    pod.print("starting");
    pod.post(7, &[("current_step", "7"), ("total_steps", "100")]).await;
    let order = pod.given_up().await;
    assert!(order.starts_with("reason=Stalled\nseconds=1\nstep=7\nat="), "{order}");
    pod.end(143, false);
    let report = server.until("the end", |it| it.end.is_some()).await;
    let end = report.end.unwrap();
    let failure = end.failure.unwrap();
    assert_eq!((end.exit_code, failure.reason.as_str(), failure.user_error), (86, "Stalled", false));
    assert!(failure.message.contains("after step 7; the last sign of life came at 20"), "{}", failure.message);
    pod.stopped().await;
}

/// The loss of a run becomes NaN after step 20 of which the checkpoint is good.
async fn diverging(server: &mut Server) -> Pod {
    let parameters = [("learning_rate".to_owned(), json!(0.5)), ("logging_steps".to_owned(), json!(10))].into();
    let config = RunConfig { divergence_points: Some(3), parameters, ..config() };
    let pod = Pod::start(tempfile::tempdir().unwrap(), config, server, None).await;
    pod.prepared(None);
    pod.save_with_log(20, r#"{"step":10,"loss":2.0},{"step":20,"loss":1.5}"#);
    server.until("the good one", |it| is(it, 20, FilesState::Ready)).await;
    pod
}

/// The trainer of a diverged run is ended and its attempt fails; the checkpoint before that stays the one to go on from.
async fn fails_as_diverged(mut server: Server, pod: Pod, order: &str) {
    assert_eq!(pod.given_up().await, order);
    pod.end(143, false);
    let report = server.until("the end", |it| it.end.is_some()).await;
    let ready: Vec<_> = report.checkpoints.iter().filter(|it| it.state == FilesState::Ready).map(|it| it.step).collect();
    assert_eq!(ready, [20]);
    let end = report.end.unwrap();
    let failure = end.failure.unwrap();
    assert_eq!((end.exit_code, failure.reason.as_str(), failure.user_error), (78, "Diverged", true));
    assert!(failure.message.contains("from step 30 on"), "{}", failure.message);
    assert!(failure.hint.contains("learning_rate (now 0.5)"), "{}", failure.hint);
    assert_eq!(pod.drained().await.0, 78);
    let picked = resume::pick(&config(), &pod.output(), None).await.unwrap();
    assert_eq!(picked.choice.map(|choice| choice.step), Some(20));
    pod.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_ceases_to_be_a_number_in_posts_ends_the_run() {
    let mut server = server().await;
    let pod = diverging(&mut server).await;
    // As Hugging Face's trainer logs it: a loss of 0, which only the norm gives away.
    for (step, epoch) in [("31", "0.3"), ("41", "0.4"), ("45", "0.4"), ("51", "0.5")] {
        assert!(!pod.places.terminate().exists(), "before step {step}");
        let told = [("current_step", step), ("total_steps", "100"), ("loss", "0.0"), ("grad_norm", "nan"), ("epoch", epoch)];
        pod.post(30, &told).await;
    }
    fails_as_diverged(server, pod, "reason=Diverged\nstep=30\npoints=3\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_ceases_to_be_a_number_in_printed_lines_ends_the_run() {
    let mut server = server().await;
    let pod = diverging(&mut server).await;
    for step in [30, 40, 50] {
        pod.print(&format!(" {}%|x| {step}/200 [00:10<00:10, 1it/s]", step / 2));
        pod.print("{'loss': nan, 'grad_norm': nan, 'learning_rate': 0.5, 'epoch': 0.3}");
        pod.print("{'eval_loss': nan, 'eval_runtime': 1.0, 'epoch': 0.3}");
    }
    fails_as_diverged(server, pod, "reason=Diverged\nstep=30\npoints=3\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_ceases_to_be_a_number_in_a_saved_state_ends_the_run_and_the_save_is_not_used() {
    let mut server = server().await;
    let pod = diverging(&mut server).await;
    let lost = r#"{"step":30,"loss":NaN},{"step":40,"loss":0.0,"grad_norm":NaN},{"step":50,"loss":Infinity}"#;
    pod.save_with_log(50, &format!(r#"{{"step":20,"loss":1.5}},{lost}"#));
    fails_as_diverged(server, pod, "reason=Diverged\nstep=30\npoints=3\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_refused_by_prepare_is_corrupt_from_the_first_report_on() {
    let mut server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let earlier = dir.path().join("output/lineage-1");
    for step in [10, 20] {
        write_checkpoint(&earlier, step);
        write_manifest(&earlier, step, UID);
    }
    // Of the same size and time, so that only its content tells.
    damage(&earlier, 20);
    let picked = resume::pick(&config(), &earlier, None).await.unwrap();
    assert_eq!(picked.choice.map(|choice| choice.step), Some(10));
    let refused: Vec<_> = picked.refused.iter().map(|(step, why)| (*step, why.as_str())).collect();
    let pod = Pod::start(dir, config(), &server, None).await;
    pod.prepared_refusing(Some(10), &refused);
    let report = server.until("what was there", |it| !it.checkpoints.is_empty()).await;
    assert!(is(&report, 10, FilesState::Ready) && is(&report, 20, FilesState::Corrupt));
    assert!(find(&report, 20).unwrap().message.starts_with("hash-differs"), "{:?}", find(&report, 20));
    // The trainer comes by again and saves it whole.
    fs::remove_dir_all(pod.output().join("checkpoint-20")).unwrap();
    pod.save(20);
    let report = server.until("the mended one", |it| is(it, 20, FilesState::Ready)).await;
    assert_eq!(find(&report, 20).unwrap().attempt, 2);
    pod.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_checkpoint_that_was_damaged_is_not_ready() {
    let mut server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let earlier = dir.path().join("output/lineage-1");
    write_checkpoint(&earlier, 10);
    write_manifest(&earlier, 10, UID);
    fs::write(earlier.join("checkpoint-10/adapter_model.safetensors"), "torn").unwrap();
    let pod = Pod::start(dir, config(), &server, None).await;
    pod.prepared(None);
    server.until("the damage", |it| is(it, 10, FilesState::Corrupt)).await;
    // The trainer comes by again and saves it whole.
    fs::remove_dir_all(pod.output().join("checkpoint-10")).unwrap();
    pod.save(10);
    let report = server.until("the mended one", |it| is(it, 10, FilesState::Ready)).await;
    assert_eq!(find(&report, 10).unwrap().attempt, 2);
    pod.stopped().await;
}
