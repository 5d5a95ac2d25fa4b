//! Owns the table as text, for `nft -f`. Addresses and indices are typed before they become text; nothing in it is
//! resolved by name.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

pub(crate) const HELD4: &str = "held4";
pub(crate) const HELD6: &str = "held6";
pub(crate) const LIVE: &str = "live";

/// Of the chains at the hooks.
const PREFIX: &str = "egress_";

/// Linux and nft that know the hook.
pub(crate) const NEEDED: &str =
    "Linux 5.16 with CONFIG_NF_TABLES_NETDEV and CONFIG_NETFILTER_EGRESS, and nft 1.0.1";

/// Makes the table, or takes over the one that is there: nothing is held then, and what is covered stays covered.
///
/// `meta protocol`, since `ether type` compiles to a test of the input device here. An advertisement is known by its
/// source, since nft 1.0.6 has no name for its target: the kernel's own have the same in both.
pub(crate) fn base(table: &str) -> String {
    let mut text = format!("add table netdev {table}\n");
    for (set, kind) in [
        ("covered4", "ipv4_addr"),
        (HELD4, "ipv4_addr"),
        ("covered6", "ipv6_addr"),
        (HELD6, "ipv6_addr"),
    ] {
        let _ = writeln!(text, "add set netdev {table} {set} {{ type {kind}; }}");
    }
    let _ =
        writeln!(text, "add set netdev {table} {LIVE} {{ typeof meta oiftype; flags timeout; }}");
    let _ = writeln!(text, "flush set netdev {table} {HELD4}\nflush set netdev {table} {HELD6}");
    let _ = writeln!(text, "add chain netdev {table} guard\nflush chain netdev {table} guard");
    let arp = "arp saddr ip";
    let ip6 = "meta protocol ip6 ip6 nexthdr icmpv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 saddr";
    for (what, version) in [(arp, 4), (ip6, 6)] {
        let _ = writeln!(
            text,
            "add rule netdev {table} guard {what} @held{version} meta oiftype @{LIVE} accept"
        );
        let _ = writeln!(text, "add rule netdev {table} guard {what} @covered{version} drop");
    }
    text
}

/// Guards the interface, or finds it guarded. None if its name cannot be quoted; an asterisk would be a pattern.
pub(crate) fn guard(table: &str, interface: &str) -> Option<String> {
    if interface.chars().any(|letter| matches!(letter, '"' | '\\' | '*')) {
        return None;
    }
    let chain = chain(interface);
    let hook = format!("type filter hook egress device \"{interface}\" priority 0; policy accept;");
    Some(format!(
        "add chain netdev {table} {chain} {{ {hook} }}\n\
         flush chain netdev {table} {chain}\nadd rule netdev {table} {chain} jump guard\n"
    ))
}

/// The chain of an interface, in letters that a chain may have. It goes with the interface before Linux 6.16, and
/// waits for another of that name from then on.
pub(crate) fn chain(interface: &str) -> String {
    let digits: String = interface.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{digits}")
}

/// The interface of a chain of ours.
pub(crate) fn interface(chain: &str) -> Option<String> {
    let digits = chain.strip_prefix(PREFIX)?;
    let pairs =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
    String::from_utf8(pairs.collect::<Option<_>>()?).ok()
}

/// Leaves the interface alone.
pub(crate) fn unguard(table: &str, interface: &str) -> String {
    let chain = chain(interface);
    format!("flush chain netdev {table} {chain}\ndelete chain netdev {table} {chain}\n")
}

/// Covers `addresses`: those alone if `exactly`, else in addition to what is covered.
pub(crate) fn cover(table: &str, addresses: &BTreeSet<IpAddr>, exactly: bool) -> String {
    let mut text = String::new();
    for (set, v4) in [("covered4", true), ("covered6", false)] {
        if exactly {
            let _ = writeln!(text, "flush set netdev {table} {set}");
        }
        let some: Vec<_> = addresses
            .iter()
            .filter(|address| address.is_ipv4() == v4)
            .map(ToString::to_string)
            .collect();
        if !some.is_empty() {
            let _ = writeln!(text, "add element netdev {table} {set} {{ {} }}", some.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_exactly_empties_the_sets_in_the_same_transaction() {
        let addresses =
            BTreeSet::from(["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(
            cover("berth-fence", &addresses, true),
            "flush set netdev berth-fence covered4\n\
             add element netdev berth-fence covered4 { 192.0.2.1 }\n\
             flush set netdev berth-fence covered6\n\
             add element netdev berth-fence covered6 { 2001:db8::1 }\n"
        );
        assert_eq!(cover("berth-fence", &BTreeSet::new(), false), "");
    }

    #[test]
    fn a_name_that_cannot_be_quoted_makes_no_rule() {
        assert_eq!(guard("berth-fence", "eth*"), None);
        assert_eq!(guard("berth-fence", "a\"b"), None);
        assert!(guard("berth-fence", "eth0.5").is_some());
    }

    #[test]
    fn a_chain_tells_its_interface() {
        assert_eq!(chain("eth0.5"), "egress_657468302e35");
        assert_eq!(interface("egress_657468302e35").as_deref(), Some("eth0.5"));
        assert_eq!(interface("guard"), None);
        assert_eq!(interface("egress_6"), None);
    }
}
