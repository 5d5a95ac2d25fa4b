//! How long a client at the address is not answered.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_e2e::lab::Lab;
use nix::sched::{CloneFlags, setns};

/// Between two connections, and how long one is waited for.
const EVERY: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_millis(300);

/// A client on the LAN that connects again and again.
pub(crate) struct Gaps {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Gaps {
    pub(crate) fn start(lab: &Lab, target: SocketAddr) -> Result<Self> {
        let net = lab.outside().open_net()?;
        let stop = Arc::new(AtomicBool::new(false));
        let its_stop = stop.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let entered = setns(net, CloneFlags::CLONE_NEWNET);
            let is_inside = entered.is_ok();
            _ = tell.send(entered);
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while is_inside && !its_stop.load(Ordering::Relaxed) {
                if TcpStream::connect_timeout(&target, LIMIT).is_ok() {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                std::thread::sleep(EVERY);
            }
            longest.max(last.elapsed())
        });
        told.recv().context("the thread ended")?.context("enter the client's network")?;
        Ok(Self { stop, thread })
    }

    /// The longest time between two answers.
    pub(crate) fn finish(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().or_else(|_| bail!("the client panicked"))
    }
}
