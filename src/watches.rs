//! How a watch goes on after an error: where it was left, or anew with a list.

use std::fmt::Debug;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, DefaultBackoff, Error, Event, Result, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// What happens to the objects of `api`; after an error it is tried again ever more slowly. After one that `is_lost` says so of the watch begins
/// anew, so that its next success is heard: one that goes on where it was left says nothing until something happens.
pub fn following<K>(api: Api<K>, config: Config, is_lost: fn(&Error) -> bool) -> impl Stream<Item = Result<Event<K>>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    anew(move || watcher(api.clone(), config.clone()).boxed(), is_lost)
}

/// Whether the server has refused to go on: the account may not any more, or the kind is gone.
#[must_use]
pub fn is_refused(error: &Error) -> bool {
    matches!(error, Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 403 | 404))
}

/// A list that succeeds is no sign that the watch will: where each round fails at the same place, the pauses grow all the same.
fn anew<K: Send + 'static>(
    begin: impl Fn() -> BoxStream<'static, Result<Event<K>>> + Send,
    is_lost: fn(&Error) -> bool,
) -> impl Stream<Item = Result<Event<K>>> + Send {
    let (told, pauses, rest) = (begin(), DefaultBackoff::default(), None);
    stream::unfold((told, pauses, rest, begin), move |(mut told, mut pauses, rest, begin)| async move {
        if let Some(rest) = rest {
            tokio::time::sleep(rest).await;
        }
        let said = told.next().await?;
        let mut rest = None;
        match &said {
            Ok(Event::Apply(_) | Event::Delete(_)) => pauses.reset(),
            Ok(_) => {}
            Err(error) => {
                rest = pauses.next();
                if is_lost(error) {
                    told = begin();
                }
            }
        }
        Some((said, (told, pauses, rest, begin)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use kube::core::Status;

    use super::*;

    type Said = Result<Event<u32>>;

    fn refused(code: u16) -> Error {
        Error::WatchStartFailed(kube::Error::Api(Box::new(Status::failure("no", "x").with_code(code))))
    }

    /// Says what `round` says of each watch that is begun, and how long it takes until so much is said.
    async fn told(round: fn(u32) -> Vec<Said>, much: usize) -> (Vec<Option<u32>>, Duration) {
        let rounds = Mutex::new(0);
        let begin = || {
            let mut rounds = rounds.lock().unwrap();
            *rounds += 1;
            stream::iter(round(*rounds)).boxed()
        };
        let before = tokio::time::Instant::now();
        let number = |said: Said| if let Ok(Event::Apply(number)) = said { Some(number) } else { None };
        let told = anew(begin, is_refused).take(much).map(number).collect().await;
        (told, before.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_begins_anew_after_a_refusal_and_goes_on_after_what_passes() {
        let round =
            |round| vec![Ok(Event::Apply(round)), Err(refused(503)), Ok(Event::Apply(round)), Err(refused(403)), Ok(Event::Init)];
        let (told, _) = told(round, 6).await;
        assert_eq!(told, [Some(1), None, Some(1), None, Some(2), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_works_is_tried_ever_more_slowly_though_each_try_begins_well() {
        let (_, quick) = told(|_| vec![Ok(Event::Init), Ok(Event::InitDone), Ok(Event::Apply(1)), Err(refused(403))], 41).await;
        let no_list = told(|_| vec![Ok(Event::Init), Err(refused(403))], 21).await;
        let no_watch = told(|_| vec![Ok(Event::Init), Ok(Event::InitDone), Err(refused(403))], 31).await;
        for (_, slow) in [no_list, no_watch] {
            assert!(slow > 4 * quick, "ten refusals: {slow:?}; ten after something was heard: {quick:?}");
            assert!(slow < Duration::from_mins(6), "and never so slowly that nobody sees it work: {slow:?}");
        }
    }

    #[test]
    fn only_what_the_server_refuses_is_lost() {
        assert!(is_refused(&refused(403)) && is_refused(&refused(404)));
        assert!(!is_refused(&refused(410)) && !is_refused(&refused(500)) && !is_refused(&Error::NoResourceVersion));
    }
}
