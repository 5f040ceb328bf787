//! How much of the memory lists may take, all together: shares for those that are read to their end, turns for those that streams begin with.

use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use kube::runtime::watcher::{Event, Result as Said};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::chunks::CHUNK;
use crate::gateway::errors::{Kind, Refusal};
use crate::gateway::limits;

/// Chunks a list holds at once: one that is looked at, and the next one as it comes and as it is put together.
const AT_ONCE: usize = 3;

/// What all lists together may hold in memory, in shares of a chunk.
#[derive(Clone)]
pub struct Room {
    shares: Arc<Semaphore>,
    deep: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

type Told<K> = BoxStream<'static, Said<Event<K>>>;

/// The part of the room that a list has, until it is dropped.
pub struct Share<'a> {
    _deep: Option<SemaphorePermit<'a>>,
    _shares: SemaphorePermit<'a>,
}

impl Default for Room {
    fn default() -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        Self { shares: of(limits::LISTED_CHUNKS), deep: of(limits::DEEP_LISTS), turns: of(limits::LISTS_OF_STREAMS) }
    }
}

impl Room {
    /// The share of a list that keeps so many objects. Those that keep many wait for each other first, so that they keep nobody else waiting.
    ///
    /// # Errors
    /// There is no room for too long.
    pub async fn share(&self, kept: usize) -> Result<Share<'_>, Refusal> {
        let shares = (AT_ONCE + kept / CHUNK as usize).min(limits::LISTED_CHUNKS / limits::DEEP_LISTS);
        let share = async {
            let deep = if shares > AT_ONCE + 1 { Some(self.deep.acquire().await.ok()?) } else { None };
            let shares = self.shares.acquire_many(u32::try_from(shares).ok()?).await.ok()?;
            Some(Share { _deep: deep, _shares: shares })
        };
        let share = tokio::time::timeout(limits::PATIENCE_FOR_ROOM, share).await;
        share.ok().flatten().ok_or_else(|| Refusal {
            retry_after: Some(1),
            ..Refusal::new(Kind::Unavailable, "too many lists are being read: try again")
        })
    }

    /// What `told` says, each list in it in its turn among those of other streams.
    pub fn in_turn<K: Send + 'static>(&self, told: Told<K>) -> impl Stream<Item = Said<Event<K>>> + Send + use<K> {
        let begin = (told, None, Arc::clone(&self.turns));
        stream::unfold(begin, |(mut told, held, turns)| async move {
            let said = told.next().await?;
            let held = match &said {
                Ok(Event::Init) => Arc::clone(&turns).acquire_owned().await.ok(),
                Ok(Event::InitApply(_)) => held,
                _ => None,
            };
            Some((said, (told, held, turns)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lists_wait_for_room_those_that_keep_much_for_each_other_and_none_for_ever() {
        let room = Room::default();
        let free = || room.shares.available_permits();
        let mut deep = Vec::new();
        for _ in 0..limits::DEEP_LISTS {
            deep.push(room.share(10_000).await.unwrap());
        }
        assert_eq!(limits::LISTED_CHUNKS - free(), limits::DEEP_LISTS * 23);
        let mut third = std::pin::pin!(room.share(10_000));
        assert!(futures::poll!(&mut third).is_pending());
        let mut small = Vec::new();
        while free() >= AT_ONCE {
            small.push(room.share(100).await.unwrap());
        }
        assert!(small.len() > 3, "a list that waits its turn among the deep ones takes no room from others");
        assert_eq!(room.share(0).await.err().map(|refusal| refusal.kind), Some(Kind::Unavailable));
        deep.pop();
        drop(small);
        third.await.unwrap();
        drop(deep);
        assert_eq!(free(), limits::LISTED_CHUNKS);
    }

    #[tokio::test]
    async fn lists_of_streams_take_turns_and_changes_do_not() {
        let room = Room::default();
        let one =
            |said: Vec<Event<u32>>| room.in_turn(stream::iter(said.into_iter().map(Ok)).chain(stream::pending()).boxed()).boxed();
        let mut begun: Vec<_> = (0..limits::LISTS_OF_STREAMS).map(|_| one(vec![Event::Init, Event::InitDone])).collect();
        for stream in &mut begun {
            assert!(matches!(stream.next().await, Some(Ok(Event::Init))));
        }
        assert!(matches!(one(vec![Event::Apply(1)]).next().await, Some(Ok(Event::Apply(1)))));
        let mut next = one(vec![Event::Init]);
        assert!(futures::poll!(next.next()).is_pending());
        assert!(matches!(begun[0].next().await, Some(Ok(Event::InitDone))));
        assert!(matches!(next.next().await, Some(Ok(Event::Init))));
    }
}
