//! What routers are told of what is bound here, and what they know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use berth_bgp::{Announcement, Family};

use super::Announcer;
use super::desired::Desired;
use crate::advertise::bgp::{Advert, Asked, Ending, Routed, Way};
use crate::kernel::{Binding, Kernel};
use crate::ownership::Ownership;
use crate::vip::{Attach, Claimant, Vip};

impl<K: Kernel> Announcer<K> {
    /// Takes in what routers know by now.
    pub(super) fn hear_routers(&mut self, now: Instant) {
        let Self { routed, owners, sight, config, .. } = self;
        let Some(routed) = routed else { return };
        let refused = BTreeSet::new();
        let context = sight.context(&refused);
        let eips_known = config.eip.is_none() || context.bindings_known;
        routed.see([context.known, eips_known], now);
        let told = routed.told();
        let silence = Family::ALL.map(|family| told.silence_of(family));
        let everyone = owners.iter_mut().filter_map(|owner| match owner {
            Ownership::Everyone(everyone) => Some(everyone),
            _ => None,
        });
        everyone.for_each(|everyone| {
            everyone.told(routed.known(), silence.clone());
            everyone.last(routed.lasts());
        });
    }

    /// Whether the node is to tell of routers what it has not told yet.
    pub(super) fn routers_are_news(&self) -> bool {
        let told = self.outlets.host.borrow();
        let (Some(told), Some(routed)) = (&*told, &self.routed) else { return false };
        told.routers != Some(routed.told().routers())
    }

    /// Whether the host is to stay as an earlier life left it, addresses and guard: routers lead here what it is not known yet that
    /// it is wanted.
    pub(super) fn is_kept_as_it_is(&self) -> bool {
        self.routed.as_ref().is_some_and(Routed::waits)
    }

    /// What the stop is, where routers go by it; nothing where they do not.
    pub(super) fn ending(&self, asked: &Asked) -> Option<Ending> {
        let told = self.routed.as_ref()?.told();
        let node = &self.config.core.node;
        let shown = self.sight.nodes.peers.iter().find(|(name, _)| *name == node);
        Some(Ending::of(asked, node, shown.map(|(_, shown)| shown), told.survives()))
    }

    /// Has routers told of what is bound here, and nothing else.
    pub(super) fn tell_routers(&mut self, desired: &Desired, now: Instant) {
        let Self { routed, sight, config, .. } = self;
        let Some(routed) = routed else { return };
        let node = &config.core.node;
        let advert = |(address, place): (&IpAddr, &super::desired::Place)| {
            let Attach::Host(index) = place.attach else { return None };
            sight.host.ours.contains_key(&Binding { index, address: *address }).then_some(())?;
            let vip = sight.wanted.vip(*address)?;
            let way = match vip.heir(node) {
                Some(heir) => Way::Moved { told: vip.previous() == Some(heir) },
                None if place.answers => Way::Here,
                None => Way::Elsewhere,
            };
            Some((*address, Advert { announcement: announcement(*address, vip, node), way }))
        };
        let bound: BTreeMap<IpAddr, Advert> = desired.addresses.iter().filter_map(advert).collect();
        routed.announce(bound, now);
    }

    /// Whether a router was told to lead an address here.
    pub(super) fn is_routed(&self, address: &IpAddr) -> bool {
        self.routed.as_ref().is_none_or(|routed| routed.known().contains(address))
    }
}

/// What is said of an address: whose it is, for rules to go by.
fn announcement(address: IpAddr, vip: &Vip, node: &str) -> Announcement {
    let namespace = vip.wants.first().map(|want| match &want.claimant {
        Claimant::Service(name) | Claimant::Eip(name) => name.namespace.to_string(),
        Claimant::Operator | Claimant::ControlPlane => String::new(),
    });
    // Who was named last is preferred, and never is there a second one that is as good: whatever becomes of a route of the
    // node before, as where it is kept for a speaker that may come back.
    let epoch = vip.wants.iter().map(|want| want.epoch).find(|epoch| *epoch > 0);
    let epoch = epoch.map(|epoch| epoch - i64::from(vip.heir(node).is_some()));
    let med = epoch.map(|epoch| u32::MAX.saturating_sub(u32::try_from(epoch).unwrap_or(u32::MAX)));
    Announcement { med, ..Announcement::of(address, &namespace.unwrap_or_default()) }
}
