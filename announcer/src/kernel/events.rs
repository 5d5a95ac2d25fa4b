//! Owns a netlink socket that hears of changes to links, addresses and filters. May lose what changed, never that
//! something did.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};
use tokio::sync::mpsc;

/// Multicast groups of `rtnetlink(7)`, as bits: links, traffic control, IPv4 addresses, IPv6 addresses, IPv4 and IPv6
/// routes.
const GROUPS: u32 = 1 | 1 << 3 | 1 << 4 | 1 << 8 | 1 << 6 | 1 << 10;

/// Room for a storm of changes; what does not fit is told as [`Change::Anything`].
const RECEIVE_BUFFER: usize = 1 << 20;

/// Something changed in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link came, went, or changed.
    Link(u32),
    /// An address of the interface with this index came or went.
    Address(u32, Option<IpAddr>),
    /// A queueing discipline or a filter went: the fence may have gone with it.
    Filter,
    /// A default route came or went.
    DefaultRoute,
    /// Anything may have changed: the kernel had more to tell than there was room for.
    Anything,
}

/// Hears of changes in the network namespace of the calling thread, until the receiver is dropped.
pub fn watch() -> io::Result<mpsc::UnboundedReceiver<Change>> {
    let mut socket = TokioSocket::new(protocols::NETLINK_ROUTE)?;
    socket.socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while !send.is_closed() {
            let changes = match socket.recv_from_full().await {
                Ok((datagram, _)) => changes(&datagram),
                // ENOBUFS: the kernel dropped messages. Whatever else it is, a fresh look is never wrong.
                Err(error) => {
                    tracing::debug!(%error, "netlink events overran");
                    vec![Change::Anything]
                }
            };
            for change in changes {
                if send.send(change).is_err() {
                    return;
                }
            }
        }
    });
    Ok(receive)
}

/// The changes that one datagram tells of.
fn changes(datagram: &[u8]) -> Vec<Change> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            // Newer than the library: it may be about anything.
            found.push(Change::Anything);
            break;
        };
        let length = (message.header.length as usize).next_multiple_of(4).clamp(1, rest.len());
        rest = &rest[length..];
        if let NetlinkPayload::InnerMessage(inner) = message.payload {
            found.extend(change(&inner));
        }
    }
    found
}

fn change(message: &RouteNetlinkMessage) -> Option<Change> {
    use RouteNetlinkMessage::{
        DelAddress, DelLink, DelQueueDiscipline, DelRoute, DelTrafficChain, DelTrafficFilter,
        NewAddress, NewLink, NewRoute,
    };
    match message {
        NewLink(link) | DelLink(link) => Some(Change::Link(link.header.index)),
        NewAddress(address) | DelAddress(address) => {
            Some(Change::Address(address.header.index, own(address)))
        }
        DelQueueDiscipline(_) | DelTrafficFilter(_) | DelTrafficChain(_) => Some(Change::Filter),
        NewRoute(route) | DelRoute(route) if route.header.destination_prefix_length == 0 => {
            Some(Change::DefaultRoute)
        }
        _ => None,
    }
}

/// The address itself; on a point-to-point link that is the local one.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
