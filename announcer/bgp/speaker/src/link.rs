//! Who the router on a link is, for peers that have no address but that of the link: it says so itself, by router advertisements
//! (RFC 4861), and is asked to. This node tells its own address in the same way, as one that routes nothing (§4.2: a lifetime
//! of 0), for a router that knows whom it may speak to by theirs, as FRR does.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt::Ipv6RecvHopLimit,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::socket::{pass_icmp, readable};

/// How long a router may take that is asked: half a second, and three between two answers (RFC 4861 §10).
const PATIENCE: Duration = Duration::from_secs(4);

/// How long others are waited for after the first.
const SETTLING: Duration = Duration::from_millis(200);

/// More than so many are not told apart: whoever is on the link may say so of any number.
const MOST: usize = 4;

const SOLICITATION: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];
const ADVERTISES: u8 = 134;
const ADVERTISEMENT: [u8; 16] = [ADVERTISES, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The one router on the link of an interface, at this port.
///
/// # Errors
/// Where there is no such interface, where no router tells of itself there in time, or more than one.
pub async fn router_on(interface: &str, port: u16) -> io::Result<SocketAddr> {
    let unknown = |error| io::Error::other(format!("interface {interface}: {error}"));
    let index = if_nametoindex(interface).map_err(unknown)?;
    let socket = open(interface).map_err(|error| unknown_errno(interface, &error))?;
    for (message, to) in [(&SOLICITATION[..], ALL_ROUTERS), (&ADVERTISEMENT, ALL_NODES)] {
        let to = SocketAddrV6::new(to, 0, 0, index);
        socket.send_to(message, &to.into()).map_err(|error| unknown_errno(interface, &error))?;
    }
    let socket = readable(OwnedFd::from(socket))?;
    // Who routes nothing may be a node like this one, and is the router where nobody else is: FRR may tell of itself like that.
    let (mut routers, mut others) = (BTreeSet::new(), BTreeSet::new());
    let mut until = Instant::now() + PATIENCE;
    while routers.len() < MOST
        && let Ok(heard) = timeout_at(until, hear(&socket)).await
    {
        let (router, routes) = heard?;
        if routes {
            until = until.min(Instant::now() + SETTLING);
            routers.insert(router);
        } else if others.len() < MOST {
            others.insert(router);
        }
    }
    let routers = if routers.is_empty() { others } else { routers };
    let names: Vec<String> = routers.iter().map(ToString::to_string).collect();
    match routers.into_iter().collect::<Vec<_>>()[..] {
        [router] => Ok(SocketAddrV6::new(router, port, 0, index).into()),
        [] => Err(io::Error::other(format!(
            "no router on the link of {interface} has told of itself within {} s by a router advertisement; accepted is one that \
             does, or its address",
            PATIENCE.as_secs()
        ))),
        _ => Err(io::Error::other(format!(
            "several routers are on the link of {interface}: {}; accepted is one, or the address of one",
            names.join(", ")
        ))),
    }
}

fn unknown_errno(interface: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("asking for the router on the link of {interface}: {error}"))
}

fn open(interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
    pass_icmp(socket.as_fd(), ADVERTISES)?;
    Ok(socket)
}

/// Who tells of itself, and whether it routes (RFC 4861 §4.2: a lifetime that is not 0).
async fn hear(socket: &AsyncFd<OwnedFd>) -> io::Result<(Ipv6Addr, bool)> {
    loop {
        let mut ready = socket.readable().await?;
        // What would block has been read by now.
        let Ok(received) = ready.try_io(|socket| receive(socket.as_raw_fd())) else { continue };
        if let Some(router) = received? {
            return Ok(router);
        }
    }
}

/// The sender of what has come, where that is a router on this link (RFC 4861 §6.1.2).
fn receive(socket: std::os::fd::RawFd) -> io::Result<Option<(Ipv6Addr, bool)>> {
    let (mut octets, mut control) = ([0; 1500], nix::cmsg_space!(libc::c_int));
    let mut parts = [IoSliceMut::new(&mut octets)];
    let message =
        recvmsg::<SockaddrIn6>(socket, &mut parts, Some(&mut control), MsgFlags::empty())?;
    let hops = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6HopLimit(hops) => Some(hops),
        _ => None,
    });
    let (from, length) = (message.address.map(|from| from.ip()), message.bytes);
    let is_whole = length >= ADVERTISEMENT.len() && hops == Some(255);
    let is_one = is_whole && octets[..2] == ADVERTISEMENT[..2];
    let routes = octets[6..8] != [0, 0];
    let router = from.filter(|from| is_one && from.is_unicast_link_local());
    Ok(router.map(|router| (router, routes)))
}
