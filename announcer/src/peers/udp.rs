//! Owns the UDP sockets of the peers, one for each family. Loses datagrams under pressure, never waits to send one. What
//! strangers send is dropped here but for a little of it, and most of what is no datagram of membership in the kernel.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use berth_membership::NodeId;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::admission::Admission;
use super::filter;
use crate::vip::nodes::Peers;

/// Room for what is sent to many nodes in the same moment.
const SENT: usize = 1 << 20;

/// Room for what arrives while this node stands still for a moment, whoever sends it: some 50,000 datagrams a second for
/// 20 ms, each of which counts with the pages that it lies in. The kernel takes it twice (socket(7), `SO_RCVBUF`).
const RECEIVED: usize = 4 << 20;

/// Datagrams that are read together before anything else has its turn.
const AT_ONCE: usize = 64;

/// The sockets, bound but not used yet.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    v4: Option<std::net::UdpSocket>,
    v6: Option<std::net::UdpSocket>,
}

impl Wire {
    /// Binds `port` on every address of the network namespace of the calling thread, for what is sent to `node`. A host
    /// without IPv6 does without.
    ///
    /// # Errors
    /// When the port is taken in a family, or there is no family at all.
    pub fn bind(port: u16, node: &str) -> io::Result<Self> {
        let node = NodeId::of(node);
        let absent = |error: &io::Error| {
            let code = error.raw_os_error();
            code == Some(nix::libc::EAFNOSUPPORT) || code == Some(nix::libc::EADDRNOTAVAIL)
        };
        let open = |address| match bind(address, node) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(error),
        };
        let v4 = open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))?;
        let v6 = open(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))?;
        if v4.is_none() && v6.is_none() {
            return Err(io::Error::other("the host has neither IPv4 nor IPv6"));
        }
        Ok(Self { port, v4, v6 })
    }

    /// Hands the sockets of `node` to the runtime of the calling thread.
    pub(super) fn run(self, node: &str) -> io::Result<Running> {
        let convert =
            |socket: Option<std::net::UdpSocket>| socket.map(UdpSocket::from_std).transpose();
        let (v4, v6) = (convert(self.v4)?, convert(self.v6)?);
        Ok(Running {
            node: node.to_owned(),
            port: self.port,
            v4,
            v6,
            peers: BTreeMap::new(),
            admission: Admission::new(self.port),
            buffer: vec![0; filter::longest()],
        })
    }
}

fn bind(address: SocketAddr, node: NodeId) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Whoever may not set what it likes (CAP_NET_ADMIN) gets as much as `net.core.rmem_max` allows.
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVED)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVED))?;
    socket.set_send_buffer_size(SENT)?;
    // Before the first datagram may come.
    socket.attach_filter(&filter::for_node(node))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Who was not heard for so long may be at another of its addresses.
const SILENT: Duration = Duration::from_millis(500);

/// A peer, and where it may listen. kubelet lists whatever it finds on the node first, which may be an address that another
/// node answers for.
#[derive(Debug)]
struct Known {
    name: String,
    addresses: Vec<IpAddr>,
    /// Which of them is used.
    current: usize,
    /// When the peer was last heard from there.
    heard: Option<Instant>,
}

impl Known {
    /// It was heard from this address. Where that is none of its own (it is behind a router), what is used reaches it.
    fn hear(&mut self, from: IpAddr, now: Instant) {
        let at = self.addresses.iter().position(|address| *address == from);
        (self.current, self.heard) = (at.unwrap_or(self.current), Some(now));
    }

    fn is_heard(&self, now: Instant) -> bool {
        self.heard.is_some_and(|heard| now < heard + SILENT)
    }

    /// Where to send now: where it was heard, or else to one after the other.
    fn next(&mut self, now: Instant) -> Option<IpAddr> {
        let address = self.addresses.get(self.current).copied();
        if !self.is_heard(now) {
            self.current = (self.current + 1) % self.addresses.len().max(1);
        }
        address
    }
}

/// The sockets in use.
#[derive(Debug)]
pub(super) struct Running {
    /// This node's name.
    node: String,
    port: u16,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    peers: BTreeMap<NodeId, Known>,
    admission: Admission,
    buffer: Vec<u8>,
}

impl Running {
    /// Sends to exactly these nodes from now on, and takes what comes from them.
    pub(super) fn know(&mut self, peers: &Peers) {
        // This node sends nothing to itself: what seems to come from it another process has sent, or a host that lies.
        let others = peers.iter().filter(|(name, _)| *name != self.node);
        self.admission.know(others.map(|(name, peer)| (NodeId::of(name), &peer.addresses[..])));
        let mut before = std::mem::take(&mut self.peers);
        for (name, peer) in peers.iter() {
            let node = NodeId::of(name);
            let usable = peer.addresses.iter().filter(|address| self.socket(address).is_some());
            let addresses: Vec<IpAddr> = usable.copied().collect();
            let known = match before.remove(&node) {
                Some(known) if known.addresses == addresses => known,
                _ => Known { name: name.to_owned(), addresses, current: 0, heard: None },
            };
            self.peers.insert(node, known);
        }
    }

    /// Takes in that a node made a datagram just now that came from there.
    pub(super) fn heard(&mut self, node: NodeId, from: SocketAddr, now: Instant) {
        self.admission.heard(node, from);
        let known = self.peers.get_mut(&node);
        known.into_iter().for_each(|known| known.hear(from.ip(), now));
    }

    /// The name of a node, or its number where it has none.
    pub(super) fn name(&self, node: NodeId) -> String {
        match self.peers.get(&node) {
            Some(known) => known.name.clone(),
            // It is not among its peers before they are known, and says who votes by then.
            None if node == NodeId::of(&self.node) => self.node.clone(),
            None => node.to_string(),
        }
    }

    /// Sends a datagram, or loses it.
    pub(super) fn send(&mut self, to: NodeId, datagram: &[u8]) -> io::Result<()> {
        let unknown = || io::Error::other("no address of this node is known");
        let known = self.peers.get_mut(&to);
        let address = known.and_then(|known| known.next(Instant::now())).ok_or_else(unknown)?;
        let socket = self.socket(&address).ok_or_else(unknown)?;
        socket.try_send_to(datagram, SocketAddr::new(address, self.port)).map(drop)
    }

    /// Waits until something may have arrived.
    pub(super) async fn readable(&self) {
        tokio::select! {
            () = readable(self.v4.as_ref()) => {}
            () = readable(self.v6.as_ref()) => {}
        }
    }

    /// Passes on what has arrived of whom is looked at, and says how many other datagrams were dropped.
    pub(super) fn receive(&mut self, mut take: impl FnMut(SocketAddr, &[u8])) -> u64 {
        let (now, mut dropped) = (Instant::now(), 0);
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            for _ in 0..AT_ONCE {
                let Ok((length, from)) = socket.try_recv_from(&mut self.buffer) else { break };
                if self.admission.admits(from, now) {
                    take(from, &self.buffer[..length]);
                } else {
                    dropped += 1;
                }
            }
        }
        dropped
    }

    fn socket(&self, address: &IpAddr) -> Option<&UdpSocket> {
        if address.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }
}

async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        // An error shows when it is read.
        Some(socket) => _ = socket.readable().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use berth_membership::envelope::{KIND_AT, SHORTEST, TO_AT, VERSION_AT};
    use berth_membership::{Input, Keyring, Moment, Node, Output, Parameters, View, Voters};

    use super::*;

    #[test]
    fn a_peer_is_looked_for_at_all_its_addresses_and_sent_to_where_it_was_heard() {
        let addresses: Vec<IpAddr> =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|text| text.parse().unwrap()).into();
        let (now, name) = (Instant::now(), "b".to_owned());
        let mut peer = Known { name, addresses: addresses.clone(), current: 0, heard: None };
        let tried: Vec<_> = (0..4).filter_map(|_| peer.next(now)).collect();
        assert_eq!(tried, [addresses[0], addresses[1], addresses[2], addresses[0]]);
        peer.hear(addresses[1], now);
        peer.hear("192.0.2.9".parse().unwrap(), now);
        assert!((0..3).all(|_| peer.next(now) == Some(addresses[1])), "where it was heard");
        let later = now + SILENT;
        assert_eq!((peer.next(later), peer.next(later)), (Some(addresses[1]), Some(addresses[2])));
        peer.hear(addresses[0], later);
        assert_eq!(peer.next(later), Some(addresses[0]));
    }

    /// What `node-a` says to `node-b` first.
    fn heartbeat() -> Vec<u8> {
        let [a, b] = ["node-a", "node-b"].map(NodeId::of);
        let (now, parameters) = (Moment::from_nanos(1), Parameters::default());
        let keyring = Keyring::new("", [&[7; 32][..]]).unwrap();
        let mut node = Node::new(a, parameters, keyring, 1, now).unwrap();
        let view = View::new(1, Voters::new([a, b]).unwrap(), Vec::new()).unwrap();
        node.handle(now, Input::View(view))
            .into_iter()
            .chain(node.poll(now))
            .find_map(|output| match output {
                Output::Send { to, datagram } if to == b => Some(datagram),
                _ => None,
            })
            .expect("a heartbeat")
    }

    #[tokio::test]
    async fn the_kernel_drops_what_is_no_datagram_for_this_node() {
        let good = heartbeat();
        let with = |at: usize, octet: u8| {
            let mut bad = good.clone();
            bad[at] = octet;
            bad
        };
        let sized = |length: usize| {
            let mut sized = good.clone();
            sized.resize(length, 0);
            sized
        };
        let longest = Parameters::default().datagram;
        let refused = [
            Vec::new(),
            sized(SHORTEST - 1),
            sized(longest + 1),
            sized(60_000),
            with(1, b'm'),
            with(VERSION_AT, 0),
            with(VERSION_AT, 4),
            with(KIND_AT, 0),
            with(KIND_AT, 4),
            with(TO_AT, !good[TO_AT]),
            with(TO_AT + 7, !good[TO_AT + 7]),
        ];
        let passes =
            [good.clone(), sized(SHORTEST), sized(longest), with(VERSION_AT, 3), with(KIND_AT, 3)];
        let mut wire = Wire::bind(0, "node-b").unwrap().run("node-b").unwrap();
        for (own, socket) in [("127.0.0.1", &wire.v4), ("::1", &wire.v6)] {
            let own: IpAddr = own.parse().unwrap();
            let Some(port) = socket.as_ref().map(|socket| socket.local_addr().unwrap().port())
            else {
                continue;
            };
            let sender = std::net::UdpSocket::bind((own, 0)).unwrap();
            for datagram in refused.iter().chain(&passes) {
                sender.send_to(datagram, (own, port)).unwrap();
            }
        }
        let families = usize::from(wire.v4.is_some()) + usize::from(wire.v6.is_some());
        let mut arrived = Vec::new();
        while arrived.len() < families * passes.len() {
            wire.readable().await;
            wire.receive(|_, datagram| arrived.push(datagram.to_vec()));
        }
        assert_eq!(arrived, vec![&passes[..]; families].concat());
    }

    #[tokio::test]
    async fn of_what_strangers_send_a_little_is_passed_on_and_the_rest_is_counted() {
        let mut wire = Wire::bind(0, "node-b").unwrap().run("node-b").unwrap();
        let port = wire.v4.as_ref().expect("IPv4").local_addr().unwrap().port();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (good, sent) = (heartbeat(), 200);
        for _ in 0..sent {
            sender.send_to(&good, ("127.0.0.1", port)).unwrap();
        }
        let (mut taken, mut dropped) = (0, 0);
        while taken + dropped < sent {
            wire.readable().await;
            dropped += wire.receive(|_, _| taken += 1);
        }
        assert!(taken < sent / 2 && dropped > 0, "{taken} {dropped}");
    }

    #[tokio::test]
    async fn a_node_knows_its_own_name_before_it_knows_its_peers() {
        let wire = Wire::bind(0, "node-a").unwrap().run("node-a").unwrap();
        assert_eq!(wire.name(NodeId::of("node-a")), "node-a");
        assert_eq!(wire.name(NodeId::of("node-b")), NodeId::of("node-b").to_string());
    }
}
