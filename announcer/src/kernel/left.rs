//! What is known of addresses on a host that are not ours.

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
    /// Whether another instance of this program has bound it.
    pub anothers: bool,
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
