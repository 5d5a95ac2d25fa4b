//! The addresses that are routers', and those by which routers know nodes: nobody's to have. Who is led to the address of a router
//! has its session, and so all that it is told. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_bgp::config::{Hops, Peer, Remote, RouterId, Speaker};

use crate::kernel::is_global;

/// Addresses that are routers', or by which they know nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfRouters {
    /// What each of them is, whichever node speaks to it.
    pub all: BTreeMap<IpAddr, String>,
    /// Those of routers that this node speaks to.
    pub own: BTreeSet<IpAddr>,
}

impl OfRouters {
    /// Those of `all` peers, of which `own` are this node's, as the speaker of this node is set up.
    pub(super) fn of<'a>(
        all: impl Iterator<Item = &'a Peer>,
        own: impl Iterator<Item = &'a Peer>,
        speaker: &Speaker,
    ) -> Self {
        let mut found = Self::default();
        if let RouterId::Is(id) = speaker.router_id {
            found.note(IpAddr::V4(id), "the router id".to_owned(), true);
        }
        own.for_each(|peer| found.add(peer, true));
        all.for_each(|peer| found.add(peer, false));
        found
    }

    fn add(&mut self, peer: &Peer, is_own: bool) {
        let name = &peer.name;
        if let Remote::Address(address) = peer.remote {
            self.note(address, format!("peer {name} of BGP"), is_own);
        }
        if let Hops::Fixed { v4, v6 } = peer.hops {
            let hops = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
            hops.for_each(|hop| self.note(hop, format!("the next hop for peer {name}"), is_own));
        }
        if let Some(source) = peer.source {
            self.note(source, format!("the source of the session with peer {name}"), is_own);
        }
    }

    /// One of a link is of no use to anybody else.
    fn note(&mut self, address: IpAddr, what: String, is_own: bool) {
        if !is_global(&address) {
            return;
        }
        self.all.entry(address).or_insert(what);
        if is_own {
            self.own.insert(address);
        }
    }
}
