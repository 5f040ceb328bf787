//! The metrics of a run over its attempts: what its agents report, and what the report server keeps of it.

use std::ops::RangeInclusive;

use super::*;
use crate::api::Series;
use crate::reports::fixtures::{World, speaker};

/// A run that logs every 5 steps and saves and evaluates every 50, of 200; losses tell which attempt has trained a step.
struct Run {
    world: World,
    attempt: i64,
    /// Whether the trainer posts what it logs; else only saved states tell.
    posts: bool,
}

const RATE: &str = "0.001";

fn loss(attempt: i64, step: i64) -> String {
    format!("{attempt}.{step:03}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn eval_loss(attempt: i64, step: i64) -> String {
    format!("1{}", loss(attempt, step))
}

/// Who has trained a step in the end.
const fn trained_by(step: i64, last: i64) -> i64 {
    if step <= 50 { 1 } else { last }
}

impl Run {
    fn new(posts: bool) -> Self {
        Self { world: World::new(), attempt: 0, posts }
    }

    async fn begin(&mut self, dir: TempDir, resumed_from: Option<i64>) -> (Server, Pod) {
        self.attempt += 1;
        let parameters = [("logging_steps".to_owned(), json!(5))].into();
        let config = RunConfig { attempt: self.attempt, parameters, ..config() };
        let server = server().await;
        let pod = Pod::start(dir, config, &server, None).await;
        pod.prepared(resumed_from);
        (server, pod)
    }

    /// Trains on; every step that is a multiple of 50 is evaluated and saved. Hugging Face's trainer posts at the end of a step, before
    /// it logs that step.
    async fn train(&self, steps: RangeInclusive<i64>, server: &mut Server, pod: &Pod) {
        let mut evaluated = String::new();
        for step in steps.step_by(5) {
            let (next, loss) = ((step + 1).to_string(), loss(self.attempt, step));
            let (tokens, epoch) = (format!("{step}00.0"), format!("0.{step:03}"));
            let mut told = vec![("current_step", next.as_str()), ("total_steps", "200"), ("current_epoch", "0.1")];
            told.extend([("loss", loss.as_str()), ("learning_rate", RATE), ("num_tokens", &tokens), ("epoch", &epoch)]);
            if step % 50 == 0 {
                evaluated = eval_loss(self.attempt, step);
            }
            if !evaluated.is_empty() {
                told.push(("eval_loss", &evaluated));
            }
            if self.posts {
                pod.post(10, &told).await;
                // The next post, before anything new is logged.
                let later = (step + 3).to_string();
                told[0].1 = &later;
                pod.post(10, &told).await;
            }
            if step % 50 == 0 {
                pod.save_with_log(u64::try_from(step).unwrap(), &self.log(step));
                server.until("a checkpoint", |it| is(it, step, FilesState::Ready) && !it.series.is_empty()).await;
            }
        }
    }

    /// The log a trainer keeps in its state: with what it has resumed from.
    fn log(&self, until: i64) -> String {
        let entries = (5..=until).step_by(5).map(|step| {
            let attempt = trained_by(step, self.attempt);
            let train = format!(
                r#"{{"step":{step},"epoch":0.{step:03},"loss":{},"learning_rate":{RATE},"num_tokens":{step}00.0}}"#,
                loss(attempt, step)
            );
            let eval = format!(r#",{{"step":{step},"epoch":0.{step:03},"eval_loss":{}}}"#, eval_loss(attempt, step));
            if step % 50 == 0 { train + &eval } else { train }
        });
        entries.collect::<Vec<_>>().join(",")
    }

    /// The trainer ends, and so does its pod; the volume stays.
    async fn end(&mut self, mut server: Server, pod: Pod, asked: bool) -> TempDir {
        pod.end(0, asked);
        server.until("the end", |it| it.end.is_some()).await;
        pod.drained().await;
        self.heard(server);
        pod.stop.send_replace(true);
        tokio::time::timeout(WAIT, pod.watching).await.unwrap().unwrap().unwrap();
        Self::new_pod(pod.dir)
    }

    /// The pod is gone from one moment to the next.
    async fn kill(&mut self, server: Server, pod: Pod) -> TempDir {
        pod.watching.abort();
        assert!(pod.watching.await.unwrap_err().is_cancelled());
        self.heard(server);
        Self::new_pod(pod.dir)
    }

    /// What one pod shares between its containers is not there in the next.
    fn new_pod(dir: TempDir) -> TempDir {
        fs::remove_dir_all(dir.path().join("run")).unwrap();
        dir
    }

    /// The report server takes what it was told.
    fn heard(&mut self, server: Server) {
        let speaker = crate::reports::fixtures::RunSpeaker { attempt: self.attempt, ..speaker() };
        for report in server.seen {
            let writes = self.world.merge(&speaker, &report);
            self.world = self.world.after(writes);
        }
    }

    fn series(&self, name: &str) -> Vec<(i64, String)> {
        let all = &self.world.history.as_ref().unwrap().spec.series;
        let Series { steps, values, .. } = all.iter().find(|series| series.name == name).unwrap();
        steps.iter().copied().zip(values.iter().cloned()).collect()
    }

    /// Each logged step has one point in each series, of the attempt that has trained it in the end.
    fn is_true_until(&self, last: i64) {
        let steps = || (5..=last).step_by(5);
        let by = |step| trained_by(step, self.attempt);
        assert_eq!(self.series("loss"), steps().map(|step| (step, loss(by(step), step))).collect::<Vec<_>>());
        assert_eq!(self.series("learning_rate"), steps().map(|step| (step, RATE.to_owned())).collect::<Vec<_>>());
        assert_eq!(self.series("num_tokens"), steps().map(|step| (step, format!("{step}00"))).collect::<Vec<_>>());
        let evaluated = (50..=last).step_by(50).map(|step| (step, eval_loss(by(step), step)));
        assert_eq!(self.series("eval_loss"), evaluated.collect::<Vec<_>>());
        assert_eq!(self.world.history.as_ref().unwrap().spec.series.len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_resumes_has_one_point_for_each_logged_step_and_those_of_the_later_attempt() {
    for (posts, killed) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut run = Run::new(posts);
        let (mut server, pod) = run.begin(tempfile::tempdir().unwrap(), None).await;
        run.train(5..=70, &mut server, &pod).await;
        let dir = if killed { run.kill(server, pod).await } else { run.end(server, pod, true).await };
        run.is_true_until(if posts && !killed { 70 } else { 50 });

        let (mut server, pod) = run.begin(dir, Some(50)).await;
        run.train(55..=200, &mut server, &pod).await;
        run.end(server, pod, false).await;
        run.is_true_until(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_alone_tell_the_truth_about_steps_no_state_was_saved_of() {
    let mut run = Run::new(true);
    let (mut server, pod) = run.begin(tempfile::tempdir().unwrap(), None).await;
    run.train(5..=70, &mut server, &pod).await;
    let dir = run.kill(server, pod).await;
    let (mut server, pod) = run.begin(dir, Some(50)).await;
    run.train(55..=85, &mut server, &pod).await;
    run.end(server, pod, true).await;
    run.is_true_until(85);
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_are_trained_again_are_not_left_for_anybody_to_find() {
    let mut run = Run::new(true);
    let (mut server, pod) = run.begin(tempfile::tempdir().unwrap(), None).await;
    run.train(5..=70, &mut server, &pod).await;
    let dir = run.end(server, pod, true).await;
    let file = dir.path().join("output/lineage-1/history.jsonl");
    assert!(fs::read_to_string(&file).unwrap().contains("\"step\":70"));
    let (mut server, pod) = run.begin(dir, Some(50)).await;
    server.until("that it has begun", |it| !it.series.is_empty()).await;
    let told = async {
        while fs::read_to_string(&file).unwrap().contains("\"step\":70") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, told).await.unwrap();
    run.kill(server, pod).await;
}
