//! What the log says of peers. Whoever a session ends for, or begins for, is named with why.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use berth_bgp::config::{Peer, Remote};
use berth_bgp::{Agreed, Family, Role};

use super::peers::Terms;

/// What was last said to be wrong with each source of peers: it is said once, and that it is mended.
#[derive(Default)]
pub(super) struct Alarms(BTreeMap<&'static str, Vec<String>>);

impl Alarms {
    /// Says what is wrong with a source, where that is news.
    pub(super) fn see(&mut self, of: &'static str, flaws: &[String]) {
        let before = self.0.entry(of).or_default();
        if before == flaws {
            return;
        }
        match flaws.is_empty() {
            true => tracing::info!(of, "nothing is wrong with it any more"),
            false => tracing::warn!(of, "it is wrong: {}", flaws.join("; ")),
        }
        before.clear();
        before.extend_from_slice(flaws);
    }
}

/// The families of which a peer is told nothing though that is wanted, each with why.
pub(super) fn untold(agreed: &Agreed) -> BTreeMap<Family, &'static str> {
    let hopless = agreed.without_next_hop.iter().map(|family| (*family, HOPLESS));
    hopless.chain(agreed.refused.iter().map(|family| (*family, REFUSED))).collect()
}

const HOPLESS: &str = "no next hop of it is had at this end of the session: accepted is nextHop of the peer, mpbgp_nexthop=fixed, or an \
                       address of it on the interface of the session";
const REFUSED: &str = "the peer does not speak it";

/// Where a peer is.
pub(super) fn at(peer: &Peer) -> String {
    let Peer { port, .. } = peer;
    match &peer.remote {
        Remote::Address(address) => format!("{address} port {port}"),
        Remote::Interface(interface) => format!("the router on {interface}, port {port}"),
    }
}

/// That a session is to be: of whom with whom, and who connects.
pub(super) fn begins(peer: &Peer, remote: SocketAddr, router_id: Ipv4Addr, local_as: u32) {
    let who = match peer.role {
        Role::Active => "connecting to the peer",
        Role::Passive => "waiting for the peer to connect",
        Role::Both => "connecting to the peer, which may do so as well",
    };
    let from = peer.source.as_ref().map_or("any".to_owned(), IpAddr::to_string);
    tracing::info!(peer = %peer.name, %remote, from, %router_id, local_as, "{who}");
}

/// Those of `before` that are named no more, or otherwise. Where none is left that is an alarm: what the whole cluster announces
/// may be gone.
pub(super) fn changes<'a>(
    before: impl Iterator<Item = &'a Terms>,
    after: &BTreeMap<String, Terms>,
) {
    for terms in before {
        let peer = &terms.peer.name;
        match after.get(peer) {
            Some(now) if now == terms => {}
            Some(_) => tracing::info!(peer, "what is said of it has changed"),
            None if after.is_empty() => tracing::warn!(
                peer,
                "neither settings nor ConfigMap berth-bgp nor annotations name it for this node any more, nor any other: \
                 no router is told of anything"
            ),
            None => tracing::info!(
                peer,
                "neither settings nor ConfigMap berth-bgp nor annotations name it for this node any more: its session ends"
            ),
        }
    }
}
