//! Owns a netlink socket to netfilter: reads sets, reads and deletes tracked connections.
//!
//! Message forms: linux/netfilter/nfnetlink.h, ipset/ip_set.h, nfnetlink_conntrack.h.

use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::libc;
use rtnetlink::packet_core::{DefaultNla, Emitable, NlasIterator};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};

use super::flows::Flow;
use super::sets::{Set, Sets};
use super::state::Family;

/// `IP_CT_TCP_FLAG_BE_LIBERAL`.
const LIBERAL: u8 = 8;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u8 = 2;
const DONE: u8 = 3;

/// `struct nlmsghdr`; `struct nfgenmsg` comes behind it.
const HEADER: usize = 16;

const CONNTRACK: u8 = 1;
const IPSET: u8 = 6;

/// `IPSET_PROTOCOL`, understood since Linux 4.20.
const IPSET_PROTOCOL: u8 = 7;

/// The socket.
pub(super) struct Netfilter {
    socket: TokioSocket,
    sequence: u32,
}

/// A tracked connection, and the attributes by which the kernel finds it.
pub(super) struct Tracked {
    pub(super) flow: Flow,
    /// Whether it is of TCP and held to its window.
    pub(super) strict: bool,
    family: Family,
    key: Vec<u8>,
}

impl Netfilter {
    /// Opens a socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocols::NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The sets of ours that are there.
    pub(super) async fn sets(&mut self) -> io::Result<Sets> {
        let mut sets = Sets::new();
        for family in Family::ALL {
            for set in Set::ALL {
                let mut elements = Vec::new();
                let there =
                    self.list(set.name(family), 0, |message| read_elements(message, &mut elements));
                if there.await? {
                    sets.insert(set.name(family), elements.into_iter().collect());
                }
            }
        }
        Ok(sets)
    }

    /// How many elements each of our sets has, without reading them.
    pub(super) async fn sizes(&mut self) -> io::Result<Vec<(&'static str, u32)>> {
        const LIST_HEADER: u32 = 1 << 2;
        let mut sizes = Vec::new();
        for family in Family::ALL {
            for set in Set::ALL {
                let mut size = 0;
                let read = |message: &[u8]| size = read_size(message).unwrap_or(size);
                if self.list(set.name(family), LIST_HEADER, read).await? {
                    sizes.push((set.name(family), size));
                }
            }
        }
        Ok(sizes)
    }

    /// Lists one set; false if there is none of this name.
    async fn list(&mut self, name: &str, flags: u32, each: impl FnMut(&[u8])) -> io::Result<bool> {
        const COMMAND_LIST: u8 = 7;
        let mut attributes = attribute(1, &[IPSET_PROTOCOL]);
        attributes.extend(attribute(2, &[name.as_bytes(), &[0]].concat()));
        if flags != 0 {
            attributes.extend(attribute(6, &flags.to_be_bytes()));
        }
        match self.ask((IPSET, COMMAND_LIST), DUMP, 0, &attributes, each).await {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            // The kernel has no ipset, or has not needed it yet: `ipset` will say so, or load it.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every tracked connection that passes.
    pub(super) async fn tracked(
        &mut self,
        passes: impl Fn(&Flow) -> bool,
    ) -> io::Result<Vec<Tracked>> {
        const GET: u8 = 1;
        let mut found = Vec::new();
        for family in Family::ALL {
            let each = |message: &[u8]| {
                found.extend(read_flow(message, family).filter(|tracked| passes(&tracked.flow)));
            };
            self.ask((CONNTRACK, GET), DUMP, family.number(), &[], each).await?;
        }
        Ok(found)
    }

    /// Lets a tracked TCP connection pass whatever its window (`nf_conntrack_tcp_be_liberal`, for this one).
    pub(super) async fn soften(&mut self, tracked: &Tracked) -> io::Result<()> {
        const NEW: u8 = 0;
        const NESTED: u16 = 1 << 15;
        // As flags and mask (`struct nf_ct_tcp_flags`), for each direction: `CTA_PROTOINFO_TCP_FLAGS_ORIGINAL`,
        // `CTA_PROTOINFO_TCP_FLAGS_REPLY`.
        let flags = [4, 5].map(|kind| attribute(kind, &[LIBERAL, LIBERAL])).concat();
        // `CTA_PROTOINFO`, `CTA_PROTOINFO_TCP`.
        let information = attribute(4 | NESTED, &attribute(1 | NESTED, &flags));
        let (family, what) = (tracked.family.number(), (CONNTRACK, NEW));
        let attributes = [tracked.key.as_slice(), &information].concat();
        match self.ask(what, ACKNOWLEDGE, family, &attributes, |_| {}).await {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Forgets a tracked connection. One that is gone already is forgotten.
    pub(super) async fn forget(&mut self, tracked: &Tracked) -> io::Result<()> {
        const DELETE: u8 = 2;
        let (family, what) = (tracked.family.number(), (CONNTRACK, DELETE));
        match self.ask(what, ACKNOWLEDGE, family, &tracked.key, |_| {}).await {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Sends a request, hands on the attributes of each answer, and waits for the end of them.
    async fn ask(
        &mut self,
        (subsystem, command): (u8, u8),
        flags: u16,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + 4 + attributes.len()).unwrap_or(u32::MAX);
        let mut request = length.to_ne_bytes().to_vec();
        request.extend([command, subsystem]);
        request.extend((REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend([family, 0, 0, 0]);
        request.extend(attributes);
        self.socket.send_to(&request, &SocketAddr::new(0, 0)).await?;
        loop {
            let (datagram, _) = self.socket.recv_from_full().await?;
            // Others are the end of a request that was given up before.
            let ours = |message: &Message<'_>| message.sequence == self.sequence;
            for message in messages(&datagram).filter(ours) {
                match (message.subsystem, message.command) {
                    (0, DONE) => return Ok(()),
                    (0, ERROR) => return acknowledged(message.payload),
                    _ => each(message.attributes()),
                }
            }
        }
    }
}

/// One message: to or from netfilter, or about the request itself where the subsystem is 0.
pub(super) struct Message<'a> {
    pub(super) subsystem: u8,
    pub(super) command: u8,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// What comes after `struct nfgenmsg`.
    pub(super) fn attributes(&self) -> &'a [u8] {
        self.payload.get(4..).unwrap_or_default()
    }
}

impl Family {
    /// `AF_INET` or `AF_INET6`.
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// The code in an acknowledgement.
fn acknowledged(payload: &[u8]) -> io::Result<()> {
    match word(payload, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("a netlink acknowledgement without a code")),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// The value of the first attribute of a kind.
pub(super) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    let found = all.find(|attribute| attribute.kind() == kind)?;
    let (length, bytes) = (usize::from(found.length()), found.into_inner());
    bytes.get(4..length)
}

/// The messages of a datagram.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = word(rest, 0).and_then(|length| rest.get(..length as usize))?;
        let [_, _, _, _, command, subsystem, ..] = *message else { return None };
        rest = rest.get(message.len().next_multiple_of(4)..).unwrap_or_default();
        let (payload, sequence) = (message.get(HEADER..)?, word(message, 8)?);
        Some(Message { subsystem, command, sequence, payload })
    })
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
    const NESTED: u16 = 1 << 15;
    let mut key = attribute(1 | NESTED, original);
    for kind in [12, 18] {
        key.extend(find(message, kind).map(|value| attribute(kind, value)).unwrap_or_default());
    }
    Some(Tracked { flow, strict, family, key })
}
