//! Reads and writes `kube-vip.io/loadbalancerIPs`. Reading never fails: what is no address is kept as it was written,
//! so that one bad entry costs nobody else an address.

use std::fmt::Write;
use std::net::IpAddr;

use crate::limits::LONGEST_LIST;

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An address; `0.0.0.0` and `::` stand for one that DHCP finds.
    Address(IpAddr),
    /// A host name (RFC 1123), which announcers may resolve and allocation passes over.
    Hostname(String),
    /// Anything else.
    Unreadable(String),
}

/// The list of an annotation, or of `spec.loadBalancerIP`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    entries: Vec<Entry>,
    left_out: usize,
}

/// The entries at the beginning of a list, as far as they fit into [`LONGEST_LIST`] octets, and how many do not. Whoever
/// keeps a list as it is written keeps that.
pub fn beginning(text: &str) -> (&str, usize) {
    let text = text.trim();
    if text.len() <= LONGEST_LIST {
        return (text, 0);
    }
    // What follows a comma there is whole, and so is what ends before it.
    let end = text.as_bytes()[..=LONGEST_LIST].iter().rposition(|octet| *octet == b',');
    let (kept, rest) = text.split_at(end.unwrap_or(0));
    (kept, parts(rest).count())
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

impl List {
    /// Reads a comma list. Spaces and empty entries are passed over, and what is over [`LONGEST_LIST`] is counted.
    pub fn parse(text: &str) -> Self {
        let (kept, left_out) = beginning(text);
        Self { entries: parts(kept).map(Entry::parse).collect(), left_out }
    }

    /// How many entries were too many to be read.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The addresses among them, in the order written.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Address(address) => Some(*address),
            _ => None,
        })
    }

    /// The entries that are neither address nor host name.
    pub fn unreadable(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Unreadable(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.left_out == 0
    }
}

impl Entry {
    fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(address) => Self::Address(address),
            Err(_) if is_hostname(text) => Self::Hostname(text.to_owned()),
            Err(_) => Self::Unreadable(text.to_owned()),
        }
    }
}

/// RFC 1123 §2.1: letters, digits, hyphens and dots; the last label is not all digits, or it would be an address.
fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..64).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() < 254
        && text.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Writes the list for an annotation.
pub fn format(addresses: impl IntoIterator<Item = IpAddr>) -> String {
    let mut text = String::new();
    for address in addresses {
        if !text.is_empty() {
            text.push(',');
        }
        // Writing into a String does not fail.
        _ = write!(text, "{address}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_and_empty_entries_are_passed_over() {
        let list = List::parse(" 192.0.2.1 ,, 2001:DB8::1,");
        let addresses: Vec<_> = list.addresses().map(|address| address.to_string()).collect();
        assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
    }

    #[test]
    fn what_is_no_address_is_kept_and_hides_no_other() {
        let list = List::parse("192.0.2.300,web.example.org,192.0.2.1,2001:db8::g, 192.0.2.0/24");
        assert_eq!(list.addresses().count(), 1);
        assert_eq!(
            list.unreadable().collect::<Vec<_>>(),
            ["192.0.2.300", "2001:db8::g", "192.0.2.0/24"]
        );
        assert_eq!(list.entries[1], Entry::Hostname("web.example.org".to_owned()));
    }

    #[test]
    fn of_a_list_that_is_too_long_the_entries_that_fit_are_read_and_the_others_are_counted() {
        let many = vec!["192.0.2.1"; 20_000].join(", ");
        let list = List::parse(&many);
        assert_eq!((list.addresses().count(), list.left_out()), (93, 19_907));
        let (kept, left_out) = beginning(&many);
        assert_eq!((List::parse(kept).addresses().count(), left_out), (93, 19_907));
        let list = List::parse(&"ä".repeat(100_000));
        assert_eq!((list.addresses().count(), list.left_out(), list.is_empty()), (0, 1, false));
    }

    #[test]
    fn a_list_is_written_as_it_is_read() {
        let text = "192.0.2.1,2001:db8::1";
        assert_eq!(format(List::parse(text).addresses()), text);
        assert_eq!(format([]), "");
    }
}
