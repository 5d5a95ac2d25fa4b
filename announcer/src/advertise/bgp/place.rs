//! Where a peer is from here: addresses of this host that sessions and routes go by, as they are when a session begins.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use berth_bgp::RemoteAs;
use berth_bgp::config::{Peer, Remote, RouterId};
use berth_bgp_speaker::{Find, Target, router_on};
use berth_membership::Request;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::passwords::{Secrets, key};

/// The addresses of this host, by the names of interfaces, each with its mask.
type Addresses = Vec<(String, IpAddr, Option<IpAddr>)>;

/// The addresses of this host, by the names of interfaces, in their order.
pub(super) fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let ip = |socket: SockaddrStorage| {
        let v4 = socket.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
        v4.or_else(|| socket.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip())))
    };
    let all = getifaddrs()?.filter_map(|entry| {
        Some((entry.interface_name, entry.address.and_then(ip)?, entry.netmask.and_then(ip)))
    });
    Ok(in_order(all.collect()))
}

/// By the names of interfaces; of one those first that come with a subnet. What has none may be another announcer's, as that
/// of the control plane, and goes to another node some day.
fn in_order(mut all: Addresses) -> Vec<(String, IpAddr)> {
    let is_single = |mask: &Option<IpAddr>| match mask {
        Some(IpAddr::V4(mask)) => mask.to_bits() == u32::MAX,
        Some(IpAddr::V6(mask)) => mask.to_bits() == u128::MAX,
        None => false,
    };
    all.sort_by(|(on, own, mask), (other, another, theirs)| {
        (on, is_single(mask), own).cmp(&(other, is_single(theirs), another))
    });
    all.into_iter().map(|(on, own, _)| (on, own)).collect()
}

/// The BGP Identifier of this node; nothing while the interface that is named has no address. `own` is the interface of the
/// node, `vips` what is not its own.
pub(super) fn router_id(
    id: &RouterId,
    node: &str,
    own: Option<&str>,
    vips: &BTreeSet<IpAddr>,
) -> Result<Ipv4Addr, String> {
    let of = |name: &str| -> Result<Option<Ipv4Addr>, String> {
        let all =
            addresses().map_err(|error| format!("reading the addresses of this host: {error}"))?;
        Ok(first_v4(&all, name, vips))
    };
    match id {
        RouterId::Is(id) => Ok(*id),
        RouterId::Of(name) => of(name)?.ok_or_else(|| {
            format!("waiting for an IPv4 address of interface {name}, which is to be the router id")
        }),
        RouterId::Found => match own.map(of).transpose()?.flatten() {
            Some(own) => Ok(own),
            // A host of IPv6 alone: as good as any, so long as no two nodes have the same (RFC 6286).
            None => Ok(Ipv4Addr::from((Request::key_of(node) >> 32) as u32 | 1)),
        },
    }
}

/// The first IPv4 address of an interface that is this node's alone: what leads back to the host itself every node has
/// (RFC 6286 §2.1).
fn first_v4(all: &[(String, IpAddr)], name: &str, vips: &BTreeSet<IpAddr>) -> Option<Ipv4Addr> {
    let own = all.iter().filter(|(on, own)| on == name && !vips.contains(own));
    let mut own = own.filter_map(|(_, own)| match own {
        IpAddr::V4(own) => Some(*own),
        IpAddr::V6(_) => None,
    });
    own.find(|own| !own.is_loopback() && !own.is_link_local())
}

/// How a peer is reached, looked at anew for each attempt.
pub(super) fn find(peer: Peer, local_as: u32, secrets: Secrets) -> Find {
    let all = Arc::new((peer, secrets));
    Arc::new(move || {
        let all = all.clone();
        Box::pin(async move { target(&all.0, local_as, &all.1).await.map_err(io::Error::other) })
    })
}

/// How a peer is reached now.
pub(super) async fn target(
    peer: &Peer,
    local_as: u32,
    secrets: &Secrets,
) -> Result<Target, String> {
    let (remote, interface) = match &peer.remote {
        Remote::Address(address) => (SocketAddr::new(*address, peer.port), peer.interface.clone()),
        Remote::Interface(interface) => {
            let found = router_on(interface, peer.port).await;
            (found.map_err(|error| error.to_string())?, Some(interface.clone()))
        }
    };
    let key = match &peer.password {
        None => None,
        Some(password) => Some(key(password, secrets).await?),
    };
    let external = is_external(peer, local_as);
    Ok(Target { remote, source: peer.source, interface, key, distance: peer.distance, external })
}

/// Whether a peer is of another AS than this node is towards it.
pub(super) fn is_external(peer: &Peer, local_as: u32) -> bool {
    match peer.remote_as {
        RemoteAs::Is(asn) => asn != local_as,
        RemoteAs::Internal => false,
        RemoteAs::External => true,
    }
}

/// A number that no other session has.
pub(super) fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_without_a_subnet_is_how_a_node_is_known_only_where_it_has_nothing_else() {
        let of = |on: &str, own: &str, mask: &str| {
            (on.to_owned(), own.parse().unwrap(), mask.parse().ok())
        };
        let all = vec![
            of("lo", "127.0.0.1", "255.0.0.0"),
            of("eth1", "198.51.100.1", "255.255.255.255"),
            of("eth0", "192.0.2.9", "255.255.255.255"),
            of("eth0", "2001:db8::9", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            of("eth0", "192.0.2.100", "255.255.255.0"),
            of("eth0", "2001:db8::100", "ffff:ffff:ffff:ffff::"),
        ];
        let told: Vec<String> =
            in_order(all).iter().map(|(on, own)| format!("{on} {own}")).collect();
        assert_eq!(
            told,
            [
                "eth0 192.0.2.100",
                "eth0 2001:db8::100",
                "eth0 192.0.2.9",
                "eth0 2001:db8::9",
                "eth1 198.51.100.1",
                "lo 127.0.0.1",
            ]
        );
    }

    #[test]
    fn what_every_node_has_is_no_nodes_identifier() {
        let of = |on: &str, own: &str| (on.to_owned(), own.parse().unwrap());
        let mut all = vec![of("eth0", "169.254.1.1"), of("eth0", "fd00::1"), of("lo", "127.0.0.1")];
        let vips = BTreeSet::from(["192.0.2.77".parse().unwrap()]);
        let first = |all: &[_], name| first_v4(all, name, &vips).map(|own| own.to_string());
        assert_eq!((first(&all, "lo"), first(&all, "eth0")), (None, None));
        all.extend([of("lo", "192.0.2.77"), of("lo", "10.0.0.11"), of("eth0", "192.0.2.11")]);
        assert_eq!(first(&all, "lo").as_deref(), Some("10.0.0.11"));
        assert_eq!(first(&all, "eth0").as_deref(), Some("192.0.2.11"));
    }
}
