//! Reads sets, reads, softens and deletes tracked connections.
//!
//! Message forms: linux/netfilter/ipset/ip_set.h, nfnetlink_conntrack.h.

use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::libc;
use rtnetlink::packet_core::NlasIterator;

use super::flows::Flow;
use super::sets::{Set, Sets};
use crate::kernel::netfilter::{ACKNOWLEDGE, DUMP, NESTED, Netfilter, Request, attribute, find};
use crate::vip::Family;

/// `IP_CT_TCP_FLAG_BE_LIBERAL`.
const LIBERAL: u8 = 8;

const CONNTRACK: u8 = 1;
const IPSET: u8 = 6;

/// `IPSET_PROTOCOL`, understood since Linux 4.20.
const IPSET_PROTOCOL: u8 = 7;

/// A tracked connection, and the attributes by which the kernel finds it.
pub(super) struct Tracked {
    pub(super) flow: Flow,
    /// Whether it is of TCP and held to its window.
    pub(super) strict: bool,
    family: Family,
    key: Vec<u8>,
}

/// The sets of ours that are there.
pub(super) async fn sets(netfilter: &Netfilter) -> io::Result<Sets> {
    let mut sets = Sets::new();
    for family in Family::ALL {
        for set in Set::ALL {
            let mut elements = Vec::new();
            let read = |message: &[u8]| read_elements(message, &mut elements);
            if list(netfilter, set.name(family), 0, read).await? {
                sets.insert(set.name(family), elements.into_iter().collect());
            }
        }
    }
    Ok(sets)
}

/// How many elements each of our sets has, without reading them.
pub(super) async fn sizes(netfilter: &Netfilter) -> io::Result<Vec<(&'static str, u32)>> {
    const LIST_HEADER: u32 = 1 << 2;
    let mut sizes = Vec::new();
    for family in Family::ALL {
        for set in Set::ALL {
            let mut size = 0;
            let read = |message: &[u8]| size = read_size(message).unwrap_or(size);
            if list(netfilter, set.name(family), LIST_HEADER, read).await? {
                sizes.push((set.name(family), size));
            }
        }
    }
    Ok(sizes)
}

/// Lists one set; false if there is none of this name.
async fn list(
    netfilter: &Netfilter,
    name: &str,
    flags: u32,
    each: impl FnMut(&[u8]),
) -> io::Result<bool> {
    const COMMAND_LIST: u8 = 7;
    let mut attributes = attribute(1, &[IPSET_PROTOCOL]);
    attributes.extend(attribute(2, &[name.as_bytes(), &[0]].concat()));
    if flags != 0 {
        attributes.extend(attribute(6, &flags.to_be_bytes()));
    }
    let request = Request {
        subsystem: IPSET,
        command: COMMAND_LIST,
        flags: DUMP,
        family: 0,
        attributes: &attributes,
    };
    match netfilter.ask(request, each).await {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        // The kernel has no ipset, or has not needed it yet: `ipset` will say so, or load it.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Every tracked connection that passes.
pub(super) async fn tracked(
    netfilter: &Netfilter,
    passes: impl Fn(&Flow) -> bool,
) -> io::Result<Vec<Tracked>> {
    const GET: u8 = 1;
    let mut found = Vec::new();
    for family in Family::ALL {
        let each = |message: &[u8]| {
            found.extend(read_flow(message, family).filter(|tracked| passes(&tracked.flow)));
        };
        netfilter.ask(about_tracked(GET, DUMP, family, &[]), each).await?;
    }
    Ok(found)
}

/// Lets a tracked TCP connection pass whatever its window (`nf_conntrack_tcp_be_liberal`, for this one).
pub(super) async fn soften(netfilter: &Netfilter, tracked: &Tracked) -> io::Result<()> {
    const NEW: u8 = 0;
    // As flags and mask (`struct nf_ct_tcp_flags`), for each direction: `CTA_PROTOINFO_TCP_FLAGS_ORIGINAL`,
    // `CTA_PROTOINFO_TCP_FLAGS_REPLY`.
    let flags = [4, 5].map(|kind| attribute(kind, &[LIBERAL, LIBERAL])).concat();
    // `CTA_PROTOINFO`, `CTA_PROTOINFO_TCP`.
    let information = attribute(4 | NESTED, &attribute(1 | NESTED, &flags));
    let attributes = [tracked.key.as_slice(), &information].concat();
    let request = about_tracked(NEW, ACKNOWLEDGE, tracked.family, &attributes);
    unless_gone(netfilter.ask(request, |_| {}).await)
}

/// Forgets a tracked connection. One that is gone already is forgotten.
pub(super) async fn forget(netfilter: &Netfilter, tracked: &Tracked) -> io::Result<()> {
    const DELETE: u8 = 2;
    let request = about_tracked(DELETE, ACKNOWLEDGE, tracked.family, &tracked.key);
    unless_gone(netfilter.ask(request, |_| {}).await)
}

fn about_tracked(command: u8, flags: u16, family: Family, attributes: &[u8]) -> Request<'_> {
    Request { subsystem: CONNTRACK, command, flags, family: number(family), attributes }
}

fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// `AF_INET` or `AF_INET6`.
fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// `IPSET_ATTR_DATA`, `IPSET_ATTR_ELEMENTS`.
fn read_size(message: &[u8]) -> Option<u32> {
    let elements = find(find(message, 7)?, 24)?;
    Some(u32::from_be_bytes(elements.try_into().ok()?))
}

/// `IPSET_ATTR_ADT` with an `IPSET_ATTR_DATA` for each element: `IPSET_ATTR_IP`, `IPSET_ATTR_CIDR`.
fn read_elements(message: &[u8], elements: &mut Vec<IpNetwork>) {
    let Some(all) = find(message, 8) else { return };
    for element in NlasIterator::new(all).map_while(Result::ok) {
        let ip = find(element.value(), 1);
        let ip = ip.and_then(|ip| address(find(ip, 1).or_else(|| find(ip, 2))?));
        let Some(ip) = ip else { continue };
        let length = find(element.value(), 3).and_then(|cidr| cidr.first().copied());
        elements.extend(IpNetwork::new(ip, length.unwrap_or(Family::of(&ip).bits())));
    }
}

/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_PROTOINFO`; the key adds `CTA_ID` and `CTA_ZONE`, so that it is this one and no later one.
fn read_flow(message: &[u8], family: Family) -> Option<Tracked> {
    let (original, reply) = (find(message, 1)?, find(message, 2)?);
    let side = |tuple, v4, v6| {
        let ip = find(tuple, 1)?;
        address(find(ip, if family == Family::V4 { v4 } else { v6 })?)
    };
    let flow = Flow {
        source: side(original, 1, 3)?,
        destination: side(original, 2, 4)?,
        reply_source: side(reply, 1, 3)?,
        reply_destination: side(reply, 2, 4)?,
    };
    // `CTA_TUPLE_PROTO`, `CTA_PROTO_NUM`.
    let tcp = find(original, 2).and_then(|protocol| find(protocol, 1)) == Some(&[6]);
    let liberal = |kind| {
        let flags = find(find(find(message, 4)?, 1)?, kind)?;
        Some(flags.first()? & LIBERAL != 0)
    };
    let strict = tcp && [4, 5].into_iter().any(|kind| liberal(kind) != Some(true));
    let mut key = attribute(1 | NESTED, original);
    for kind in [12, 18] {
        key.extend(find(message, kind).map(|value| attribute(kind, value)).unwrap_or_default());
    }
    Some(Tracked { flow, strict, family, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute of attributes.
    fn nest(kind: u16, within: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | NESTED, &within.concat())
    }

    fn connection() -> Vec<u8> {
        let ip = |last| nest(1, &[attribute(1, &[192, 0, 2, last]), attribute(2, &[192, 0, 2, 9])]);
        let tuple = |kind, last| nest(kind, &[ip(last), nest(2, &[attribute(1, &[6])])]);
        let flags = nest(1, &[attribute(4, &[8, 8]), attribute(5, &[0, 8])]);
        let rest = [nest(4, &[flags]), attribute(12, &[0, 0, 0, 1]), attribute(18, &[0, 1])];
        [tuple(1, 1), tuple(2, 2), rest.concat()].concat()
    }

    fn set() -> Vec<u8> {
        let ip = nest(1, &[attribute(1, &[192, 0, 2, 1])]);
        let element = nest(7, &[ip, attribute(3, &[24])]);
        let size = nest(7, &[attribute(24, &[0, 0, 0, 1])]);
        [size, nest(8, &[element])].concat()
    }

    #[test]
    fn whatever_arrives_of_connections_and_sets_is_read_or_passed_over() {
        let (connection, set) = (connection(), set());
        assert!(read_flow(&connection, Family::V4).is_some_and(|tracked| tracked.strict));
        let mut elements = Vec::new();
        read_elements(&set, &mut elements);
        assert_eq!((elements.len(), read_size(&set)), (1, Some(1)));
        berth_hostile::octets(&[connection, set], |message| {
            let _ = (Family::ALL.map(|family| read_flow(message, family)), read_size(message));
            read_elements(message, &mut Vec::new());
        });
    }
}
