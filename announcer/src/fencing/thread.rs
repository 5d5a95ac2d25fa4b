//! Owns the thread of the fence where Leases decide. Calls may wait for whoever holds the kernel's locks, and rounds of
//! the announcer must not: they exchange messages. What it tells is so in the kernel by then.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_fence::Fence;
use berth_membership::Moment;
use berth_runtime::http::Health;
use berth_runtime::supervise;
use futures::future::BoxFuture;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::upkeep::{Upkeep, found, now};
use crate::metrics::Metrics;
use crate::ownership::backstop::{Fenced, Order};

/// The name of the thread.
pub(crate) const THREAD: &str = "fence";

/// The thread must come by this often, or it is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// The longest sleep: to say that the thread is alive.
const NAP: Duration = Duration::from_secs(10);

/// Starts the thread, in the network namespace of the calling thread. It ends with [`Order::End`], or when nobody can
/// tell it anything any more; then the fence stays. The task lasts as long as the thread.
///
/// # Errors
/// When the thread cannot be had.
pub(crate) fn start(
    fence: Box<dyn Fence>,
    metrics: &Metrics,
    health: &Health,
    orders: UnboundedReceiver<Order>,
    tell: UnboundedSender<Fenced>,
) -> io::Result<BoxFuture<'static, ()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let health = health.clone();
    let keeper = Keeper::new(Upkeep::new(fence, metrics.clone(), health.clone()), tell);
    supervise::thread(THREAD, move || {
        runtime.block_on(keeper.run(orders, &health));
        // An inspection may wait for the kernel still.
        runtime.shutdown_background();
    })
}

struct Keeper {
    upkeep: Upkeep,
    /// What is armed, and to be told once the kernel has it.
    armed: Vec<(IpAddr, Instant)>,
    tell: UnboundedSender<Fenced>,
}

impl Keeper {
    fn new(upkeep: Upkeep, tell: UnboundedSender<Fenced>) -> Self {
        Self { upkeep, armed: Vec::new(), tell }
    }

    async fn run(mut self, mut orders: UnboundedReceiver<Order>, health: &Health) {
        loop {
            self.turn();
            health.alive("fence thread", Instant::now(), STUCK);
            let nap = self.upkeep.due().since(now());
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::End { unfence: true }) => return self.upkeep.remove(),
                    Some(Order::End { unfence: false }) | None => return,
                    Some(order) => self.take(order),
                },
                findings = found(&mut self.upkeep.inspecting) => self.upkeep.repair(findings),
                () = tokio::time::sleep(nap.min(NAP)) => {}
            }
        }
    }

    /// Does what is due, and tells what is so since.
    fn turn(&mut self) {
        self.upkeep.turn(now());
        if let Some(uncovered) = self.upkeep.news() {
            self.tell(Fenced::Uncovered(uncovered));
        }
        if !self.armed.is_empty() && self.upkeep.is_in_force() {
            let armed = std::mem::take(&mut self.armed);
            self.tell(Fenced::Armed(armed));
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Fence(told) => self.upkeep.take(told),
            Order::Arm(addresses) => {
                for (address, until) in addresses {
                    if self.upkeep.arm(address, moment(until)) {
                        self.armed.push((address, until));
                    }
                }
                self.upkeep.refresh();
            }
            Order::Mute(addresses) => {
                self.upkeep.mute_each(&addresses);
                self.armed.retain(|(address, _)| !addresses.contains(address));
                self.tell(Fenced::Muted(addresses));
            }
            Order::End { .. } => {}
        }
    }

    fn tell(&self, told: Fenced) {
        // Nobody listens at the end of the program.
        let _ = self.tell.send(told);
    }
}

/// The same moment on the clock of the fence, or an earlier one: a thread that is stopped between the two readings takes
/// the later reading of ours, and so less time that is left.
fn moment(at: Instant) -> Moment {
    let now = now();
    now + at.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use berth_api::election::Timing;
    use berth_fence::{
        ArmError, AttachError, BootTime, CoverError, Inspection, Kind, MuteError, PollError,
    };
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::ownership::Fencing;
    use crate::ownership::Uncovered;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// A fence of a kernel whose rules are locked, or not.
    struct Locked(Arc<AtomicBool>);

    impl Fence for Locked {
        fn kind(&self) -> Kind {
            Kind::NftTimeout
        }

        fn attach(&mut self, _: &BTreeSet<String>) -> Vec<AttachError> {
            Vec::new()
        }

        /// It has room for one.
        fn cover(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), CoverError> {
            match addresses.len() {
                0 | 1 => Ok(()),
                wanted => Err(CoverError::TooMany { wanted, over: wanted - 1, capacity: 1 }),
            }
        }

        fn covers(&self, address: &IpAddr) -> bool {
            *address == ADDRESS
        }

        fn settle(&mut self) -> Vec<AttachError> {
            Vec::new()
        }

        fn arm(&mut self, address: IpAddr, _: BootTime) -> Result<(), ArmError> {
            if address == ADDRESS { Ok(()) } else { Err(ArmError::NotCovered { address }) }
        }

        fn mute(&mut self, _: IpAddr) -> Result<(), MuteError> {
            Ok(())
        }

        fn mute_all(&mut self) -> Result<(), MuteError> {
            Ok(())
        }

        fn poll(&mut self, _: BootTime) -> Result<Option<BootTime>, PollError> {
            match self.0.load(Ordering::Relaxed) {
                true => Err(PollError { source: io::ErrorKind::ResourceBusy.into() }),
                false => Ok(None),
            }
        }

        fn inspection(&self) -> Inspection {
            Box::new(Vec::new)
        }

        fn remove(&mut self) -> Vec<AttachError> {
            Vec::new()
        }
    }

    fn keeper() -> (Keeper, UnboundedReceiver<Fenced>, Arc<AtomicBool>) {
        let (tell, told) = unbounded_channel();
        let locked = Arc::new(AtomicBool::new(false));
        let fence = Box::new(Locked(locked.clone()));
        (Keeper::new(Upkeep::new(fence, Metrics::default(), Health::default()), tell), told, locked)
    }

    #[tokio::test]
    async fn what_the_kernel_has_not_taken_is_not_told() {
        let (mut keeper, mut told, locked) = keeper();
        locked.store(true, Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(5);
        let bare = [192, 0, 2, 2].into();
        keeper.take(Order::Fence(Fencing::Settle));
        keeper.take(Order::Arm(vec![(ADDRESS, until), (bare, until)]));
        keeper.turn();
        assert!(told.try_recv().is_err(), "somebody has locked the kernel's rules");
        locked.store(false, Ordering::Relaxed);
        tokio::time::sleep(keeper.upkeep.due().since(now())).await;
        keeper.turn();
        assert_eq!(told.try_recv(), Ok(Fenced::Armed(vec![(ADDRESS, until)])));
        assert!(told.try_recv().is_err(), "it is told once");
    }

    #[tokio::test]
    async fn what_the_fence_has_no_room_for_is_told_and_tried_again() {
        let (mut keeper, mut told, _) = keeper();
        let bare: IpAddr = [192, 0, 2, 2].into();
        keeper.take(Order::Fence(Fencing::Cover([ADDRESS, bare].into())));
        keeper.turn();
        let Ok(Fenced::Uncovered(uncovered)) = told.try_recv() else { panic!("it is told") };
        let uncovered = uncovered.addresses;
        assert!(uncovered[&bare].contains("1 more than the fence holds (1)"), "{uncovered:?}");
        assert!(!uncovered.contains_key(&ADDRESS));
        keeper.turn();
        assert!(told.try_recv().is_err(), "it is told once");
        assert!(keeper.upkeep.due() < Moment::NEVER, "it is tried again");
        keeper.take(Order::Fence(Fencing::Cover([ADDRESS].into())));
        keeper.turn();
        assert_eq!(told.try_recv(), Ok(Fenced::Uncovered(Uncovered::default())));
    }

    #[tokio::test]
    async fn what_is_muted_before_the_kernel_took_it_is_not_told_to_be_armed() {
        let (mut keeper, mut told, locked) = keeper();
        locked.store(true, Ordering::Relaxed);
        keeper.take(Order::Arm(vec![(ADDRESS, Instant::now())]));
        keeper.take(Order::Mute(vec![ADDRESS]));
        locked.store(false, Ordering::Relaxed);
        keeper.upkeep.refresh();
        keeper.turn();
        assert_eq!(told.try_recv(), Ok(Fenced::Muted(vec![ADDRESS])));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn the_margins_of_a_lease_are_those_of_membership() {
        let parameters = berth_membership::Parameters::default();
        assert_eq!(Timing::DRIFT_PPM, parameters.drift_ppm);
        assert_eq!(Timing::LATENESS, parameters.lateness);
    }

    #[test]
    fn a_moment_is_never_later_on_the_clock_of_the_fence() {
        let at = Instant::now() + Duration::from_secs(5);
        let (before, there) = (now(), moment(at));
        let left = there.since(before);
        assert!(left <= Duration::from_secs(5), "{left:?}");
        assert!(left > Duration::from_secs(4), "{left:?}");
        assert!(moment(Instant::now()) <= now(), "what is over is over");
    }
}
