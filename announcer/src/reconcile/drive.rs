//! Drives an announcer: takes in what happens, one round after the other, until it has left.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::advertise::bgp::{Answer, Told};
use crate::dataplane;
use crate::kernel::{Kernel, KernelChange};
use crate::ownership::Answers;
use crate::ownership::backstop::Fenced;
use crate::ownership::health::Heard;
use crate::ownership::membership::MembershipEvent;
use crate::publish::writer::WriteEvent;
use crate::reconcile::Announcer;
use crate::source::proxied::Question;
use crate::source::watch::ClusterEvent;

/// How long leaving may take before it is given up; the kernel drops addresses by itself then. A member that cannot
/// leave the view gives up after ten seconds by itself.
const LEAVING: Duration = Duration::from_secs(5);
const LEAVING_MEMBERS: Duration = Duration::from_secs(12);

/// Changes that one round takes in at most, so that it is not put off for ever.
const AT_ONCE: usize = 512;

/// After a round the program rests for this many times as long, at most [`REST`], to take in together what happens in a
/// crowd. With a hundred Services a round takes a millisecond: up to [`BRIEF`] there is no rest, for on its way to its
/// address a Service waits for half a dozen of them.
const LEISURE: u32 = 2;
const REST: Duration = Duration::from_millis(50);
const BRIEF: Duration = Duration::from_millis(2);

/// Somebody asks for everything that is known.
pub struct Inquiry {
    /// Of what.
    pub of: About,
    /// Who asks.
    pub answer: oneshot::Sender<Value>,
}

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Each address.
    Vips,
    /// Each router.
    Routers,
}

/// Where what happens comes from.
pub struct Sources {
    /// The watches.
    pub seen: mpsc::Receiver<ClusterEvent>,
    /// The writes that have ended.
    pub done: mpsc::UnboundedReceiver<WriteEvent>,
    /// The kernel.
    pub changes: mpsc::Receiver<KernelChange>,
    /// What is kept in the kernel for packets.
    pub dataplane: mpsc::Receiver<dataplane::Event>,
    /// The driver of membership; nothing ever comes where Leases decide.
    pub told: mpsc::UnboundedReceiver<MembershipEvent>,
    /// The thread of the fence; nothing ever comes where membership decides.
    pub fenced: mpsc::UnboundedReceiver<Fenced>,
    /// What is known of the API server of this node; nothing ever comes where nobody asks it.
    pub standing: watch::Receiver<Heard>,
    /// What API servers of other nodes answer; nothing ever comes where nobody asks them.
    pub answers: watch::Receiver<Answers>,
    /// What is known of routers; nothing ever comes where none is told anything.
    pub routed: watch::Receiver<Told>,
    /// Where kube-proxy leads to what is here; nothing ever comes where it is not asked.
    pub proxied: watch::Receiver<BTreeSet<Question>>,
    /// Who asks what is known.
    pub inquiries: mpsc::Receiver<Inquiry>,
}

/// How it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Everything was released.
    Bare,
    /// Not everything was in time.
    Late,
    /// Another process comes, and finds everything as it is: routers lead addresses here meanwhile.
    Kept,
}

/// Drives `announcer` until `stop` is done and everything has been released, cannot be in time, or is to stay for the next
/// process: what `stop` gives says so, where routers go by it.
pub async fn drive<K: Kernel>(
    announcer: &mut Announcer<K>,
    mut sources: Sources,
    stop: impl Future<Output = Answer>,
) -> Left {
    let mut stop = pin!(stop);
    let mut end: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let wake = announcer.round().await;
        let left = announcer.has_left();
        if left || end.is_some_and(|end| end <= Instant::now()) {
            return match (announcer.pauses(), left) {
                (true, _) => Left::Kept,
                (false, true) => Left::Bare,
                (false, false) => Left::Late,
            };
        }
        let wake = end.map_or(wake, |end| end.min(wake));
        let took = began.elapsed();
        if took > BRIEF {
            tokio::time::sleep((took * LEISURE).min(REST)).await;
        }
        loop {
            tokio::select! {
                Some(first) = sources.seen.recv() => {
                    let now = Instant::now();
                    let mut matters = announcer.see(first, now);
                    for _ in 0..AT_ONCE {
                        let Ok(next) = sources.seen.try_recv() else { break };
                        matters |= announcer.see(next, now);
                    }
                    if !matters {
                        continue;
                    }
                }
                Some(first) = sources.done.recv() => {
                    let now = Instant::now();
                    announcer.done(first, now);
                    while let Ok(next) = sources.done.try_recv() {
                        announcer.done(next, now);
                    }
                }
                Some(first) = sources.changes.recv() => {
                    let now = Instant::now();
                    announcer.changed(first, now);
                    while let Ok(next) = sources.changes.try_recv() {
                        announcer.changed(next, now);
                    }
                }
                Some(event) = sources.dataplane.recv() => announcer.kept(event),
                Some(first) = sources.told.recv() => {
                    let now = Instant::now();
                    announcer.told(&first, now);
                    while let Ok(next) = sources.told.try_recv() {
                        announcer.told(&next, now);
                    }
                }
                Some(first) = sources.fenced.recv() => {
                    let now = Instant::now();
                    let mut is_news = announcer.fenced(&first, now);
                    while let Ok(next) = sources.fenced.try_recv() {
                        is_news |= announcer.fenced(&next, now);
                    }
                    // A renewal needs no round.
                    if !is_news {
                        continue;
                    }
                }
                Ok(()) = sources.standing.changed() => {
                    let heard = *sources.standing.borrow_and_update();
                    if !announcer.stands(heard, Instant::now()) {
                        continue;
                    }
                }
                Ok(()) = sources.answers.changed() => {
                    let answers = sources.answers.borrow_and_update().clone();
                    if !announcer.answered(answers) {
                        continue;
                    }
                }
                Ok(()) = sources.routed.changed() => {}
                Ok(()) = sources.proxied.changed() => {}
                Some(inquiry) = sources.inquiries.recv() => {
                    // Whoever asked may not have waited.
                    if !inquiry.answer.is_closed() {
                        let told = match inquiry.of {
                            About::Vips => announcer.dump(Instant::now()),
                            About::Routers => announcer.dump_routers(Instant::now()),
                        };
                        let _ = inquiry.answer.send(told);
                    }
                    continue;
                }
                () = announcer.listener().readable() => {
                    // Most of what passes the kernel's filter is about others, and needs no round.
                    if !announcer.hear(Instant::now()) {
                        continue;
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
                asked = &mut stop, if end.is_none() => {
                    announcer.leave(&asked, Instant::now());
                    // Nothing is looked at, or changed, before the next process does.
                    if announcer.pauses() && announcer.has_left() {
                        return Left::Kept;
                    }
                    let leaving = if announcer.is_member() { LEAVING_MEMBERS } else { LEAVING };
                    end = Some(Instant::now() + leaving);
                }
            }
            break;
        }
    }
}
