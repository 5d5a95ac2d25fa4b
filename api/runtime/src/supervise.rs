//! Owns the background tasks of a program, each by its name. None of them may go unseen: one that ends or panics before
//! the program stops is told to whoever waits for [`Supervisor::ended`], and a panic is logged with the task's name,
//! whether it unwinds or aborts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::{io, panic, thread};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};

/// A task that goes on until the program stops, by its name.
pub type Task = (&'static str, BoxFuture<'static, ()>);

/// What is done to each task before it runs.
type Layer = dyn Fn(Task) -> BoxFuture<'static, ()> + Send + Sync;

tokio::task_local! {
    static NAME: &'static str;
}

/// A task that ended although the program goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task `{name}` {how}: nothing goes on without it")]
pub struct Ended {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub how: How,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It returned.
    Returned,
    /// It panicked.
    Panicked,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Returned => "ended",
            Self::Panicked => "panicked",
        })
    }
}

/// The background tasks. Whatever still runs when this is dropped is aborted.
pub struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    errands: Errands,
    panicked: mpsc::UnboundedReceiver<&'static str>,
    layer: Arc<Layer>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// Without a task.
    pub fn new() -> Self {
        Self::layered(|(_, task)| task)
    }

    /// Without a task. What runs is what `layer` makes of each.
    pub fn layered(layer: impl Fn(Task) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        let (tell, panicked) = mpsc::unbounded_channel();
        let (tasks, names) = (JoinSet::new(), HashMap::new());
        Self { tasks, names, errands: Errands { tell }, panicked, layer: Arc::new(layer) }
    }

    /// Starts a task that goes on until the program stops.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = (self.layer)((name, task.boxed()));
        let id = self.tasks.spawn(NAME.scope(name, task)).id();
        self.names.insert(id, name);
    }

    /// Starts tasks that go on until the program stops.
    pub fn spawn_all(&mut self, tasks: impl IntoIterator<Item = Task>) {
        for (name, task) in tasks {
            self.spawn(name, task);
        }
    }

    /// Starts tasks that end by themselves.
    pub fn errands(&self) -> Errands {
        self.errands.clone()
    }

    /// Waits for a task that ends. Never comes back while all go on.
    pub async fn ended(&mut self) -> Ended {
        tokio::select! {
            biased;
            Some(joined) = self.tasks.join_next_with_id() => self.joined(joined),
            Some(name) = self.panicked.recv() => Ended { name, how: How::Panicked },
            else => std::future::pending().await,
        }
    }

    /// Does `work` while all tasks go on.
    ///
    /// # Errors
    /// The first task that ended before the work was done.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! {
            biased;
            ended = self.ended() => Err(ended),
            done = work => Ok(done),
        }
    }

    /// Waits for tasks that have been told to end, `within` the time. Gives those that did not, or not well.
    pub async fn finish(&mut self, tasks: &[&'static str], within: Duration) -> Vec<&'static str> {
        let mut failed = Vec::new();
        let wait = async {
            while self.names.values().any(|name| tasks.contains(name)) {
                let ended = self.ended().await;
                if ended.how == How::Panicked && tasks.contains(&ended.name) {
                    failed.push(ended.name);
                }
            }
        };
        let _ = tokio::time::timeout(within, wait).await;
        failed.extend(self.names.values().copied().filter(|name| tasks.contains(name)));
        failed
    }

    fn joined(&mut self, joined: Result<(Id, ()), JoinError>) -> Ended {
        let (id, how) = match joined {
            Ok((id, ())) => (id, How::Returned),
            Err(error) => (error.id(), How::Panicked),
        };
        Ended { name: self.names.remove(&id).unwrap_or("unknown"), how }
    }
}

/// Starts tasks that do one thing and end. One that panics is told like a task that ended.
#[derive(Clone, Debug)]
pub struct Errands {
    tell: mpsc::UnboundedSender<&'static str>,
}

impl Errands {
    /// Starts one.
    pub fn spawn(&self, name: &'static str, errand: impl Future<Output = ()> + Send + 'static) {
        let alarm = Alarm { name, tell: self.tell.clone() };
        tokio::spawn(NAME.scope(name, async move {
            let _alarm = alarm;
            errand.await;
        }));
    }
}

/// Tells that it was dropped by a panic.
struct Alarm {
    name: &'static str,
    tell: mpsc::UnboundedSender<&'static str>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            // Nobody listens at the end of the program.
            let _ = self.tell.send(self.name);
        }
    }
}

/// Starts a thread of this name. The task that is given goes on as long as the thread does, and panics if that did.
///
/// # Errors
/// When the thread cannot be had.
pub fn thread(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<BoxFuture<'static, ()>> {
    let (done, end) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        work();
        let _ = done.send(());
    })?;
    Ok(async move { end.await.unwrap_or_else(|_| panic!("the thread `{name}` panicked")) }.boxed())
}

/// From now on a panic is logged with the name of the task, or of the thread, in which it happens.
pub fn name_panics() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let task = NAME.try_with(|name| (*name).to_owned());
        let thread = || thread::current().name().unwrap_or("unnamed").to_owned();
        let task = task.unwrap_or_else(|_| thread());
        tracing::error!(task, "the task `{task}` panicked");
        crate::logs::flush();
        report(info);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_task_that_ends_is_named_and_the_others_go_on_until_the_supervisor_goes() {
        let (alive, mut dead) = mpsc::channel::<()>(1);
        let mut supervisor = Supervisor::new();
        supervisor.spawn("lasting", async move {
            let _alive = alive;
            pending().await
        });
        supervisor.spawn("short", async {});
        let ended = supervisor.ended().await;
        assert_eq!(ended, Ended { name: "short", how: How::Returned });
        assert!(ended.to_string().contains("`short` ended"), "{ended}");
        assert!(dead.try_recv() == Err(mpsc::error::TryRecvError::Empty), "it goes on");
        drop(supervisor);
        assert_eq!(dead.recv().await, None);
    }

    #[tokio::test]
    async fn a_panic_is_told_of_tasks_errands_and_threads() {
        let panicked = |name| Ended { name, how: How::Panicked };
        let mut supervisor = Supervisor::new();
        supervisor.spawn("task", async { panic!("on purpose") });
        assert_eq!(supervisor.ended().await, panicked("task"));
        supervisor.errands().spawn("errand that ends well", async {});
        supervisor.errands().spawn("errand", async { panic!("on purpose") });
        assert_eq!(supervisor.ended().await, panicked("errand"));
        let thread = thread("thread", || panic!("on purpose")).unwrap();
        supervisor.spawn("thread", thread);
        assert_eq!(supervisor.ended().await, panicked("thread"));
        supervisor.spawn("another", thread_that_ends());
        assert_eq!(supervisor.ended().await, Ended { name: "another", how: How::Returned });
    }

    fn thread_that_ends() -> BoxFuture<'static, ()> {
        thread("another", || {}).unwrap()
    }

    #[tokio::test]
    async fn work_goes_on_while_all_tasks_do() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("lasting", pending());
        assert_eq!(supervisor.during(async { 1 }).await, Ok(1));
        supervisor.spawn("short", async {});
        assert_eq!(supervisor.during(pending::<()>()).await.unwrap_err().name, "short");
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_were_told_to_end_are_waited_for_but_not_for_ever() {
        let mut supervisor = Supervisor::new();
        let (told, end) = oneshot::channel::<()>();
        supervisor.spawn("obedient", async { drop(end.await) });
        supervisor.spawn("stubborn", pending());
        supervisor.spawn("lasting", pending());
        told.send(()).unwrap();
        assert!(supervisor.finish(&["obedient"], SOON).await.is_empty());
        assert_eq!(supervisor.finish(&["obedient", "stubborn"], SOON).await, ["stubborn"]);
    }
}
