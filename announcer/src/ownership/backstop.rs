//! The fence behind what Leases and names decide: until when the kernel may answer for what this node holds, whatever
//! becomes of this process. Pure but for the channel.
//!
//! What is held is bound at once and silent, is armed, and only then announced. What is not held any more is muted before
//! a Lease is given back or a status says that nobody has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::context::Context;
use super::fence::{Fencing, Outline, Uncovered};
use crate::vip::Holds;

/// What the thread of the fence is to do, in the order in which it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// What concerns all of it.
    Fence(Fencing),
    /// Let addresses answer until then.
    Arm(Vec<(IpAddr, Instant)>),
    /// Silence addresses.
    Mute(Vec<IpAddr>),
    /// End. The fence goes if nothing is bound any more.
    End {
        /// Whether to remove the fence.
        unfence: bool,
    },
}

/// What the thread tells once it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// Addresses may answer until then.
    Armed(Vec<(IpAddr, Instant)>),
    /// Addresses are silent.
    Muted(Vec<IpAddr>),
    /// This is all that is not covered.
    Uncovered(Uncovered),
}

/// What the fence was told of what this node holds, and what of it is so.
#[derive(Debug)]
pub struct Backstop {
    orders: UnboundedSender<Order>,
    outline: Outline,
    deadlines: BTreeMap<IpAddr, Deadline>,
    /// How many orders to mute an address are under way.
    muting: BTreeMap<IpAddr, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    told: Instant,
    armed: Option<Instant>,
}

impl Backstop {
    /// A fence that was told nothing yet.
    pub fn new(orders: UnboundedSender<Order>) -> Self {
        Self {
            orders,
            outline: Outline::default(),
            deadlines: BTreeMap::new(),
            muting: BTreeMap::new(),
        }
    }

    /// Fences these interfaces.
    pub fn attach(&mut self, interfaces: BTreeSet<String>) {
        let told = self.outline.attach(interfaces);
        told.into_iter().for_each(|told| self.tell(Order::Fence(told)));
    }

    /// Has the fence looked at: somebody may have taken it away.
    pub fn inspect(&self) {
        self.tell(Order::Fence(Fencing::Inspect));
    }

    /// Tells what changed: what is to be covered once all is known, what is held no more, and until when the rest may
    /// answer where they are `placed`. What is not armed is held and answers not.
    pub fn keep(
        &mut self,
        holds: &mut Holds,
        context: Context<'_>,
        placed: impl Fn(&IpAddr) -> bool,
        now: Instant,
    ) {
        if context.known {
            let told = self.outline.cover(context, |_, _| false);
            told.into_iter().for_each(|told| self.tell(Order::Fence(told)));
        }
        // What is not covered would answer without a deadline.
        holds.retain(|address, hold| hold.lapses.is_none() || self.outline.covers(address));
        let kept = |address: &IpAddr| holds.contains_key(address) && placed(address);
        let gone = self.deadlines.keys().filter(|address| !kept(address));
        let gone: Vec<IpAddr> = gone.copied().collect();
        for address in &gone {
            self.deadlines.remove(address);
            *self.muting.entry(*address).or_default() += 1;
        }
        if !gone.is_empty() {
            self.tell(Order::Mute(gone));
        }
        let mut arm = Vec::new();
        for (address, hold) in holds.iter_mut() {
            let Some(lapses) = hold.lapses else { continue };
            let known = self.deadlines.get(address).copied();
            if known.is_none_or(|known| known.told != lapses) && placed(address) {
                let armed = known.and_then(|known| known.armed);
                self.deadlines.insert(*address, Deadline { told: lapses, armed });
                arm.push((*address, lapses));
            }
            hold.answers &= self.is_armed(address, now);
        }
        if !arm.is_empty() {
            self.tell(Order::Arm(arm));
        }
    }

    /// Takes in what the thread told; true if more, or less, is to be done than before.
    pub fn told(&mut self, told: &Fenced, now: Instant) -> bool {
        match told {
            Fenced::Armed(armed) => {
                let mut is_news = false;
                for (address, until) in armed {
                    // It may have been muted since, and armed again.
                    let stale = self.muting.contains_key(address);
                    let known = self.deadlines.get_mut(address);
                    let Some(known) = known.filter(|known| !stale && *until <= known.told) else {
                        continue;
                    };
                    is_news |= known.armed.is_none_or(|armed| armed <= now);
                    known.armed = known.armed.max(Some(*until));
                }
                is_news
            }
            // Who places addresses is told.
            Fenced::Uncovered(_) => true,
            Fenced::Muted(muted) => {
                for address in muted {
                    if let Some(orders) = self.muting.get_mut(address) {
                        *orders -= 1;
                    }
                }
                self.muting.retain(|_, orders| *orders > 0);
                true
            }
        }
    }

    /// Whether the kernel lets an address answer.
    pub fn is_armed(&self, address: &IpAddr, now: Instant) -> bool {
        let armed = self.deadlines.get(address).and_then(|known| known.armed);
        armed.is_some_and(|armed| armed > now)
    }

    /// What is not surely silent, although it is held no more.
    pub fn muting(&self) -> impl Iterator<Item = IpAddr> {
        self.muting.keys().copied()
    }

    /// When something changes although nothing happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.deadlines.values().filter_map(|known| known.armed).filter(|armed| *armed > now).min()
    }

    fn tell(&self, order: Order) {
        // The thread is gone only at the end of the program.
        let _ = self.orders.send(order);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::ownership::testing::context;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::service;
    use crate::source::testing::{host, seen};
    use crate::vip::{Hold, Name};

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// A backstop, and what it has ordered.
    struct Scene {
        backstop: Backstop,
        orders: UnboundedReceiver<Order>,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let (tell, orders) = unbounded_channel();
            Self { backstop: Backstop::new(tell), orders, start: Instant::now() }
        }

        /// This many seconds after the start.
        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// A round in which the address is held until then; whether it answers, and what was ordered but for `Cover`.
        fn round(&mut self, known: bool, lapses: Option<u64>) -> (bool, Vec<Order>) {
            let mut cluster = Cluster::default();
            cluster.apply_service(Name::new("d", "web"), service(&["192.0.2.1"]));
            let host = host();
            let wanted = seen(&cluster, &host, Some("eth0"));
            let context = Context { known, ..context(&wanted, &host) };
            let hold = |seconds| {
                let lapses = self.at(seconds);
                (ADDRESS, Hold { until: lapses, answers: true, lapses: Some(lapses) })
            };
            let mut holds: Holds = lapses.map(hold).into_iter().collect();
            self.backstop.keep(&mut holds, context, |_| true, self.start);
            let mut ordered = Vec::new();
            while let Ok(order) = self.orders.try_recv() {
                ordered
                    .extend(Some(order).filter(|o| !matches!(o, Order::Fence(Fencing::Cover(_)))));
            }
            (holds.get(&ADDRESS).is_some_and(|hold| hold.answers), ordered)
        }

        fn armed(&mut self, seconds: u64) -> bool {
            let armed = Fenced::Armed(vec![(ADDRESS, self.at(seconds))]);
            self.backstop.told(&armed, self.start)
        }

        fn muted(&mut self) {
            self.backstop.told(&Fenced::Muted(vec![ADDRESS]), self.start);
        }

        fn is_muting(&self) -> bool {
            self.backstop.muting().next().is_some()
        }
    }

    #[test]
    fn an_address_is_announced_once_it_is_armed_and_armed_once_all_is_covered() {
        let mut scene = Scene::new();
        assert_eq!(scene.round(false, Some(5)), (false, vec![]));
        let arm = Order::Arm(vec![(ADDRESS, scene.at(5))]);
        assert_eq!(scene.round(true, Some(5)), (false, vec![Order::Fence(Fencing::Settle), arm]));
        assert_eq!(scene.round(true, Some(5)), (false, vec![]), "it is told once");
        assert!(scene.armed(5));
        assert_eq!(scene.round(true, Some(5)), (true, vec![]));
    }

    #[test]
    fn each_renewal_is_told_and_an_address_answers_meanwhile() {
        let mut scene = Scene::new();
        scene.round(true, Some(5));
        scene.armed(5);
        let arm = Order::Arm(vec![(ADDRESS, scene.at(6))]);
        assert_eq!(scene.round(true, Some(6)), (true, vec![arm]));
        assert!(!scene.armed(6), "no round is needed for that");
        assert_eq!(scene.backstop.deadline(scene.start), Some(scene.at(6)));
    }

    #[test]
    fn what_is_held_no_more_is_muted_and_not_silent_before_that_is_told() {
        let mut scene = Scene::new();
        scene.round(true, Some(5));
        scene.armed(5);
        assert_eq!(scene.round(true, None), (false, vec![Order::Mute(vec![ADDRESS])]));
        assert!(scene.is_muting());
        scene.muted();
        assert!(!scene.is_muting());
        assert_eq!(scene.round(true, None), (false, vec![]));
    }

    #[test]
    fn what_was_armed_before_an_address_was_muted_counts_no_more() {
        let mut scene = Scene::new();
        scene.round(true, Some(5));
        scene.round(true, None);
        scene.round(true, Some(5));
        assert!(!scene.armed(5), "told before it was muted");
        assert!(!scene.round(true, Some(5)).0);
        scene.round(true, None);
        scene.muted();
        assert!(scene.is_muting(), "it was armed again in between");
        scene.muted();
        scene.round(true, Some(5));
        assert!(scene.armed(5));
        assert!(scene.round(true, Some(5)).0);
    }
}
