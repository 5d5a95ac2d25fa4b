//! Owns what nodes are called in messages and decisions.

use std::fmt;

use sha2::{Digest, Sha256};

/// A node, by the first eight octets of its name's SHA-256, so that a message does not carry names of 253 octets.
///
/// The order of ids decides where nodes are otherwise equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The id of the node with this name.
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        Self(digest[..8].iter().fold(0, |bits, octet| (bits << 8) | u64::from(*octet)))
    }

    /// The id as it stands in a message.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The id as it stands in a message.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
