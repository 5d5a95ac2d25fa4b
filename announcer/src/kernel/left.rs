//! What is the host's own, and what an announcer of before has left on it. Pure.

use std::net::IpAddr;

use super::host::{Host, is_global, single};

/// An address on the host that is not ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Length of its prefix.
    pub prefix_len: u8,
    /// Whether it looks like what an announcer has left: it serves one address only, and is either kube-vip's or deprecated
    /// as ours are, and no other instance of this program has tagged it.
    pub adoptable: bool,
    /// Whether nothing says whose it is: it serves one address only, and nobody has tagged it.
    pub untagged: bool,
}

/// What is known of an address that an announcer of before may have left on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// None has.
    Never,
    /// One may have, where it looks so.
    Marked,
    /// Somebody announced it before there were claims: also what nobody has tagged is that announcer's.
    Surely,
}

impl Host {
    /// The interface on which this node has `address` for itself. What an announcer of before may have left (`left`) is
    /// its own only where it is alone: a node has at least one address that is.
    pub fn has_itself(&self, address: &IpAddr, left: Left) -> Option<&str> {
        let is_left = |foreign: &Foreign| self.is_left(address, foreign, left);
        let mut interfaces = self.own_interfaces();
        let found =
            interfaces.find(|(_, all)| all.foreign.get(address).is_some_and(|f| !is_left(f)));
        found.map(|(name, _)| name.as_str())
    }

    /// Whether an address that is not ours is what an announcer of before has left.
    pub fn is_left(&self, address: &IpAddr, foreign: &Foreign, left: Left) -> bool {
        match left {
            Left::Never => false,
            Left::Marked => foreign.adoptable && self.has_besides(address),
            Left::Surely if foreign.adoptable => self.has_besides(address),
            // It may be as well how the node itself is reached, where no other address of it has a subnet.
            Left::Surely => foreign.untagged && self.has_subnet_besides(address),
        }
    }

    /// Whether this node has another address of this family, one with a subnet.
    fn has_subnet_besides(&self, address: &IpAddr) -> bool {
        self.foreign().any(|(other, foreign)| {
            let of_family = other.is_ipv4() == address.is_ipv4() && other != address;
            of_family && is_global(other) && foreign.prefix_len < single(other)
        })
    }

    /// Whether this node is reached by this address: it has it with a subnet, which no copy of a VIP has.
    pub fn is_reached_by(&self, address: &IpAddr) -> bool {
        let mut all = self.interfaces.values().filter_map(|all| all.foreign.get(address));
        all.any(|foreign| foreign.prefix_len < single(address))
    }

    /// Whether this node has an address of this family that is no announcer's.
    fn has_besides(&self, address: &IpAddr) -> bool {
        self.foreign().any(|(other, foreign)| {
            other.is_ipv4() == address.is_ipv4() && is_global(other) && !foreign.adoptable
        })
    }

    /// Addresses that we have bound, and the other interfaces on which somebody else has bound the same.
    pub fn left_besides(&self) -> impl Iterator<Item = (IpAddr, String)> {
        self.own_interfaces().flat_map(|(name, interface)| {
            let bound = interface.foreign.keys().filter(|address| self.has(address));
            bound.map(|address| (*address, name.clone()))
        })
    }
}
