//! Owns the packet sockets that hear who else has an address, two for each interface that is listened on. A node that
//! holds nothing and asks for nothing has none of them open.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::task::Poll;

use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::filter;
use super::frame::solicited_node;
use super::hearing::{self, Heard};
use super::socket;

/// Frames that are taken in together, so that a flood of them does not keep a round from anything else.
const AT_ONCE: usize = 512;

/// More than any frame of ARP or neighbour discovery that is read.
const LONGEST: usize = 2048;

/// What is listened for on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Arp,
    NeighbourDiscovery,
}

/// The sockets.
#[derive(Debug, Default)]
pub struct Listener {
    ears: BTreeMap<(u32, Kind), Ear>,
    /// Is a member of the groups in which others ask for the addresses that are asked for here.
    groups: Option<Socket>,
    joined: BTreeSet<(u32, Ipv6Addr)>,
}

#[derive(Debug)]
struct Ear {
    socket: AsyncFd<Socket>,
    addresses: BTreeSet<IpAddr>,
}

impl Listener {
    /// Listens for exactly these addresses on these interfaces from now on. Gives what went wrong: whoever is deaf on an
    /// interface hears nothing there until this is called again.
    ///
    /// To be called within a runtime.
    pub fn keep(&mut self, wanted: &BTreeMap<u32, BTreeSet<IpAddr>>) -> Vec<io::Error> {
        let mut ears: BTreeMap<(u32, Kind), BTreeSet<IpAddr>> = BTreeMap::new();
        for (index, addresses) in wanted {
            for address in addresses {
                let kind = if address.is_ipv4() { Kind::Arp } else { Kind::NeighbourDiscovery };
                ears.entry((*index, kind)).or_default().insert(*address);
            }
        }
        self.ears.retain(|place, _| ears.contains_key(place));
        let mut errors = Vec::new();
        for (place, addresses) in ears {
            match self.ears.get_mut(&place) {
                Some(ear) if ear.addresses == addresses => {}
                Some(ear) => {
                    match ear.socket.get_ref().attach_filter(&place.1.filter(&addresses)) {
                        Ok(()) => ear.addresses = addresses,
                        Err(error) => errors.push(error),
                    }
                }
                None => match open(place.0, place.1, &addresses) {
                    Ok(socket) => _ = self.ears.insert(place, Ear { socket, addresses }),
                    Err(error) => errors.push(error),
                },
            }
        }
        errors
    }

    /// Joins the groups in which others would ask for these addresses (RFC 4862 §5.4.2), and leaves all others.
    pub fn join(&mut self, asked: &BTreeSet<(u32, IpAddr)>) -> io::Result<()> {
        let groups: BTreeSet<(u32, Ipv6Addr)> = asked
            .iter()
            .filter_map(|(index, address)| match address {
                IpAddr::V6(address) => Some((*index, solicited_node(*address))),
                IpAddr::V4(_) => None,
            })
            .collect();
        if groups == self.joined {
            return Ok(());
        }
        if groups.is_empty() {
            // Its end leaves every group.
            (self.groups, self.joined) = (None, groups);
            return Ok(());
        }
        let socket = match self.groups.take() {
            Some(socket) => socket,
            None => Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?,
        };
        for (index, group) in self.joined.difference(&groups) {
            // The interface may be gone, and with it the membership.
            let _ = socket.leave_multicast_v6(group, *index);
        }
        let joined = groups
            .difference(&self.joined)
            .try_for_each(|(index, group)| socket.join_multicast_v6(group, *index));
        (self.groups, self.joined) = (Some(socket), groups);
        joined
    }

    /// Waits until something may have been heard.
    pub async fn readable(&self) {
        poll_fn(|context| {
            // An error shows when it is read. Every ear is asked, so that each can wake.
            let ready = self.ears.values().map(|ear| ear.socket.poll_read_ready(context));
            if ready.fold(false, |any, polled| any | polled.is_ready()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Passes on what was heard, with the index of the interface.
    pub fn receive(&mut self, mut take: impl FnMut(u32, Heard)) {
        let mut buffer = [0; LONGEST];
        self.ears.retain(|(index, _), ear| {
            for _ in 0..AT_ONCE {
                match ear.socket.try_io(Interest::READABLE, |mut socket| socket.read(&mut buffer)) {
                    Ok(length) => {
                        let heard = hearing::read(&buffer[..length]);
                        let heard = heard.filter(|heard| ear.addresses.contains(&heard.address));
                        heard.into_iter().for_each(|heard| take(*index, heard));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                    // The interface was switched off: told once, and it is heard again when it is on.
                    Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                    Err(_) => return false,
                }
            }
            true
        });
    }
}

impl Kind {
    fn filter(self, addresses: &BTreeSet<IpAddr>) -> Vec<SockFilter> {
        match self {
            Self::Arp => filter::arp(addresses),
            Self::NeighbourDiscovery => filter::neighbour_discovery(addresses),
        }
    }
}

fn open(index: u32, kind: Kind, addresses: &BTreeSet<IpAddr>) -> io::Result<AsyncFd<Socket>> {
    let ethertype = match kind {
        Kind::Arp => libc::ETH_P_ARP,
        Kind::NeighbourDiscovery => libc::ETH_P_IPV6,
    };
    let ethertype = u16::try_from(ethertype).map_err(io::Error::other)?;
    socket::hear(index, ethertype, &kind.filter(addresses))
}
