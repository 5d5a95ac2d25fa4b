//! What is to be in the kernel: which addresses, where, and until when. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use berth_runtime::http::Health;

use crate::advertise::arp_nd::probe::{Probes, Standing};
use crate::kernel::{Guarded, Port, Vlan};
use crate::source::watch::ENDPOINT_SLICES;
use crate::vip::{Attach, Hold, Holds, Name, Refusal, Verdict, Vip, Voice, Wanted};

/// What this node should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Desired {
    /// The addresses to have bound.
    pub(super) addresses: BTreeMap<IpAddr, Place>,
    /// The ports of every Service in the cluster: guarded before an address comes here. Doubted is what is held.
    pub(super) guard: Guarded,
    /// What becomes of each Service that this node decides on.
    pub(super) verdicts: BTreeMap<Name, Verdict>,
    /// The VLAN interfaces that Services need here, by name, whoever owns their addresses: a takeover waits for none.
    pub(super) vlans: BTreeMap<String, Vlan>,
}

/// Where an address is held, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The interface.
    pub(super) attach: Attach,
    /// This node may have it until then.
    pub(super) until: Instant,
    /// Whether this node may answer for it: not before the fence lets it.
    pub(super) answers: bool,
    /// The ports that are to be guarded before it is bound.
    pub(super) ports: BTreeSet<Port>,
}

impl Desired {
    /// What `holds` asks for on `node`, of what is wanted. An address waits until it may be taken into use, and until it is
    /// `ready`: bound before it is translated, the node itself would answer, and reset connections that are a VM's.
    pub(super) fn of(
        wanted: &Wanted,
        node: &str,
        holds: &Holds,
        probes: &Probes,
        ready: impl Fn(IpAddr, &Vip) -> bool,
    ) -> Self {
        let place = |(address, hold): (&IpAddr, &Hold)| {
            let vip = wanted.vip(*address)?;
            let attach = vip.attach(node)?;
            let may = probes.allows(address) && ready(*address, vip);
            let place =
                Place { attach, until: hold.until, answers: hold.answers, ports: vip.ports() };
            may.then_some((*address, place))
        };
        let addresses: BTreeMap<IpAddr, Place> = holds.iter().filter_map(place).collect();
        let mut guard = wanted.guarded();
        // Where an address is not local nobody takes it by the number of a port, and what pods here ask of it is led by a
        // kube-proxy that may know more of endpoints than this does.
        guard.doubted.retain(|address, _| addresses.contains_key(address));
        Self { addresses, guard, ..Self::default() }
    }

    /// Doubts nothing where nothing is heard of EndpointSlices, or they are not shown (`denied`): kube-proxy may hear of them
    /// all the same, and lead to some that are not known here.
    pub(super) fn hear(&mut self, health: &Health, denied: bool, now: Instant) {
        if denied || health.unready_checks(now).iter().any(|(check, _)| *check == ENDPOINT_SLICES) {
            self.guard.doubted.clear();
        }
    }

    /// Before everything was shown nothing is said to be missing, and no status is decided on: an endpoint, or a claim, may
    /// only be unseen.
    pub(super) fn forget_what_is_not_seen(&mut self) {
        for verdict in self.verdicts.values_mut() {
            verdict.refusals.retain(|refusal| refusal.conflict().is_some());
            verdict.voice = Voice::Bystander;
            verdict.shared = None;
        }
    }

    /// Takes in what becomes of Services: what is asked for and not known to be free is not announced yet, and what
    /// another host has is refused, in the words of `conflict`.
    pub(super) fn judge(
        &mut self,
        verdicts: BTreeMap<Name, Verdict>,
        probes: &Probes,
        conflict: impl Fn(IpAddr, [u8; 6]) -> Refusal,
    ) {
        for (name, mut verdict) in verdicts {
            let mut announce = std::mem::take(&mut verdict.announce);
            announce.retain(|address| match probes.standing(address) {
                Some(Standing::Taken(mac)) => {
                    verdict.refuse_at(*address, conflict(*address, mac));
                    false
                }
                Some(Standing::Asking) => {
                    verdict.asked.insert(*address);
                    true
                }
                Some(Standing::Free) | None => true,
            });
            verdict.announce = announce;
            self.verdicts.insert(name, verdict);
        }
    }
}
