//! Where an address belongs on this host, and by that how the network learns of it.

use berth_api::conflict::Mac;

/// An interface on which neighbours are told where an address is, and as whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Index of the interface.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
}

/// Where an address is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attach {
    /// On an interface of a LAN: neighbours ask for it there, and are told.
    L2(Link),
    /// On an interface where nobody asks, such as the loopback interface, by its index.
    Host(u32),
}

impl Attach {
    /// Index of the interface.
    pub fn index(&self) -> u32 {
        match self {
            Self::L2(link) => link.index,
            Self::Host(index) => *index,
        }
    }

    /// The LAN, if it is on one.
    pub fn link(&self) -> Option<Link> {
        match self {
            Self::L2(link) => Some(*link),
            Self::Host(_) => None,
        }
    }
}
