//! How connections with peers are made. Octets to a peer go ahead of others (DSCP CS6, RFC 4594 §3.2), and are not held
//! back to be sent together.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use berth_bgp::config::{Distance, LONGEST_PASSWORD};
use nix::libc;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpSocket, TcpStream};

/// Network control, in the octet of the traffic class.
const CLASS: u32 = 0xc0;

/// The largest TTL: what has it was sent by a neighbour (RFC 5082 §3).
const FULL: u32 = 255;

/// `struct tcp_md5sig` of linux/tcp.h: an address of 128 octets, flags, the length of the prefix, that of the key, the index
/// of an interface, and the key.
const MD5_OCTETS: usize = 128 + 1 + 1 + 2 + 4 + LONGEST_PASSWORD;
const MD5_LENGTH_AT: usize = 130;
const MD5_KEY_AT: usize = 136;

/// Where a peer is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address and port; one of a link with the index of the interface.
    pub remote: SocketAddr,
    /// The own address.
    pub source: Option<IpAddr>,
    /// The interface that the connection is bound to.
    pub interface: Option<String>,
    /// What its octets are signed with (RFC 2385).
    pub key: Option<Key>,
    /// How far it is.
    pub distance: Distance,
    /// Whether it is of another AS: then it is a neighbour, where nothing else is said.
    pub external: bool,
}

/// A key, which nobody should find in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key of these octets: 1 to 80.
    pub fn new(octets: &[u8]) -> Option<Self> {
        (1..=LONGEST_PASSWORD).contains(&octets.len()).then(|| Self(octets.to_vec()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Target {
    /// Opens a connection. What the kernel says is passed on; how long it tries is the caller's.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let socket = Socket::new(domain(self.remote.ip()), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        if let Some(source) = self.source {
            let scope = match self.remote {
                SocketAddr::V6(remote) => remote.scope_id(),
                SocketAddr::V4(_) => 0,
            };
            let source = match source {
                IpAddr::V4(source) => SocketAddr::from((source, 0)),
                IpAddr::V6(source) => std::net::SocketAddrV6::new(source, 0, 0, scope).into(),
            };
            socket.bind(&source.into())?;
        }
        self.apply(socket.as_fd())?;
        if let Some(key) = &self.key {
            sign(socket.as_fd(), self.remote.ip(), Some(key))?;
        }
        TcpSocket::from_std_stream(socket.into()).connect(self.remote).await
    }

    /// What holds for a connection, whoever has opened it.
    pub(crate) fn apply(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let (ttl, least) = match self.distance {
            Distance::Near if self.external => (1, None),
            Distance::Near => (64, None),
            Distance::Hops(hops) => (u32::from(hops), None),
            Distance::Secured(hops) => (FULL, Some(FULL + 1 - u32::from(hops))),
        };
        let reference = SockRef::from(&socket);
        reference.set_tcp_nodelay(true)?;
        match self.remote {
            SocketAddr::V4(_) => {
                reference.set_ttl_v4(ttl)?;
                reference.set_tos_v4(CLASS)?;
                least.map_or(Ok(()), |least| {
                    number(socket, libc::IPPROTO_IP, libc::IP_MINTTL, least)
                })
            }
            SocketAddr::V6(_) => {
                reference.set_unicast_hops_v6(ttl)?;
                reference.set_tclass_v6(CLASS)?;
                least.map_or(Ok(()), |least| {
                    number(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, least)
                })
            }
        }
    }
}

/// A port that peers of one family connect to, at this address. Its answers are as from a neighbour: before there is a
/// connection a peer may take no others (RFC 5082 §3), and it is not known yet whose it is to be.
pub(crate) fn listen(address: IpAddr, port: u16) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(domain(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(FULL)?;
    } else {
        socket.set_ttl_v4(FULL)?;
    }
    socket.bind(&SocketAddr::new(address, port).into())?;
    socket.listen(64)?;
    Ok(socket.into())
}

fn domain(address: IpAddr) -> Domain {
    if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}

/// Has everything from and to a peer signed with a key; without one, not any more.
pub(crate) fn sign(socket: BorrowedFd<'_>, peer: IpAddr, key: Option<&Key>) -> io::Result<()> {
    let key = key.map_or(&[][..], |key| &key.0);
    let mut option = [0; MD5_OCTETS];
    let octets = address_octets(peer);
    option[..octets.len()].copy_from_slice(&octets);
    // The kernel has the length in the order of the host.
    let length = u16::try_from(key.len()).map_err(io::Error::other)?;
    option[MD5_LENGTH_AT..MD5_LENGTH_AT + 2].copy_from_slice(&length.to_ne_bytes());
    option[MD5_KEY_AT..MD5_KEY_AT + key.len()].copy_from_slice(key);
    match set(socket, libc::IPPROTO_TCP, TCP_MD5SIG, &option) {
        // There was none.
        Err(error) if key.is_empty() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// `struct sockaddr_in` or `struct sockaddr_in6` of an address, with port 0.
fn address_octets(address: IpAddr) -> Vec<u8> {
    let family = |family: libc::c_int| u16::try_from(family).unwrap_or_default().to_ne_bytes();
    match address {
        IpAddr::V4(address) => [&family(libc::AF_INET)[..], &[0; 2], &address.octets()].concat(),
        IpAddr::V6(address) => [&family(libc::AF_INET6)[..], &[0; 6], &address.octets()].concat(),
    }
}

/// Has a socket of ICMPv6 pass messages of this type alone (RFC 3542 §3.2).
pub(crate) fn pass_icmp(socket: BorrowedFd<'_>, kind: u8) -> io::Result<()> {
    // A bit for each type, in words of the host; what is set is not passed.
    let mut words = [u32::MAX; 8];
    words[usize::from(kind >> 5)] &= !(1 << (kind & 31));
    let octets: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    set(socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &octets)
}

/// Has the runtime tell when something has come.
pub(crate) fn readable(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, and is closed only with the registration.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// linux/icmpv6.h.
const ICMPV6_FILTER: libc::c_int = 1;

/// linux/tcp.h.
const TCP_MD5SIG: libc::c_int = 14;

fn number(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: u32,
) -> io::Result<()> {
    set(socket, level, name, &value.to_ne_bytes())
}

fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to `length` octets, which the kernel only reads; the descriptor is open while it is borrowed.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast::<libc::c_void>(),
            length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Every address of a family.
pub(crate) const EVERY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_to_nobody_and_is_no_longer_than_the_kernel_takes() {
        let key = Key::new(b"hunter2").unwrap();
        assert_eq!(format!("{key:?}"), "Key(..)");
        assert_eq!((Key::new(&[]), Key::new(&[0; 81])), (None, None));
        assert_eq!(MD5_OCTETS, 216);
    }

    #[test]
    fn a_peer_that_takes_nothing_from_afar_before_it_is_connected_is_answered() {
        for own in ["127.0.0.1", "::1"].map(|own| own.parse::<IpAddr>().unwrap()) {
            let listener = listen(own, 0).unwrap();
            let peer = Socket::new(domain(own), Type::STREAM, Some(Protocol::TCP)).unwrap();
            let (level, name) = match own {
                IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
                IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
            };
            number(peer.as_fd(), level, name, FULL).unwrap();
            let at = listener.local_addr().unwrap().into();
            peer.connect_timeout(&at, std::time::Duration::from_secs(5)).unwrap();
        }
    }
}
