//! What is the host's own, and what an announcer of before has left on it. Pure.

use std::net::IpAddr;

use super::host::{Binding, Host, is_global, single};
use super::left::{Foreign, Left};

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

    /// Whether another instance of this program on this node has bound it.
    pub fn is_anothers(&self, address: &IpAddr) -> bool {
        let mut all = self.own_interfaces().filter_map(|(_, all)| all.foreign.get(address));
        all.any(|foreign| foreign.anothers)
    }

    /// Whether this node has an address of the family of this one that is no announcer's, and is met beyond its link.
    pub fn has_besides(&self, address: &IpAddr) -> bool {
        self.foreign().any(|(other, foreign)| {
            let is_left = foreign.adoptable || foreign.anothers;
            other.is_ipv4() == address.is_ipv4() && is_global(other) && !is_left
        })
    }

    /// Addresses that we have bound, and the other interfaces on which somebody else has bound the same. What we have bound where
    /// it was left is ours by now.
    pub fn left_besides(&self) -> impl Iterator<Item = (IpAddr, String)> {
        self.own_interfaces().flat_map(move |(name, interface)| {
            let is_taken = move |address: &IpAddr| {
                self.ours.contains_key(&Binding { index: interface.index, address: *address })
            };
            let bound = interface.foreign.keys();
            let bound = bound.filter(move |address| self.has(address) && !is_taken(address));
            bound.map(|address| (*address, name.clone()))
        })
    }
}
