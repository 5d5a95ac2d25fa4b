//! What is the node's own, and what it tells of that. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::host::{MOST, Told};

use super::cluster::Claims;
use crate::kernel::{Binding, Foreign, Host, Interface, Left, is_global};

/// What this node tells of itself: its own addresses, the hardware addresses by which it answers, and its routers. What an announcer of before has left is not told
/// where somebody holds it, or where that is not known yet.
pub fn told(host: &Host, claims: &Claims) -> Told {
    let may_be_taken_over = |address: &IpAddr| claims.unknown().is_some() || claims.are_of(address);
    let is_left = |address: &IpAddr, foreign: &Foreign| {
        foreign.adoptable && may_be_taken_over(address)
            || claims.left(address) == Left::Surely && host.is_left(address, foreign, Left::Surely)
    };
    let own = host.foreign();
    let own = own.filter(|(address, foreign)| is_global(address) && !is_left(address, foreign));
    let addresses: BTreeMap<IpAddr, u8> =
        own.map(|(address, foreign)| (*address, foreign.prefix_len)).collect();
    let gateways = host.gateways.values().flatten().copied();
    let mut gateways: BTreeSet<IpAddr> = gateways.filter(is_global).collect();
    // Those of default routes first: no more are told than so many.
    let room = MOST.saturating_sub(gateways.len());
    let others = host.next_hops.iter().filter(|hop| is_global(hop) && !gateways.contains(*hop));
    let others: Vec<IpAddr> = others.copied().take(room).collect();
    gateways.extend(others);
    let answers = |interface: &Interface| {
        let binds = |binding: &Binding| binding.index == interface.index;
        interface.foreign.keys().any(is_global) || host.ours.keys().any(binds)
    };
    let macs = host.own_interfaces().filter(|(_, interface)| answers(interface));
    let macs = macs.filter_map(|(_, interface)| interface.mac).collect();
    Told { addresses, gateways, macs, ..Told::default() }
}

#[cfg(test)]
mod tests {
    use berth_api::claim::{ClaimPolicy, Holder};

    use super::*;
    use crate::kernel::Lifetime;
    use crate::source::testing::{MAC, two_interfaces};

    #[test]
    fn a_node_tells_the_hardware_addresses_by_which_it_answers() {
        let mut host = two_interfaces();
        let bare = |index, mac| Interface { index, mac: Some(mac), up: true, foreign: [].into() };
        let (eth4, veth5) = (bare(4, [4; 6]), bare(5, [5; 6]));
        host.interfaces.extend([("eth4".to_owned(), eth4), ("veth5".to_owned(), veth5)]);
        let macs = |host: &Host| told(host, &Claims::new(ClaimPolicy::Required)).macs;
        assert_eq!(macs(&host), [MAC].into());
        let (index, address) = (4, "203.0.113.1".parse().unwrap());
        host.ours.insert(Binding { index, address }, Lifetime::Forever);
        assert_eq!(macs(&host), [MAC, [4; 6]].into(), "a VIP is all it has");
    }

    #[test]
    fn a_node_tells_every_address_of_its_interfaces_and_its_routers() {
        let mut host = two_interfaces();
        host.gateways.insert(2, ["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()].into());
        let single = |adoptable| Foreign { prefix_len: 32, adoptable, ..Foreign::default() };
        let eth1 = host.interfaces.get_mut("eth1").unwrap();
        eth1.foreign.insert("192.0.2.9".parse().unwrap(), single(true));
        let of = |address: &str| [(address.parse().unwrap(), single(false))].into();
        let lo = Interface { index: 1, mac: None, up: true, foreign: of("203.0.113.1") };
        let ipvs = Interface { index: 7, mac: None, up: false, foreign: of("192.0.2.77") };
        host.interfaces.extend([("lo".to_owned(), lo), ("kube-ipvs0".to_owned(), ipvs)]);

        let mut claims = Claims::new(ClaimPolicy::Required);
        claims.listed(&BTreeSet::new());
        let shown = |claims: &Claims| {
            let told = told(&host, claims);
            let addresses = told.addresses.iter().map(|(own, length)| format!("{own}/{length}"));
            (addresses.collect::<Vec<_>>().join(" "), told.gateways)
        };
        let (addresses, gateways) = shown(&claims);
        assert_eq!(addresses, "10.0.0.5/24 192.0.2.5/24 192.0.2.9/32 203.0.113.1/32");
        assert_eq!(gateways, ["10.0.0.1".parse().unwrap()].into());
        claims.apply("192.0.2.9", vec![Holder::alone("web")], true);
        claims.apply("192.0.2.5", vec![Holder::alone("other")], true);
        let (addresses, _) = shown(&claims);
        assert_eq!(addresses, "10.0.0.5/24 192.0.2.5/24 203.0.113.1/32");
        let lo = host.interfaces.get_mut("lo").unwrap();
        lo.foreign.values_mut().for_each(|left| left.untagged = true);
        let shown = |claims: &Claims| told(&host, claims).addresses.len();
        claims.apply("203.0.113.1", vec![Holder::alone("old")], false);
        assert_eq!(shown(&claims), 3);
        claims.apply("203.0.113.1", vec![Holder::alone("old")], true);
        assert_eq!(shown(&claims), 2, "kube-vip has left it, and it is a VIP");
        host.next_hops =
            (0..300u32).map(|n| IpAddr::from((0x0900_0000 + n).to_be_bytes())).collect();
        let gateways = told(&host, &Claims::new(ClaimPolicy::Required)).gateways;
        assert_eq!(gateways.len(), MOST);
        assert!(gateways.contains(&"10.0.0.1".parse().unwrap()), "its default route before all");
        assert!(gateways.contains(&"9.0.0.7".parse().unwrap()), "the next hop of another one");
    }
}
