//! Owns the text form of addresses. Every [`Range`] that exists is non-empty and of one family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;

use crate::shown::shown;

/// An address family. `berth_api` has one too, which is spelled as Kubernetes spells it: this crate depends on nobody,
/// and that one knows nothing of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The other family.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// The address that means "ask DHCP": `0.0.0.0` or `::`.
    pub fn dhcp_marker(self) -> IpAddr {
        self.address(0)
    }

    /// The bits of an address.
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address of a number that came out of [`number`] for this family.
    pub(crate) fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from(number as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from(number)),
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

/// The address as a number, in the order of its family.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// Consecutive addresses of one family: at least one.
///
/// Reads `192.0.2.0/24` (host bits are dropped: `192.0.2.7/24` is the same), `192.0.2.10-192.0.2.20` and `192.0.2.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    family: Family,
    first: u128,
    last: u128,
}

impl Range {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// When the families differ or `last` is below `first`.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        let text = || format!("{first}-{last}");
        if Family::of(first) != Family::of(last) {
            return Err(RangeError::MixedFamilies(text()));
        }
        if last < first {
            return Err(RangeError::Reversed(text()));
        }
        Ok(Self { family: Family::of(first), first: number(first), last: number(last) })
    }

    /// Every address of the family.
    pub fn all(family: Family) -> Self {
        Self { family, first: 0, last: u128::MAX >> (128 - family.bits()) }
    }

    /// The family of every address in it.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.family.address(self.first)
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.family.address(self.last)
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family && (self.first..=self.last).contains(&number(address))
    }

    /// How many addresses it has; `::/0`, which has 2^128, counts one less.
    pub fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    pub(crate) fn from_numbers(family: Family, first: u128, last: u128) -> Self {
        debug_assert!(first <= last);
        Self { family, first, last }
    }

    pub(crate) fn numbers(&self) -> (u128, u128) {
        (self.first, self.last)
    }
}

impl From<IpAddr> for Range {
    fn from(address: IpAddr) -> Self {
        Self { family: Family::of(address), first: number(address), last: number(address) }
    }
}

impl From<IpNetwork> for Range {
    fn from(network: IpNetwork) -> Self {
        let family = Family::of(network.ip());
        let host_bits = family.bits() - u32::from(network.prefix());
        let hosts = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
        let first = number(network.ip()) & !hosts;
        Self { family, first, last: first | hosts }
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let text = text.trim();
        let unreadable = || RangeError::Unreadable(shown(text));
        let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| unreadable());
        if let Some((first, last)) = text.split_once('-') {
            Self::new(address(first)?, address(last)?)
        } else if text.contains('/') {
            text.parse::<IpNetwork>().map(Self::from).map_err(|_| unreadable())
        } else {
            address(text).map(Self::from)
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first());
        }
        let hosts = self.last - self.first;
        // A prefix is 2^n addresses starting at a multiple of 2^n.
        if hosts & hosts.wrapping_add(1) == 0 && self.first & hosts == 0 {
            return write!(f, "{}/{}", self.first(), self.family.bits() - hosts.count_ones());
        }
        write!(f, "{}-{}", self.first(), self.last())
    }
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither a prefix nor a range nor an address.
    #[error("`{0}` is neither a prefix, a first-last range nor an address")]
    Unreadable(String),
    /// The last address is below the first.
    #[error("`{0}` is reversed: its last address is below its first")]
    Reversed(String),
    /// IPv4 at one end and IPv6 at the other.
    #[error("`{0}` mixes IPv4 and IPv6")]
    MixedFamilies(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        text.parse::<Range>().unwrap().to_string()
    }

    #[test]
    fn every_notation_is_read() {
        assert_eq!(read("192.0.2.0/24"), "192.0.2.0/24");
        assert_eq!(read(" 192.0.2.10 - 192.0.2.20 "), "192.0.2.10-192.0.2.20");
        assert_eq!(read("192.0.2.7"), "192.0.2.7");
        assert_eq!(read("2001:db8::/64"), "2001:db8::/64");
        assert_eq!(read("2001:db8::1-2001:db8::2"), "2001:db8::1-2001:db8::2");
    }

    #[test]
    fn host_bits_of_a_prefix_are_dropped() {
        assert_eq!(read("192.0.2.77/24"), "192.0.2.0/24");
        assert_eq!(read("2001:db8::77/64"), "2001:db8::/64");
    }

    #[test]
    fn prefixes_reach_both_ends_of_their_family() {
        for (text, first, last) in [
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("255.255.255.255/32", "255.255.255.255", "255.255.255.255"),
            ("255.255.255.254/31", "255.255.255.254", "255.255.255.255"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            (
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ),
        ] {
            let range: Range = text.parse().unwrap();
            assert_eq!(
                (range.first().to_string(), range.last().to_string()),
                (first.into(), last.into()),
                "{text}"
            );
            assert_eq!(range.to_string(), text.trim_end_matches("/32"));
        }
    }

    #[test]
    fn sizes_count_the_addresses() {
        for (text, size) in [
            ("192.0.2.0/31", 2),
            ("192.0.2.0/32", 1),
            ("0.0.0.0/0", 1 << 32),
            ("2001:db8::/64", 1 << 64),
        ] {
            assert_eq!(text.parse::<Range>().unwrap().size(), size, "{text}");
        }
        assert_eq!("::/0".parse::<Range>().unwrap().size(), u128::MAX);
    }

    #[test]
    fn a_bad_range_says_what_is_wrong_with_it() {
        for (text, part) in [
            ("192.0.2.9-192.0.2.1", "reversed"),
            ("192.0.2.1-2001:db8::1", "mixes"),
            ("192.0.2.1/33", "neither"),
            ("192.0.2.1-", "neither"),
            ("192.0.2.1-3", "neither"),
            ("", "neither"),
            ("example.org", "neither"),
        ] {
            let error = text.parse::<Range>().unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains(&format!("`{text}`")),
                "{text}: {error}"
            );
        }
    }
}
