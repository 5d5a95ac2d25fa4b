//! Conflict detection: which addresses have to be asked for before this node takes them into use, and what is said of
//! those that another host has (RFC 5227, RFC 4862 §5.4). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_membership::Request;

use crate::advertise::arp_nd::frame::{Mac, Mark};
use crate::advertise::arp_nd::probe::{Probes, Question};
use crate::kernel::Host;
use crate::vip::{Refusal, Traffic, Vip, Want, Wanted};

/// How long a fellow node may go on answering for an address that it hands over, and that no status names yet.
const HANDED_OVER: Duration = Duration::from_secs(1);

/// Of the addresses that this node is to take or has, those that nobody is known to have used: each with how it is asked
/// for. `is_first` tells of which it is sure that no fellow node has them.
///
/// What an object publishes is in use, and so is what the operator names once a member has had it. An owner that crashes, hands over or restarts has published it, so nothing is
/// asked then, and a takeover takes no longer.
pub(super) fn questions(
    wanted: &Wanted,
    node: &str,
    asked: &BTreeSet<IpAddr>,
    is_first: impl Fn(&IpAddr) -> bool,
) -> BTreeMap<IpAddr, Question> {
    let unused = |address: &&IpAddr| {
        let vip = wanted.vip(**address);
        vip.is_some_and(|vip| !vip.in_use() && (is_first(address) || !vip.is_of_operator()))
    };
    let question = |address: &IpAddr| {
        let vip = wanted.vip(*address)?;
        let (want, link) = (asker(vip, node)?, vip.attach(node)?.link()?);
        let is_alone = want.conflicts || is_first(address);
        let patience = if is_alone { Duration::ZERO } else { HANDED_OVER };
        Some((*address, Question { link, mark: mark(&want.uid), patience }))
    };
    asked.iter().filter(unused).filter_map(question).collect()
}

/// Of those that share an address the one that it is asked for by, on every node the same one.
fn asker<'a>(vip: &'a Vip, node: &str) -> Option<&'a Want> {
    // Nobody but the node that is named asks for an elastic IP.
    let may = |want: &&Want| match &want.serving.traffic {
        Traffic::Named(_) => want.serving.is_named(node),
        _ => true,
    };
    vip.wants.iter().filter(may).min_by_key(|want| &want.uid)
}

/// Only the nodes of this cluster know the uid.
fn mark(uid: &str) -> Mark {
    let [_, _, mark @ ..] = Request::key_of(uid).to_be_bytes();
    mark
}

/// What is said of an address that another host has.
pub(super) fn conflict(
    host: &Host,
    node: &str,
    probes: &Probes,
    address: IpAddr,
    mac: Mac,
) -> Refusal {
    let index = probes.index(&address);
    let mut interfaces = host.interfaces.iter();
    let found = interfaces.find(|(_, interface)| Some(interface.index) == index);
    let interface = found.map(|(name, _)| name.clone()).unwrap_or_default();
    Refusal::AddressConflict { address, mac, node: node.to_owned(), interface }
}

/// The elastic IPs of this node that another host has. Before this node was `granted` one, that may be a fellow node,
/// which was faster.
pub(super) fn conflicts(
    wanted: &Wanted,
    host: &Host,
    node: &str,
    probes: &Probes,
    granted: impl Fn(&IpAddr) -> bool,
) -> BTreeMap<IpAddr, Refusal> {
    let named = |want: &Want| want.serving.is_named(node);
    let mine = wanted.addressed().filter(|(_, vip)| vip.wants.iter().any(named));
    let taken = mine.filter_map(|(address, _)| {
        let mac = probes.taken(&address).filter(|_| granted(&address))?;
        Some((address, conflict(host, node, probes, address, mac)))
    });
    taken.collect()
}
