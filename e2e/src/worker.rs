//! A thread inside a network namespace, which ends when told to.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::place::Place;

/// The thread.
#[derive(Debug)]
pub(crate) struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Where a worker says whether its preparations went well.
pub(crate) struct Ready(std::sync::mpsc::Sender<Result<()>>);

impl Ready {
    pub(crate) fn settle<T>(self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                drop(self.0.send(Ok(())));
                Some(value)
            }
            Err(e) => {
                drop(self.0.send(Err(e)));
                None
            }
        }
    }
}

impl Worker {
    pub(crate) fn start(
        place: &Place,
        work: impl FnOnce(&AtomicBool, Ready) + Send + 'static,
    ) -> Result<Self> {
        Self::start_in(place.open_net()?, work)
    }

    /// The same in a network namespace of no place.
    pub(crate) fn start_in(
        net: File,
        work: impl FnOnce(&AtomicBool, Ready) + Send + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let its_stop = stop.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let ready = Ready(tell);
            match setns(net, CloneFlags::CLONE_NEWNET) {
                Err(e) => drop(ready.settle::<()>(Err(e).context("enter the network namespace"))),
                Ok(()) => work(&its_stop, ready),
            }
        });
        told.recv().context("the thread is gone")??;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Tells it to end.
    pub(crate) fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits for its end.
    pub(crate) fn join(mut self) -> Result<()> {
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Err(_)) => anyhow::bail!("the thread panicked"),
            _ => Ok(()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
