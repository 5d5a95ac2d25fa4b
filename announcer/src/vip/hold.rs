//! Until when this node may answer for what.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

/// An address that this node may have bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// It may have it until then.
    pub until: Instant,
    /// Whether it may answer for it: not before the fence lets it.
    pub answers: bool,
    /// When the fence is to silence it whatever becomes of this process; nothing where whoever decides tells the fence.
    pub lapses: Option<Instant>,
}

/// By address, what this node may have bound.
pub type Holds = BTreeMap<IpAddr, Hold>;
