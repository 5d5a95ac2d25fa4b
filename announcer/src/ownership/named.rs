//! Owners by name: an address whose object names one node belongs to that node, and no election decides. So it is with
//! elastic IPs where Leases decide on Services. Pure.
//!
//! A node holds what it is named for while it has heard of the API server within the renewal deadline of Leases. A node
//! that is newly named waits until the one before says that it has released it, or for as long as a Lease lasts, by when it
//! has: where its process was stopped, the fence has silenced it. One that has heard nothing for that long takes nothing up
//! again at the first word, which may be old: it may have been stopped, and what names another node comes after it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_api::election::Timing;

use super::context::Context;
use crate::vip::{Claimant, Hold, Holds, Want};

/// Who owns what, by name.
#[derive(Clone, Debug)]
pub struct Named {
    timing: Timing,
    /// When the API server was last heard.
    heard: Instant,
    /// After a silence nothing is held before this.
    waits: Instant,
    /// Since when this node is named.
    named: BTreeMap<Claimant, Instant>,
    leaving: bool,
}

impl Named {
    /// Nothing was heard before `now`.
    pub fn new(timing: Timing, now: Instant) -> Self {
        Self { timing, heard: now, waits: now, named: BTreeMap::new(), leaving: false }
    }

    /// Takes in that the API server was heard.
    pub fn hear(&mut self, now: Instant) {
        if !self.named.is_empty() && self.heard + self.timing.renew_deadline() <= now {
            self.waits = now + self.timing.retry();
        }
        self.heard = now;
    }

    /// How far the lifetime of an address may fall behind the hold before it is renewed.
    pub fn slack(&self) -> Duration {
        self.timing.renew_deadline() * 2 / 5
    }

    /// From now on holds nothing.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Takes in what is wanted.
    pub fn request(&mut self, context: Context<'_>, now: Instant) {
        if !context.bindings_known {
            return;
        }
        let named: BTreeMap<&Claimant, ()> =
            wants(context).map(|want| (&want.claimant, ())).collect();
        self.named.retain(|claimant, _| named.contains_key(claimant));
        for (claimant, ()) in named {
            self.named.entry(claimant.clone()).or_insert(now);
        }
    }

    /// What this node may have bound.
    pub fn holds(&self, context: Context<'_>, now: Instant) -> Holds {
        let until = self.heard + self.timing.renew_deadline();
        if self.leaving || until <= now || now < self.waits {
            return Holds::new();
        }
        let named = context.wanted.addressed().filter(|(_, vip)| {
            vip.wants
                .iter()
                .any(|want| is_named(want, context.node) && self.is_due(want, context, now))
        });
        let lapses = Some(self.heard + self.timing.lapse());
        named.map(|(address, _)| (address, Hold { until, answers: true, lapses })).collect()
    }

    /// Whether it is this node's turn: nobody else says that it holds the addresses, or has had long enough to release
    /// them.
    fn is_due(&self, want: &Want, context: Context<'_>, now: Instant) -> bool {
        let other = want.previous.as_deref().is_some_and(|holder| holder != context.node);
        let since = self.named.get(&want.claimant);
        since.is_some_and(|since| !other || now >= *since + self.timing.duration())
    }

    /// Whether the API server should be asked for a sign of life: this node holds by it and has heard none for a while.
    pub fn asks(&self, now: Instant) -> bool {
        !self.leaving && !self.named.is_empty() && now >= self.heard + self.timing.retry()
    }

    /// When something changes although nothing happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.leaving || self.named.is_empty() {
            return None;
        }
        let retry = self.timing.retry();
        let ask = (self.heard + retry).max(now + retry / 2);
        let due = self.named.values().map(|since| *since + self.timing.duration());
        due.chain([self.waits]).filter(|due| *due > now).chain([ask]).min()
    }
}

fn wants(context: Context<'_>) -> impl Iterator<Item = &Want> {
    let wants = context.wanted.vips.values().flat_map(|vip| &vip.wants);
    wants.filter(move |want| is_named(want, context.node))
}

fn is_named(want: &Want, node: &str) -> bool {
    want.serving.is_named(node)
}

#[cfg(test)]
mod tests {
    use berth_api::eip::EipHolder;

    use super::*;
    use crate::ownership::testing::context;
    use crate::source::cluster::testing::eip;
    use crate::source::cluster::{Cluster, Eip};
    use crate::source::testing::{host, seen};
    use crate::vip::Name;

    fn timing() -> Timing {
        let seconds = Duration::from_secs;
        Timing::new(seconds(5), seconds(3), seconds(1)).unwrap()
    }

    fn cluster(node: &str, holder: Option<&str>) -> Cluster {
        let mut cluster = Cluster::default();
        let holder = holder.map(|node| EipHolder { node: node.to_owned(), epoch: 1 });
        let pairs = &[("192.0.2.1", "10.244.0.4")];
        cluster.apply_eip(Name::new("d", "vm"), Eip { holder, ..eip(node, pairs) });
        cluster
    }

    /// What node `a` holds, so long after it was first named and last heard the API server.
    fn holds(cluster: &Cluster, named: Duration, heard: Duration) -> usize {
        let (host, start) = (host(), Instant::now());
        let wanted = seen(cluster, &host, Some("eth0"));
        let context = context(&wanted, &host);
        let mut owners = Named::new(timing(), start);
        owners.request(context, start);
        for second in 1..=named.saturating_sub(heard).as_secs() {
            owners.hear(start + Duration::from_secs(second));
        }
        owners.holds(context, start + named).len()
    }

    #[test]
    fn a_node_waits_for_the_one_before_and_falls_silent_without_the_api_server() {
        let second = Duration::from_secs(1);
        let (hold, patience) = (timing().renew_deadline(), timing().duration());
        assert_eq!(holds(&cluster("a", None), second, second), 1);
        assert_eq!(holds(&cluster("b", None), second, second), 0);
        assert_eq!(holds(&cluster("a", Some("b")), second, Duration::ZERO), 0, "b has it yet");
        assert_eq!(holds(&cluster("a", Some("b")), patience, Duration::ZERO), 1);
        assert_eq!(holds(&cluster("a", Some("a")), second * 9, hold), 0, "it hears nothing");
    }

    #[test]
    fn what_a_node_hears_first_after_a_silence_may_be_old() {
        let (host, start) = (host(), Instant::now());
        let wanted = seen(&cluster("a", Some("a")), &host, Some("eth0"));
        let context = context(&wanted, &host);
        let mut owners = Named::new(timing(), start);
        owners.request(context, start);
        assert_eq!(owners.holds(context, start).len(), 1);
        let woken = start + Duration::from_secs(10);
        owners.hear(woken);
        assert!(owners.holds(context, woken).is_empty());
        let due = woken + timing().retry();
        assert_eq!(owners.deadline(woken), Some(due));
        assert_eq!(owners.holds(context, due).len(), 1);
    }
}
