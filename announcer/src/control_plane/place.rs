//! Whether the control plane's addresses have a place on this node, before anything of it is touched. Pure.
//!
//! An address that is the only one of its family would be the first, and what kubelet and CNI take for the node's own
//! (kube-vip#1385): such a node has to have one of its own. The interface may come later than the announcer when a node boots.

use berth_api::{Family, Quoted};

use crate::config::ControlPlane;
use crate::kernel::{Host, Left};

/// What keeps an address from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// The setting, its value, and what is accepted.
    pub(crate) why: String,
    /// Whether it may be gone in a moment.
    pub(crate) may_go: bool,
}

/// Everything that keeps them from this node. Where routers lead them here they are on the interface `routed`, which needs no
/// neighbours.
pub(crate) fn obstacles(own: &ControlPlane, host: &Host, routed: Option<&str>) -> Vec<Obstacle> {
    let lasts = |why: String| Obstacle { why, may_go: false };
    let passes = |why: String| Obstacle { why, may_go: true };
    let mut found = Vec::new();
    let interface = routed.or(own.interface.as_deref());
    if let Some(name) = interface {
        match host.interface(name).map(|interface| host.met(interface)) {
            None => found.push(passes(format!(
                "vip_interface={}: this node has no such interface; accepted is one of {}, or none for that of the default \
                 route",
                Quoted::of(name),
                lans(host)
            ))),
            Some((met, interface)) if interface.mac.is_none() && routed.is_none() => found.push(lasts(format!(
                "vip_interface={}: {met} has no Ethernet address, so that no neighbour can be answered there; accepted is one of \
                 {}",
                Quoted::of(name),
                lans(host)
            ))),
            Some(_) => {}
        }
    }
    for address in &own.addresses {
        if let Some(interface) = host.has_itself(address, Left::Marked) {
            found.push(lasts(format!(
                "address={address}: it is an address of this node itself, on interface {interface}; accepted is one that no \
                 host has, and what another program left there goes by: ip address del {address} dev {interface}"
            )));
        }
        if interface.is_none() && host.default_for(*address).is_none() {
            found.push(passes(format!(
                "address={address}: no interface for it: vip_interface names none, and this node has no default route; name \
                 one of {}",
                lans(host)
            )));
        }
    }
    for family in Family::ALL {
        let first = own.addresses.iter().find(|address| Family::of(address) == family);
        if let Some(address) = first.filter(|address| !host.has_besides(address)) {
            found.push(passes(format!(
                "address={address}: this node has no {family} address of its own that is met beyond its link, so that this one \
                 would be taken for it; give the node one, or leave {family} out"
            )));
        }
    }
    found
}

/// The interfaces of this node that have neighbours.
fn lans(host: &Host) -> String {
    let lans = host.interfaces.iter().filter(|(_, interface)| interface.mac.is_some());
    let mut names: Vec<&str> = lans.map(|(name, _)| name.as_str()).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    names.truncate(SHOWN);
    match names.is_empty() {
        true => "those with an Ethernet address, which it has none of".to_owned(),
        false => names.join(", ") + more,
    }
}

/// How many interfaces are named: a node with pods has a hundred.
const SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use crate::config::{Families, HealthCheck};
    use crate::kernel::Foreign;
    use crate::source::testing::two_interfaces;

    fn own(addresses: &[&str], interface: Option<&str>) -> ControlPlane {
        let second = Duration::from_secs(1);
        let health = HealthCheck {
            url: None,
            authority: None,
            period: second,
            timeout: second,
            failures: 3,
        };
        ControlPlane {
            wished: Vec::new(),
            families: Families::First,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            port: 6443,
            interface: interface.map(str::to_owned),
            lease: "plndr-cp-lock".to_owned(),
            health,
        }
    }

    fn told(own: &ControlPlane, host: &Host) -> Vec<(String, bool)> {
        obstacles(own, host, None).into_iter().map(|found| (found.why, found.may_go)).collect()
    }

    /// That each of these, and nothing else, is told.
    fn are(told: &[(String, bool)], expected: &[(&str, bool)]) {
        let is = |((why, may_go), (wanted, passes)): (&(String, bool), &(&str, bool))| {
            why.contains(wanted) && may_go == passes
        };
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        assert!(told.iter().zip(expected).all(is), "{told:#?}");
    }

    #[test]
    fn an_address_that_has_a_place_meets_with_nothing() {
        let host = two_interfaces();
        are(&told(&own(&["10.0.0.100"], Some("eth0")), &host), &[]);
        are(&told(&own(&["10.0.0.100"], None), &host), &[]);
    }

    #[test]
    fn where_routers_lead_it_here_no_neighbour_is_needed_and_what_is_the_nodes_is_told() {
        let mut host = two_interfaces();
        host.default_routes.clear();
        let lo = crate::kernel::Interface { index: 1, mac: None, up: true, foreign: [].into() };
        host.interfaces.insert("lo".to_owned(), lo);
        let told = |own: &ControlPlane, routed: &str| -> Vec<String> {
            obstacles(own, &host, Some(routed)).into_iter().map(|found| found.why).collect()
        };
        let none: [String; 0] = [];
        assert_eq!(told(&own(&["10.99.0.100"], Some("lo")), "lo"), none);
        assert_eq!(told(&own(&["10.99.0.100"], None), "lo"), none);
        let [missing] = &told(&own(&["10.99.0.100"], None), "eth9")[..] else { panic!("one") };
        assert!(missing.contains("no such interface"), "{missing}");
        let [theirs] = &told(&own(&["10.0.0.5"], None), "lo")[..] else { panic!("one") };
        assert!(theirs.contains("it is an address of this node itself"), "{theirs}");
    }

    #[test]
    fn an_interface_that_is_not_there_may_come_and_what_is_there_is_named() {
        let host = two_interfaces();
        let found = told(&own(&["10.0.0.100"], Some("eth9")), &host);
        are(&found, &[("vip_interface=\"eth9\": this node has no such interface", true)]);
        assert!(found[0].0.contains("eth0"), "{found:?}");
        let mut bare = host;
        bare.default_routes.clear();
        are(&told(&own(&["10.0.0.100"], None), &bare), &[("no default route; name one of", true)]);
    }

    #[test]
    fn everything_is_told_at_once() {
        let mut host = two_interfaces();
        let address: IpAddr = "10.0.0.100".parse().unwrap();
        let foreign = Foreign { prefix_len: 24, ..Foreign::default() };
        host.interfaces.get_mut("eth0").unwrap().foreign.insert(address, foreign);
        host.interfaces.get_mut("eth1").unwrap().mac = None;
        let wished = own(&["10.0.0.100", "2001:db8::100"], Some("eth1"));
        for interface in host.interfaces.values_mut() {
            interface.foreign.retain(|address, _| address.is_ipv4());
        }
        are(
            &told(&wished, &host),
            &[
                ("vip_interface=\"eth1\": eth1 has no Ethernet address", false),
                (
                    "address=10.0.0.100: it is an address of this node itself, on interface eth0",
                    false,
                ),
                ("address=2001:db8::100: this node has no IPv6 address of its own", true),
            ],
        );
    }

    #[test]
    fn neither_what_kube_vip_left_nor_a_link_local_address_is_one_of_the_nodes_own() {
        let mut host = two_interfaces();
        for interface in host.interfaces.values_mut() {
            interface.foreign.clear();
        }
        let left = Foreign { prefix_len: 32, adoptable: true, ..Foreign::default() };
        let eth0 = host.interfaces.get_mut("eth0").unwrap();
        eth0.foreign.insert("10.0.0.100".parse().unwrap(), left);
        eth0.foreign
            .insert("fe80::1".parse().unwrap(), Foreign { prefix_len: 64, ..Foreign::default() });
        let found = told(&own(&["10.0.0.101", "2001:db8::100"], Some("eth0")), &host);
        are(&found, &[("no IPv4 address of its own", true), ("no IPv6 address of its own", true)]);
    }
}
