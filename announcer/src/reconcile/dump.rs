//! Everything that is known of each VIP, for people. Never a judge of anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use berth_api::conflict::MacText;
use serde_json::{Value, json};

use super::Announcer;
use crate::advertise::arp_nd::probe::Standing;
use crate::advertise::bgp::shown;
use crate::kernel::{Guard, Kernel};
use crate::ownership::{Context, Ownership};
use crate::vip::serve::{Ask, Lives, Rank, Reach, serve};
use crate::vip::{Record, Vip, Want};

/// What is known of all addresses, worked out once: there may be thousands.
#[derive(Default)]
struct Known {
    /// Those that this node answers for.
    answers: BTreeSet<IpAddr>,
    /// Those that it has or asks for.
    asked: BTreeSet<IpAddr>,
    /// The interfaces that they are bound on.
    bound: BTreeMap<IpAddr, Vec<u32>>,
}

impl<K: Kernel> Announcer<K> {
    /// A record of every VIP, as JSON.
    pub fn dump(&self, now: Instant) -> Value {
        let refused = self.hands.refused();
        let context = self.sight.context(&refused);
        let members = self.owners.iter().find_map(|owner| match owner {
            Ownership::Membership(members) => members.nodes(),
            _ => None,
        });
        let context = Context { nodes: context.nodes.or(members), ..context };
        let mut known = Known::default();
        for owner in &self.owners {
            known.asked.extend(owner.asked(context, now));
            let held = owner.holds(context, now).into_iter().filter(|(_, hold)| hold.answers);
            known.answers.extend(held.map(|(address, _)| address));
        }
        if let Some(backstop) = &self.backstop {
            known.answers.retain(|address| backstop.is_armed(address, now));
        }
        for binding in self.sight.host.ours.keys() {
            known.bound.entry(binding.address).or_default().push(binding.index);
        }
        let unbound = self.hands.unbound();
        let records = self.sight.wanted.vips.values().map(|vip| {
            let record = self.record(context, vip, &unbound, &known);
            let own = vip.address.filter(|_| vip.is_of_control_plane());
            let on = own.and_then(|own| self.whereabouts.of(&own, now)).map(str::to_owned);
            Record { said_to_be_on: record.said_to_be_on.or(on), ..record }
        });
        json!(records.collect::<Vec<_>>())
    }

    /// What is known of every router that this node has a session with, or is to have, as JSON.
    pub fn dump_routers(&self, now: Instant) -> Value {
        self.routed.as_ref().map_or(json!([]), |routed| shown(&routed.told(), now))
    }

    fn record(
        &self,
        context: Context<'_>,
        vip: &Vip,
        unbound: &BTreeSet<IpAddr>,
        known: &Known,
    ) -> Record {
        let address = vip.address;
        let ownership = match address {
            Some(address) if known.answers.contains(&address) => "owns",
            Some(address) if known.asked.contains(&address) => "asks",
            _ => "none",
        };
        let standing = address.and_then(|address| self.lan.probes.standing(&address));
        let ports = vip.ports();
        let guarded = match &self.guarding.known {
            Guard::Holds(guarded) => ports.intersection(&guarded.ports).count(),
            Guard::Unknown | Guard::Unavailable(_) => 0,
        };
        let obstacles = vip.wants.iter().filter_map(|want| want.attach.as_ref().err());
        let refusals = obstacles.map(crate::vip::Refusal::reason);
        let routers = self.routed.as_ref().zip(address);
        let told_to: Vec<String> = routers
            .map(|(routed, address)| routed.told().knowing(&address).map(str::to_owned).collect())
            .unwrap_or_default();
        let not_bound = address.filter(|address| unbound.contains(address)).map(|_| "NotBound");
        Record {
            address,
            claimants: vip.wants.iter().map(|want| want.claimant.to_string()).collect(),
            candidates: vip.wants.iter().map(|want| candidates(context, want)).collect(),
            said_to_be_on: vip.previous().map(str::to_owned),
            interface: vip.attach(&self.config.core.node).map(|attach| attach.index()),
            refusals: refusals.chain(not_bound).collect(),
            ownership,
            bound_on: address.and_then(|a| known.bound.get(&a)).cloned().unwrap_or_default(),
            announced: address.is_some_and(|a| self.lan.schedule.is_announced(a))
                || !told_to.is_empty(),
            told_to,
            conflict: match standing {
                None => "not asked now".to_owned(),
                Some(Standing::Asking) => "asking".to_owned(),
                Some(Standing::Free) => "free".to_owned(),
                Some(Standing::Taken(mac)) => MacText(mac).to_string(),
            },
            leads_to: vip.leads_to(),
            guarded_ports: guarded,
        }
    }
}

/// Who could serve it, and whose turn is later.
fn candidates(context: Context<'_>, want: &Want) -> String {
    let Context { nodes, node: me, .. } = context;
    let reach = if want.attach.is_ok() { Reach::Good } else { Reach::None };
    let serves = serve(Ask { serving: &want.serving, nodes, lives: Lives::Unknown, me, reach });
    let later = |rank: &Rank| {
        let told = [
            (rank.emptied, "emptied"),
            (rank.leaving, "its endpoints end"),
            (rank.cordoned, "cordoned"),
        ];
        let told: Vec<&str> =
            told.into_iter().filter(|(is_so, _)| *is_so).map(|(_, told)| told).collect();
        if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
    };
    let is_everywhere = want.serving.is_everywhere();
    let named = serves.ranks.iter().filter(|(_, rank)| !is_everywhere || rank.tier() > 0);
    let named =
        named.map(|(name, rank)| format!("{name}{}", later(rank))).collect::<Vec<_>>().join(", ");
    match (is_everywhere, named.is_empty()) {
        (true, true) => "every node".to_owned(),
        (true, false) => format!("every node, last {named}"),
        (false, true) => "no node".to_owned(),
        (false, false) => named,
    }
}
