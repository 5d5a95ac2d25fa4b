//! Owns what kinds of fences there are.

use std::fmt;

/// Which fence holds. The order is that of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// None: an address is silent only when this process makes it so.
    Unfenced,
    /// A timeout in nftables: bounds a stalled process, silences a healthy one when the rule set is busy. Degraded.
    NftTimeout,
    /// An absolute deadline, judged for each frame.
    Bpf,
}

impl Kind {
    /// The stable name for status and metrics: `bpf`, `nft-timeout` or `unfenced`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Unfenced => "unfenced",
            Kind::NftTimeout => "nft-timeout",
            Kind::Bpf => "bpf",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
