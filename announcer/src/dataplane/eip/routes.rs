//! Policy rules and the route table, as values: what VMs with an elastic IP send to the outside leaves by the
//! interface of these addresses, wherever the node's own default route leads. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::state::Nat;
use crate::vip::Family;

/// The preference of each policy rule (docs/contract.md).
pub(super) const PREFERENCE: u32 = 1001;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Via {
    /// Nowhere: the next policy rule decides.
    Throw,
    /// Onto the interface with this index.
    Link(u32),
    /// To a gateway on it.
    Gateway(IpAddr, u32),
}

/// Routes of our table, by destination.
pub(super) type Routes = BTreeMap<IpNetwork, Via>;

/// The interface of the elastic IPs of each family.
pub(super) type Uplinks = BTreeMap<Family, Uplink>;

/// An interface of elastic IPs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uplink {
    pub(super) index: u32,
    /// The networks that are on it.
    pub(super) connected: BTreeSet<IpNetwork>,
    /// The gateways of its default routes, by the family of what they take: one with an IPv6 address may take IPv4.
    pub(super) gateways: BTreeMap<Family, IpAddr>,
}

/// The VMs that have a policy rule.
pub(super) fn rules(nat: &Nat) -> BTreeSet<IpAddr> {
    Family::ALL.into_iter().flat_map(|family| nat.sources(family).into_keys()).collect()
}

/// Routes for them: what is inside is left to the node's other rules, the neighbours of the uplink are met directly, and
/// the rest goes to the gateway. Without an uplink all is left to the node.
pub(super) fn routes(nat: &Nat, uplinks: &Uplinks) -> Routes {
    let mut routes = Routes::new();
    for family in Family::ALL.into_iter().filter(|family| nat.of(*family).next().is_some()) {
        let of_family = |address: &&IpAddr| Family::of(address) == family;
        if let Some(uplink) = uplinks.get(&family) {
            let gateway = nat.gateways.iter().find(of_family);
            if let Some(gateway) = gateway.or_else(|| uplink.gateways.get(&family)) {
                let any = match family {
                    Family::V4 => "0.0.0.0/0",
                    Family::V6 => "::/0",
                };
                routes.extend(any.parse().map(|any| (any, Via::Gateway(*gateway, uplink.index))));
                let connected = uplink.connected.iter();
                let connected = connected.filter(|network| Family::of(&network.ip()) == family);
                routes.extend(connected.map(|network| (*network, Via::Link(uplink.index))));
            }
        }
        routes.extend(nat.internal_of(family).map(|network| (*network, Via::Throw)));
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::super::state::testing::nat;
    use super::*;

    fn uplink() -> Uplink {
        Uplink {
            index: 2,
            connected: ["192.0.2.0/24", "2001:db8::/64"].map(|n| n.parse().unwrap()).into(),
            gateways: [(Family::V4, "192.0.2.254"), (Family::V6, "fe80::1")]
                .map(|(family, gateway)| (family, gateway.parse().unwrap()))
                .into(),
        }
    }

    fn shown(nat: &Nat, uplink: Option<Uplink>) -> Vec<String> {
        let of = |family| Some((family, uplink.clone()?));
        by(nat, &Family::ALL.into_iter().filter_map(of).collect())
    }

    fn by(nat: &Nat, uplinks: &Uplinks) -> Vec<String> {
        let routes = routes(nat, uplinks);
        routes.iter().map(|(network, via)| format!("{network} {via:?}")).collect()
    }

    #[test]
    fn what_is_inside_is_left_to_the_node_and_the_rest_goes_to_the_gateway() {
        let nat = nat(&[("192.0.2.1", "10.244.0.4")]);
        assert_eq!(
            shown(&nat, Some(uplink())),
            [
                "0.0.0.0/0 Gateway(192.0.2.254, 2)",
                "10.96.0.0/12 Throw",
                "10.244.0.0/16 Throw",
                "192.0.2.0/24 Link(2)",
            ]
        );
        assert_eq!(shown(&nat, None), ["10.96.0.0/12 Throw", "10.244.0.0/16 Throw"]);
        let mut named = nat.clone();
        named.gateways.insert("192.0.2.7".parse().unwrap());
        assert_eq!(shown(&named, Some(uplink()))[0], "0.0.0.0/0 Gateway(192.0.2.7, 2)");
    }

    #[test]
    fn each_machine_has_one_rule_and_no_family_more_than_it_needs() {
        let nat = nat(&[("192.0.2.1", "10.244.0.4"), ("2001:db8::1", "fd00:244::4")]);
        assert_eq!(rules(&nat).len(), 2);
        assert!(shown(&nat, Some(uplink())).contains(&"::/0 Gateway(fe80::1, 2)".to_owned()));
        let other = Uplink { index: 3, ..uplink() };
        let apart = by(&nat, &[(Family::V4, uplink()), (Family::V6, other)].into());
        for route in ["0.0.0.0/0 Gateway(192.0.2.254, 2)", "::/0 Gateway(fe80::1, 3)"] {
            assert!(apart.contains(&route.to_owned()), "{apart:?}");
        }
        assert!(shown(&Nat { pairs: [].into(), ..nat }, Some(uplink())).is_empty());
    }
}
