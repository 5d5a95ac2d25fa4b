//! One pattern for everything that a task of its own keeps in the kernel: whoever wants it holds a [`Reconciler`] and
//! never waits; the task makes it, tells what holds, and looks again at news, at a loss that the kernel tells of and now
//! and then. A kernel or a program that is busy for seconds delays nobody but the task.

use std::future::Future;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::backoff::Backoff;

/// Longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Says what is wanted. The task that keeps it ends when this is dropped, and leaves what is there.
#[derive(Debug)]
pub struct Reconciler<W> {
    wanted: watch::Sender<W>,
}

impl<W: PartialEq> Reconciler<W> {
    /// Wants this from now on; the task hears of it if it is news.
    pub fn want(&self, wanted: W) {
        self.wanted.send_if_modified(|known| {
            let news = *known != wanted;
            *known = wanted;
            news
        });
    }
}

/// Why something is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is the first time, or something else is wanted than before, or it is tried again.
    Wanted,
    /// What was made before may not stand any more.
    Doubt,
}

/// What is kept in the kernel.
pub(crate) trait Keep: Send + 'static {
    /// What can be wanted of it.
    type Wanted: Clone + Default + PartialEq + Send + Sync + 'static;
    /// What it tells: what holds, or that it cannot.
    type Event: Clone + PartialEq + Send + 'static;

    /// Changes in the kernel come in crowds: how long to wait for more, so that they are looked at together.
    const CROWD: Duration = Duration::from_millis(20);
    /// First pause after a failure.
    const RETRY: Duration = Duration::from_millis(250);
    /// After a failure what the kernel tells is looked at no sooner than this: a failure may be what it tells of.
    const HASTE: Duration = Duration::from_secs(1);
    /// Pause between cheap looks ([`Keep::stands`]).
    const GLANCE: Duration;
    /// Pause between looks at everything.
    const LOOK: Duration;

    /// Makes the kernel as wanted. Gives what holds, or why it does not: then it is tried again, ever more slowly.
    fn make(
        &mut self,
        wanted: &Self::Wanted,
        why: Why,
    ) -> impl Future<Output = Result<Option<Self::Event>, Self::Event>> + Send;

    /// Whether anything is looked at while this is wanted.
    fn is_watched(&self, wanted: &Self::Wanted) -> bool;

    /// Waits until the kernel tells that something may be lost. Takes in what has come so far.
    fn lost(&mut self) -> impl Future<Output = ()> + Send;

    /// Looks cheaply whether what was made still stands.
    fn stands(&mut self, wanted: &Self::Wanted) -> impl Future<Output = bool> + Send;
}

/// A reconciler for `keep`, and the task that is to run for it and tells what happens through `events`.
pub(crate) fn reconciler<K, E>(
    keep: K,
    events: mpsc::Sender<E>,
) -> (Reconciler<K::Wanted>, BoxFuture<'static, ()>)
where
    K: Keep,
    E: From<K::Event> + Send + 'static,
{
    let (wanted, receiver) = watch::channel(K::Wanted::default());
    (Reconciler { wanted }, run(keep, receiver, events).boxed())
}

async fn run<K, E>(mut keep: K, mut wanted: watch::Receiver<K::Wanted>, events: mpsc::Sender<E>)
where
    K: Keep,
    E: From<K::Event>,
{
    let mut pauses: Backoff<()> = Backoff::new(K::RETRY, LONGEST_PAUSE);
    let (mut told, mut why) = (None, Why::Wanted);
    loop {
        let now = wanted.borrow_and_update().clone();
        let made = keep.make(&now, why).await;
        let mut retry = None;
        if made.is_err() {
            pauses.again((), Instant::now());
            retry = pauses.deadline(Instant::now()).or(Some(Instant::now()));
        } else {
            pauses.retain(|()| false);
        }
        let event = made.unwrap_or_else(Some);
        if let Some(event) = event
            && told.as_ref() != Some(&event)
        {
            told = Some(event.clone());
            // Nobody hears it: it is kept all the same, until nobody wants it.
            let _ = events.send(event.into()).await;
        }
        why = match wait(&mut keep, &now, &mut wanted, retry).await {
            Some(why) => why,
            None => return,
        };
    }
}

/// Waits until there is something to make; nothing if nobody wants it any more.
async fn wait<K: Keep>(
    keep: &mut K,
    now: &K::Wanted,
    wanted: &mut watch::Receiver<K::Wanted>,
    retry: Option<Instant>,
) -> Option<Why> {
    let (watched, tried) = (keep.is_watched(now), Instant::now());
    let mut due = retry.unwrap_or(tried + K::LOOK);
    let mut why = if retry.is_some() { Why::Wanted } else { Why::Doubt };
    let mut told = false;
    loop {
        let wake = due.min(Instant::now() + K::GLANCE);
        tokio::select! {
            changed = wanted.changed() => return changed.ok().map(|()| Why::Wanted),
            () = keep.lost(), if watched && !told => {
                let soonest = if retry.is_some() { tried + K::HASTE } else { tried };
                (told, why) = (true, Why::Doubt);
                due = due.min(soonest.max(Instant::now() + K::CROWD));
            }
            () = tokio::time::sleep_until(wake.into()), if watched || retry.is_some() => {
                if due <= Instant::now() {
                    while keep.lost().now_or_never().is_some() {}
                    return Some(why);
                }
                let stands = keep.stands(now).await;
                // What failed half way does not stand: it is made again when that is due.
                if !stands && retry.is_none() {
                    return Some(Why::Doubt);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Counts how often it was made; fails a few times.
    #[derive(Clone, Default)]
    struct Counter {
        failures: u32,
        /// How often it was tried.
        tries: Arc<AtomicU32>,
        doubts: Arc<AtomicU32>,
        lost: Arc<Notify>,
    }

    impl Keep for Counter {
        type Wanted = u32;
        type Event = Result<u32, &'static str>;
        const GLANCE: Duration = Duration::from_secs(60);
        const LOOK: Duration = Duration::from_secs(60);

        async fn make(
            &mut self,
            wanted: &u32,
            why: Why,
        ) -> Result<Option<Self::Event>, Self::Event> {
            self.tries.fetch_add(1, Ordering::Relaxed);
            if why == Why::Doubt {
                self.doubts.fetch_add(1, Ordering::Relaxed);
            }
            match self.failures {
                0 => Ok((*wanted > 0).then_some(Ok(*wanted))),
                _ => {
                    self.failures -= 1;
                    Err(Err("busy"))
                }
            }
        }

        fn is_watched(&self, wanted: &u32) -> bool {
            *wanted > 0
        }

        async fn lost(&mut self) {
            self.lost.notified().await;
        }

        async fn stands(&mut self, _: &u32) -> bool {
            true
        }
    }

    type Event = Result<u32, &'static str>;

    #[tokio::test]
    async fn what_fails_is_tried_again_and_told_once_and_what_holds_is_told() {
        let (send, mut events) = mpsc::channel::<Event>(8);
        let (reconciler, task) = reconciler(Counter { failures: 2, ..Counter::default() }, send);
        reconciler.want(7);
        let task = tokio::spawn(task);
        let start = Instant::now();
        assert_eq!(events.recv().await, Some(Err("busy")));
        assert_eq!(events.recv().await, Some(Ok(7)));
        assert!(start.elapsed() >= Counter::RETRY * 3, "two pauses, the second one twice as long");
        reconciler.want(8);
        assert_eq!(events.recv().await, Some(Ok(8)));
        drop(reconciler);
        task.await.unwrap();
        assert_eq!(events.recv().await, None);
    }

    #[tokio::test]
    async fn a_loss_is_looked_at_and_told_of_only_if_something_else_holds() {
        let (send, mut events) = mpsc::channel::<Event>(8);
        let counter = Counter::default();
        let (reconciler, task) = reconciler(counter.clone(), send);
        let task = tokio::spawn(task);
        reconciler.want(1);
        assert_eq!(events.recv().await, Some(Ok(1)));
        counter.lost.notify_one();
        while counter.doubts.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        reconciler.want(1);
        drop(reconciler);
        task.await.unwrap();
        assert_eq!(events.recv().await, None, "the same holds still");
    }

    /// One that waits long after a failure, and in which everything is lost all the time.
    struct Patient<const HASTE: u64>(Counter);

    impl<const HASTE: u64> Keep for Patient<HASTE> {
        type Wanted = u32;
        type Event = Result<u32, &'static str>;
        const RETRY: Duration = Duration::from_secs(3600);
        const HASTE: Duration = Duration::from_millis(HASTE);
        const GLANCE: Duration = Duration::from_secs(60);
        const LOOK: Duration = Duration::from_secs(60);

        async fn make(
            &mut self,
            wanted: &u32,
            why: Why,
        ) -> Result<Option<Self::Event>, Self::Event> {
            self.0.make(wanted, why).await
        }

        fn is_watched(&self, _: &u32) -> bool {
            true
        }

        async fn lost(&mut self) {
            self.0.lost().await;
        }

        async fn stands(&mut self, _: &u32) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn a_loss_that_is_told_of_while_a_retry_is_pending_waits_for_no_retry() {
        let (send, mut events) = mpsc::channel::<Event>(8);
        let counter = Counter { failures: 1, ..Counter::default() };
        let (reconciler, task) = reconciler(Patient::<0>(counter.clone()), send);
        let task = tokio::spawn(task);
        assert_eq!(events.recv().await, Some(Err("busy")));
        counter.lost.notify_one();
        let looked = async {
            while counter.doubts.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), looked).await.expect("it is looked at");
        drop(reconciler);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn what_fails_and_is_told_of_all_the_time_is_tried_no_sooner_than_it_may_be() {
        let (send, mut events) = mpsc::channel::<Event>(8);
        let counter = Counter { failures: 1, ..Counter::default() };
        let (reconciler, task) = reconciler(Patient::<3_600_000>(counter.clone()), send);
        let task = tokio::spawn(task);
        assert_eq!(events.recv().await, Some(Err("busy")));
        for _ in 0..100 {
            counter.lost.notify_one();
            tokio::task::yield_now().await;
        }
        assert_eq!(counter.tries.load(Ordering::Relaxed), 1);
        reconciler.want(8);
        assert_eq!(events.recv().await, Some(Ok(8)), "news wait for nothing");
        drop(reconciler);
        task.await.unwrap();
    }
}
