//! The lab's address plan, as pure values.
//!
//! Every lab uses the same addresses: labs live in namespaces of their own, so they never meet.
//! Only the veth into the host's namespace differs, by [`Slot`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

/// Most nodes a lab can have: each owns one byte of the plan.
pub const MAX_NODES: usize = 200;

/// The cluster's pod networks, IPv4 first, as `--cluster-cidr` takes them.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16,fd00:244::/48";
/// The cluster's Service networks, IPv4 first, as `--service-cluster-ip-range` takes them.
pub const SERVICE_CIDR: &str = "10.96.0.0/16,fd00:96::/112";
/// The ClusterIPs of `default/kubernetes`.
pub const KUBERNETES_SERVICE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 1)),
];

/// An address of a "third party" behind the router: on its loopback, reached by the default route.
pub const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// One of the two links every node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Net {
    /// `eth0`: nodes, client and router; carries Service traffic, ARP and ND, and the default route.
    Lan,
    /// `eth1`: nodes and control plane; carries traffic with the API server and nothing else.
    Api,
}

impl Net {
    /// The interface's name in a node.
    pub fn interface(self) -> &'static str {
        match self {
            Net::Lan => "eth0",
            Net::Api => "eth1",
        }
    }

    /// The bridge's name in the fabric namespace.
    pub fn bridge(self) -> &'static str {
        match self {
            Net::Lan => "lan",
            Net::Api => "api",
        }
    }

    /// The IPv4 network.
    pub fn v4(self) -> Ipv4Network {
        let address = match self {
            Net::Lan => Ipv4Addr::new(10, 0, 0, 0),
            Net::Api => Ipv4Addr::new(10, 1, 0, 0),
        };
        Ipv4Network::new_checked(address, 16).unwrap_or(Ipv4Network::from(address))
    }

    /// The IPv6 network.
    pub fn v6(self) -> Ipv6Network {
        let address = match self {
            Net::Lan => Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0),
            Net::Api => Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, 0),
        };
        Ipv6Network::new_checked(address, 64).unwrap_or(Ipv6Network::from(address))
    }

    /// The `n`th host of the network, in both families.
    pub fn host(self, n: u16) -> DualStack {
        let v4 = u32::from(self.v4().network()) + u32::from(n);
        let v6 = u128::from(self.v6().network()) + u128::from(n);
        DualStack { v4: v4.into(), v6: v6.into() }
    }
}

/// A hardware address.
pub type Mac = [u8; 6];

/// The hardware address of the `n`th host on a network: the lab sets them, so that a frame names its sender.
pub fn mac(net: Net, n: u16) -> Mac {
    let [high, low] = n.to_be_bytes();
    // Locally administered (IEEE 802), "be" for Berth.
    [0x02, 0xbe, 0, u8::from(net == Net::Api), high, low]
}

/// A hardware address as `ip` writes it.
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// One host's pair of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DualStack {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl DualStack {
    /// Both, IPv4 first.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// The control plane's number on the API network.
pub const CONTROL_PLANE_HOST: u16 = 1;
/// The router's number on the LAN.
pub const ROUTER_HOST: u16 = 1;
/// The client's number on the LAN.
pub const CLIENT_HOST: u16 = 2;

/// The control plane on the API network.
pub fn control_plane() -> DualStack {
    Net::Api.host(CONTROL_PLANE_HOST)
}

/// The router on the LAN: everyone's default route.
pub fn router() -> DualStack {
    Net::Lan.host(ROUTER_HOST)
}

/// The client on the LAN.
pub fn client() -> DualStack {
    Net::Lan.host(CLIENT_HOST)
}

/// A node's number on both networks.
pub fn node_host(index: usize) -> u16 {
    11 + index.min(MAX_NODES) as u16
}

/// Free LAN addresses for a test's pools: nothing in the lab uses them.
/// `n` counts from 0 to 16,383; consecutive numbers are consecutive addresses.
pub fn free(n: u16) -> DualStack {
    Net::Lan.host(0x4000 + n % 0x4000)
}

/// Everything the plan says about one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    /// `eth0`; also the node's `InternalIP`s.
    pub lan: DualStack,
    /// `eth1`.
    pub api: DualStack,
    /// The node's pod network.
    pub pods4: Ipv4Network,
    /// The node's pod network.
    pub pods6: Ipv6Network,
}

impl NodeAddresses {
    /// The addresses of node `index`.
    pub fn new(index: usize) -> Self {
        let byte = index.min(MAX_NODES) as u8;
        let pods4 = Ipv4Addr::new(10, 244, byte, 0);
        let pods6 = Ipv6Addr::new(0xfd00, 0x244, 0, u16::from(byte), 0, 0, 0, 0);
        Self {
            lan: Net::Lan.host(node_host(index)),
            api: Net::Api.host(node_host(index)),
            pods4: Ipv4Network::new_checked(pods4, 24).unwrap_or(Ipv4Network::from(pods4)),
            pods6: Ipv6Network::new_checked(pods6, 64).unwrap_or(Ipv6Network::from(pods6)),
        }
    }

    /// The address of the pod bridge, which is the pods' gateway: the first of the pod network.
    pub fn pod_gateway(&self) -> DualStack {
        DualStack {
            v4: (u32::from(self.pods4.network()) + 1).into(),
            v6: (u128::from(self.pods6.network()) + 1).into(),
        }
    }

    /// `spec.podCIDRs`, IPv4 first.
    pub fn pod_cidrs(&self) -> [IpNetwork; 2] {
        [self.pods4.into(), self.pods6.into()]
    }
}

/// Which pair of addresses joins the host's namespace with the control plane's.
/// The veth's name is unique in the host's namespace, so creating it is what claims the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot(pub u8);

impl Slot {
    /// The veth's name in the host's namespace.
    pub fn interface(self) -> String {
        format!("berthlab{}", self.0)
    }

    /// The host's end, out of 198.18.0.0/15 which is reserved for tests (RFC 2544).
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0, 1)
    }

    /// The control plane's end.
    pub fn control_plane(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_client_router_and_free_addresses_are_distinct_and_on_the_lan() {
        let mut seen = vec![router(), client(), free(0), free(0x3fff)];
        seen.extend((0..MAX_NODES).map(|n| NodeAddresses::new(n).lan));
        for (i, a) in seen.iter().enumerate() {
            assert!(Net::Lan.v4().contains(a.v4) && Net::Lan.v6().contains(a.v6), "{a:?}");
            assert!(
                !seen[..i].iter().any(|b| b.v4 == a.v4 || b.v6 == a.v6),
                "{a:?} is given twice"
            );
        }
    }

    #[test]
    fn a_node_has_its_own_pod_network_with_a_gateway() {
        let node = NodeAddresses::new(3);
        assert_eq!(node.pod_cidrs().map(|c| c.to_string()), ["10.244.3.0/24", "fd00:244:0:3::/64"]);
        assert_eq!(
            node.pod_gateway().both().map(|a| a.to_string()),
            ["10.244.3.1", "fd00:244:0:3::1"]
        );
    }
}
