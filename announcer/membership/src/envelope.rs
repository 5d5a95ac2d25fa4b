//! What every datagram looks like from outside, for whoever drops all else before a node sees it.

/// What each begins with.
pub const MAGIC: [u8; 2] = *b"BM";

/// Where its version stands, an octet.
pub const VERSION_AT: usize = 2;

/// The versions there are, from the first to the last.
pub const VERSIONS: (u8, u8) = (1, 3);

/// Where its kind stands, an octet: heartbeat, ack, hand.
pub const KIND_AT: usize = 3;

/// The kinds there are, from the first to the last.
pub const KINDS: (u8, u8) = (1, 3);

/// Where it says for whom it is: the [`bits`](crate::NodeId::bits) of a node, big-endian. In front stands of whom.
pub const TO_AT: usize = 12;

/// Octets of the tag at its end.
pub(crate) const TAG: usize = 32;

/// The fewest octets of one: a hand without an address. The most are [`Parameters::datagram`](crate::Parameters::datagram).
pub const SHORTEST: usize = TO_AT + 8 + 3 + TAG;
