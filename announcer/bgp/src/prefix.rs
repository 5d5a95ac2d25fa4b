//! Families of addresses and prefixes. A `Prefix` that exists has no bits behind its length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A family of addresses, of which unicast alone is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 unicast.
    V4,
    /// IPv6 unicast.
    V6,
}

impl Family {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Its number with IANA (RFC 4760 §3).
    pub(crate) const fn afi(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    pub(crate) fn from_afi(afi: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.afi() == afi)
    }

    /// Bits of an address.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of this length that `address` is in; nothing where an address has no such length.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        (length <= Family::of(address).bits())
            .then(|| Self { address: mask(address, length), length })
    }

    /// The prefix of one address alone.
    pub const fn host(address: IpAddr) -> Self {
        Self { address, length: Family::of(address).bits() }
    }

    /// The prefix of at most this length that it is in.
    #[must_use]
    pub fn widened(self, length: u8) -> Self {
        let length = length.min(self.length);
        Self { address: mask(self.address, length), length }
    }

    /// Its first address.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits are the same.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Its family.
    pub const fn family(self) -> Family {
        Family::of(self.address)
    }

    /// Appends it as BGP writes it (RFC 4271 §4.3): the length, and as many octets as have bits of it.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        let octets = usize::from(self.length).div_ceil(8);
        out.push(self.length);
        match self.address {
            IpAddr::V4(address) => out.extend(&address.octets()[..octets]),
            IpAddr::V6(address) => out.extend(&address.octets()[..octets]),
        }
    }

    /// How many octets that takes.
    pub(crate) fn octets(self) -> usize {
        1 + usize::from(self.length).div_ceil(8)
    }
}

fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & kept).into()
        }
        IpAddr::V6(address) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & kept).into()
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "accepted is a prefix such as 192.0.2.0/24 or 2001:db8::/64, with no bits behind its length"
)]
pub struct PrefixError;

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').ok_or(PrefixError)?;
        let address = address.parse().map_err(|_| PrefixError)?;
        let prefix = Self::new(address, length.parse().map_err(|_| PrefixError)?);
        prefix.filter(|prefix| prefix.address == address).ok_or(PrefixError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_no_bits_behind_its_length() {
        let prefix = |text: &str| text.parse::<Prefix>();
        assert_eq!(prefix("192.0.2.0/24").unwrap().to_string(), "192.0.2.0/24");
        assert_eq!(prefix("0.0.0.0/0").unwrap().octets(), 1);
        assert_eq!(prefix("::/0").unwrap().to_string(), "::/0");
        for wrong in
            ["192.0.2.1/24", "192.0.2.0/33", "2001:db8::/129", "192.0.2.1", "x/8", "1.1.1.1/-1"]
        {
            assert_eq!(prefix(wrong), Err(PrefixError), "{wrong}");
        }
        let host = Prefix::host("192.0.2.77".parse().unwrap());
        assert_eq!(host.widened(26).to_string(), "192.0.2.64/26");
        assert_eq!(host.widened(40), host);
        assert_eq!(
            Prefix::new("2001:db8::1".parse().unwrap(), 64).unwrap().to_string(),
            "2001:db8::/64"
        );
    }

    #[test]
    fn a_prefix_is_written_in_as_few_octets_as_have_bits_of_it() {
        let written = |text: &str| {
            let mut out = Vec::new();
            let prefix: Prefix = text.parse().unwrap();
            prefix.put(&mut out);
            assert_eq!(out.len(), prefix.octets());
            out
        };
        assert_eq!(written("192.0.2.128/25"), [25, 192, 0, 2, 128]);
        assert_eq!(written("10.0.0.0/8"), [8, 10]);
        assert_eq!(written("::/0"), [0]);
        assert_eq!(written("2001:db8::/32"), [32, 0x20, 0x01, 0x0d, 0xb8]);
    }
}
