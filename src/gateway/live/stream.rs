//! Streams of server-sent events: watches with the caller's own rights, merged, with a heartbeat and an end.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream, SelectAll, Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt};

use super::news::{Follower, News, Section, Shown, Why};
use super::streams::Place;
use super::view;
use crate::api::{Checkpoint, FineTune, FineTuneHistory, ModelDeployment};
use crate::gateway::errors::{Kind, Refusal};
use crate::gateway::identity::Scope;
use crate::gateway::limits;
use crate::gateway::service::cluster::{Kinded, Selection};
use crate::gateway::service::query::{Filter, LONGEST};
use crate::gateway::service::{Session, ids};

/// Most objects of a section that are told at once.
const MOST: usize = 500;
/// Keeps a proxy from holding news back until there are more.
const UNBUFFERED: (HeaderName, HeaderValue) = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// How often a quiet stream says that it is there, and how long it lasts.
#[derive(Clone, Copy)]
pub struct Timing {
    heartbeat: Duration,
    life: Duration,
}

/// The timing of all streams.
pub const TIMING: Timing = Timing { heartbeat: limits::HEARTBEAT, life: limits::STREAM_LIFE };

type Told = SelectAll<BoxStream<'static, News>>;

/// The newest runs of a project, and every one that changes.
pub fn of_project(session: &Session, filter: Filter) -> Told {
    let show = move |run: FineTune| {
        let created = run.creation_timestamp().map_or(0, |time| time.0.as_second());
        filter.holds(&run).then(|| ((created, 0), view::summary(&run)))
    };
    let follower = Follower::new(Section::Runs, LONGEST, show);
    stream::select_all([followed(session, &Selection::default(), follower)])
}

/// One run, its checkpoints, its history, and what serves it.
pub fn of_run(session: &Session, run: &FineTune) -> Told {
    let (name, uid) = (run.name_any(), run.uid().unwrap_or_default());
    let named = Selection::field("metadata.name", &name);
    let saved = Selection::field("spec.fineTune.name", &name);
    let sections = [
        followed(session, &named, Follower::new(Section::Run, 1, this_run(uid.clone()))),
        followed(session, &saved, Follower::new(Section::Checkpoints, MOST, of_this_run(uid.clone()))),
        followed(session, &named, Follower::new(Section::History, 1, |history: FineTuneHistory| as_it_is((0, 0), history))),
        followed(session, &Selection::default(), Follower::new(Section::Deployments, MOST, serves_it(session, name, uid))),
    ];
    stream::select_all(sections)
}

fn this_run(uid: String) -> impl Fn(FineTune) -> Option<Shown> {
    move |run| {
        let (ours, mut shown) = (run.uid().as_ref() == Some(&uid), view::summary(&run));
        shown["object"] = view::object(run);
        ours.then_some(((0, 0), shown))
    }
}

fn of_this_run(uid: String) -> impl Fn(Checkpoint) -> Option<Shown> {
    move |checkpoint| {
        let ours = checkpoint.spec.fine_tune.as_ref().is_some_and(|owner| owner.uid == uid);
        as_it_is((checkpoint.spec.lineage, checkpoint.spec.step), checkpoint).filter(|_| ours)
    }
}

fn serves_it(session: &Session, name: String, uid: String) -> impl Fn(ModelDeployment) -> Option<Shown> + use<> {
    let project = session.project.clone();
    move |deployment| {
        let checkpoint = &deployment.spec.checkpoint;
        let here = checkpoint.namespace.as_ref().is_none_or(|namespace| *namespace == project);
        let ours = here && ids::is_of_run(&checkpoint.name, &name, &uid);
        as_it_is((0, 0), deployment).filter(|_| ours)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it ends what may show nothing")]
fn as_it_is<K: Resource + serde::Serialize>(rank: (i64, i64), object: K) -> Option<Shown> {
    Some((rank, view::object(object)))
}

/// News of one section, until there can be no more.
fn followed<K>(session: &Session, selection: &Selection, mut follower: Follower<K>) -> BoxStream<'static, News>
where
    K: Kinded + Resource<Scope = NamespaceResourceScope>,
{
    let told = session.cluster.follow(selection).filter_map(move |said| std::future::ready(follower.hear(said)));
    until(told, |news| matches!(news, News::Denied(..) | News::End(_)), ()).boxed()
}

/// The answer that tells news for as long as `place` is held: its first word comes before it is said that all is well.
///
/// # Errors
/// The caller may not see the runs at all, or the API server does not answer.
pub async fn answer(project: &str, mut news: Told, place: Place, timing: Timing) -> Result<Response, Refusal> {
    let first = news.next().await;
    match &first {
        Some(News::End(Why::Forbidden)) => return Err(Refusal::missing(Scope::Read, Some(project))),
        Some(News::End(Why::Unauthorized)) => return Err(Refusal::unauthorized("the key is not valid, or not valid any more")),
        Some(News::Behind(_, message)) => {
            return Err(Refusal { retry_after: Some(1), ..Refusal::new(Kind::Unavailable, message) });
        }
        _ => {}
    }
    let ended = place.ended();
    let over = stream::once(async move {
        tokio::select! {
            () = ended => News::End(Why::Stopping),
            () = tokio::time::sleep(timing.life) => News::End(Why::Renew),
        }
    });
    let all = stream::select(stream::iter(first).chain(news), over);
    let events = until(all, |news| matches!(news, News::End(_)), place).map(|news| Ok::<_, Infallible>(event(&news)));
    let alive = KeepAlive::new().interval(timing.heartbeat).text("still here");
    let mut answer = Sse::new(events).keep_alive(alive).into_response();
    answer.headers_mut().extend([UNBUFFERED]);
    Ok(answer)
}

fn event(news: &News) -> Event {
    let (name, said) = news.told();
    Event::default().event(name).data(said.to_string())
}

/// What a stream says up to and with its last word. What is `held` goes with it.
fn until<S, H>(told: S, is_last: fn(&S::Item) -> bool, held: H) -> impl Stream<Item = S::Item> + Send
where
    S: Stream<Item: Send> + Send + 'static,
    H: Send + 'static,
{
    let told: Option<(Pin<Box<S>>, H)> = Some((Box::pin(told), held));
    stream::unfold(told, move |told| async move {
        let (mut told, held) = told?;
        let news = told.next().await?;
        let rest = (!is_last(&news)).then_some((told, held));
        Some((news, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::live::streams::Streams;
    use crate::gateway::metrics::GatewayMetrics;

    const CALM: Timing = Timing { heartbeat: Duration::from_hours(1), life: Duration::from_hours(1) };

    fn told(news: Vec<News>) -> Told {
        stream::select_all([stream::iter(news).chain(stream::pending()).boxed()])
    }

    fn nothing() -> Told {
        told(vec![News::Snapshot(Section::Runs, vec![])])
    }

    async fn text(answer: Response) -> String {
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_last_word_though_its_watches_go_on() {
        let streams = Streams::new(GatewayMetrics::default());
        let news = vec![News::Snapshot(Section::Runs, vec![]), News::End(Why::Gone), News::Gone(Section::Runs, "x".into())];
        let answer = answer("team", told(news), streams.enter("one").unwrap(), CALM).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let expected =
            "event: snapshot\ndata: {\"items\":[],\"section\":\"runs\"}\n\nevent: end\ndata: {\"reason\":\"gone\"}\n\n";
        assert_eq!(text(answer).await, expected);
    }

    #[tokio::test]
    async fn a_gateway_that_stops_says_so_to_everyone() {
        let streams = Streams::new(GatewayMetrics::default());
        let answer = answer("team", nothing(), streams.enter("one").unwrap(), CALM).await.unwrap();
        streams.end();
        assert!(text(answer).await.ends_with("event: end\ndata: {\"reason\":\"stopping\"}\n\n"));
    }

    #[tokio::test]
    async fn a_quiet_stream_says_that_it_is_there() {
        let streams = Streams::new(GatewayMetrics::default());
        let timing = Timing { heartbeat: Duration::from_millis(1), ..CALM };
        let answer = answer("team", nothing(), streams.enter("one").unwrap(), timing).await.unwrap();
        let mut said = answer.into_body().into_data_stream();
        while said.next().await.unwrap().unwrap() != ": still here\n\n" {}
    }

    #[tokio::test]
    async fn a_stream_that_has_lasted_asks_to_be_renewed() {
        let streams = Streams::new(GatewayMetrics::default());
        let timing = Timing { life: Duration::ZERO, ..CALM };
        let answer = answer("team", nothing(), streams.enter("one").unwrap(), timing).await.unwrap();
        assert!(text(answer).await.ends_with("data: {\"reason\":\"renew\"}\n\n"));
    }

    #[tokio::test]
    async fn who_may_see_nothing_is_refused_and_holds_no_place() {
        let metrics = GatewayMetrics::default();
        let streams = Streams::new(metrics.clone());
        let cases = [
            (News::End(Why::Forbidden), Kind::Forbidden),
            (News::End(Why::Unauthorized), Kind::Unauthorized),
            (News::Behind(Section::Runs, "x".into()), Kind::Unavailable),
        ];
        for (news, kind) in cases {
            let place = streams.enter("one").unwrap();
            let refused = answer("team", told(vec![news]), place, CALM).await.map(|_| ()).unwrap_err();
            assert_eq!(refused.kind, kind);
        }
        assert!(metrics.text().unwrap().contains("finetune_gateway_streams_open 0"));
    }
}
