//! Which host a process runs on, so that two with one name are told apart.

use std::fmt;

use k8s_openapi::api::coordination::v1::Lease;

use crate::conflict::{Mac, MacText};
use crate::names::annotation;

/// A host, by two marks: its network since it was booted, and the hardware address by which it serves. A process that is
/// started anew finds both, one after a reboot the second, and no other host has either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostId {
    /// Of this boot and this network namespace; has no comma.
    pub network: String,
    /// Where its addresses are to be, if it has that already.
    pub mac: Option<Mac>,
}

impl HostId {
    /// Whether both are of one host.
    pub fn is_same_host(&self, other: &Self) -> bool {
        self.network == other.network || self.mac.is_some() && self.mac == other.mac
    }

    /// Writes it on the Lease of the node.
    pub fn write(&self, lease: &mut Lease) {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::HOST_ID.to_owned(), self.to_string());
    }

    /// Who wrote the Lease last; `None` if that is not told.
    pub fn read(lease: &Lease) -> Option<Self> {
        let text = lease.metadata.annotations.as_ref()?.get(annotation::HOST_ID)?;
        let (network, mac) = text.split_once(',').unwrap_or((text, ""));
        Some(Self { network: network.to_owned(), mac: mac.parse().ok().map(|MacText(mac)| mac) })
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.network)?;
        self.mac.map_or(Ok(()), |mac| write!(f, ",{}", MacText(mac)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_either_mark_and_read_as_it_was_written() {
        let id = |network: &str, last: Option<u8>| HostId {
            network: network.to_owned(),
            mac: last.map(|last| [2, 0, 0, 0, 0, last]),
        };
        let mut lease = Lease::default();
        assert_eq!(HostId::read(&lease), None);
        for written in [id("boot/1", Some(1)), id("boot/1", None)] {
            written.write(&mut lease);
            assert_eq!(HostId::read(&lease), Some(written));
        }
        let host = id("boot/1", Some(1));
        assert!(host.is_same_host(&id("boot/1", None)), "before the interface is there");
        assert!(host.is_same_host(&id("later/1", Some(1))), "after a reboot");
        assert!(!host.is_same_host(&id("boot/2", Some(2))), "another network on one kernel");
        assert!(!id("boot/1", None).is_same_host(&id("boot/2", None)), "nothing is no mark");
    }
}
