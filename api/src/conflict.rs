//! For which addresses another host answers: the annotation `berth.dev/conflict` of a Service, and `status.conflicts` of an
//! EipBinding. The announcer writes it together with a condition for people. Whoever may edit a Service may write the
//! annotation and not the status, so of the annotation counts what the condition names too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Service;

use crate::limits::MOST_SHOWN;
use crate::names::{annotation, condition};
use crate::service::annotated;

/// A hardware address of Ethernet.
pub type Mac = [u8; 6];

/// A hardware address as people write it: `02:00:00:00:00:0a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacText(pub Mac);

impl fmt::Display for MacText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text is no hardware address of Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("accepted are six octets in hexadecimal, with colons between them")]
pub struct NoMac;

impl FromStr for MacText {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        parse_mac(text).map(Self).ok_or(NoMac)
    }
}

/// Addresses, each with the hardware address of the host that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts(BTreeMap<IpAddr, Mac>);

impl Conflicts {
    /// What an announcer has found of a Service: the entries of its annotation whose address and hardware address both
    /// are words of the condition `berth.dev/AddressConflict`, while that is true. All else is nobody's finding.
    pub fn of_service(object: &Service) -> Self {
        let Some(text) = annotated(object, annotation::CONFLICT) else { return Self::default() };
        let conditions = object.status.as_ref().and_then(|status| status.conditions.as_deref());
        let is_ours =
            |kind: &str, status: &str| kind == condition::ADDRESS_CONFLICT && status == "True";
        let found = conditions.unwrap_or_default().iter();
        let found = found.filter(|shown| is_ours(&shown.type_, &shown.status));
        let said: Vec<Said> = found.map(|shown| Said::in_words(&shown.message)).collect();
        let is_said = |(address, mac): &(IpAddr, Mac)| {
            said.iter().any(|said| said.addresses.contains(address) && said.macs.contains(mac))
        };
        Self::parse(text).iter().filter(is_said).collect()
    }

    /// Reads the annotation: `address=hardware address`, separated by commas. What is neither is passed over: nothing
    /// follows from it. So are more than Berth ever writes.
    pub fn parse(text: &str) -> Self {
        let entry = |entry: &str| {
            let (address, mac) = entry.trim().split_once('=')?;
            Some((address.parse().ok()?, parse_mac(mac)?))
        };
        Self(text.split(',').take(MOST_SHOWN).filter_map(entry).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who has the address.
    pub fn of(&self, address: &IpAddr) -> Option<Mac> {
        self.0.get(address).copied()
    }

    /// The addresses, IPv4 first, ascending.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.keys().copied()
    }

    /// The addresses, each with who has it.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, Mac)> + '_ {
        self.0.iter().map(|(address, mac)| (*address, *mac))
    }
}

impl FromIterator<(IpAddr, Mac)> for Conflicts {
    fn from_iter<I: IntoIterator<Item = (IpAddr, Mac)>>(conflicts: I) -> Self {
        Self(conflicts.into_iter().collect())
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.iter().map(|(address, mac)| format!("{address}={}", MacText(*mac)));
        f.write_str(&entries.collect::<Vec<_>>().join(","))
    }
}

/// What a text for people names.
#[derive(Default)]
struct Said {
    addresses: BTreeSet<IpAddr>,
    macs: BTreeSet<Mac>,
}

impl Said {
    fn in_words(text: &str) -> Self {
        let mut said = Self::default();
        for word in text.split_whitespace() {
            let word = word.trim_end_matches([',', ';', '.']);
            // An address of IPv6 may end in a colon itself.
            for word in [Some(word), word.strip_suffix(':')].into_iter().flatten() {
                said.addresses.extend(word.parse::<IpAddr>().ok());
                said.macs.extend(parse_mac(word));
            }
        }
        said
    }
}

fn parse_mac(text: &str) -> Option<Mac> {
    let octet = |octet: &str| match octet.len() {
        2 => u8::from_str_radix(octet, 16).ok(),
        _ => None,
    };
    let octets: Option<Vec<u8>> = text.trim().split(':').map(octet).collect();
    octets?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(annotation: &str, kind: &str, status: &str, message: &str) -> String {
        let object = json!({
            "metadata": { "annotations": { "berth.dev/conflict": annotation } },
            "status": { "conditions": [
                { "type": "example.org/Other", "status": "True", "reason": "X", "message": "192.0.2.9 02:00:00:00:00:09",
                  "lastTransitionTime": "2026-01-01T00:00:00Z" },
                { "type": kind, "status": status, "reason": "AddressConflict", "message": message,
                  "lastTransitionTime": "2026-01-01T00:00:00Z" },
            ] },
        });
        Conflicts::of_service(&serde_json::from_value(object).unwrap()).to_string()
    }

    #[test]
    fn of_the_annotation_counts_what_the_condition_names_too() {
        const OURS: &str = "berth.dev/AddressConflict";
        let text =
            "192.0.2.1=02:00:00:00:00:0a,2001:db8::=02:00:00:00:00:0b,192.0.2.9=02:00:00:00:00:09";
        let message = "192.0.2.1 is not announced: another host, 02:00:00:00:00:0A, answers for it; \
                       2001:db8::: another host, 02:00:00:00:00:0b; it is taken.";
        let both = "192.0.2.1=02:00:00:00:00:0a,2001:db8::=02:00:00:00:00:0b";
        assert_eq!(found(text, OURS, "True", message), both);
        assert_eq!(found(text, OURS, "False", message), "");
        assert_eq!(found(text, "example.org/AddressConflict", "True", message), "");
        assert_eq!(found(text, OURS, "True", ""), "");
        // Part of a word is none, and another host is another conflict.
        for message in [
            "192.0.2.10 of 02:00:00:00:00:0a",
            "x192.0.2.1 of 02:00:00:00:00:0a",
            "192.0.2.1 of 02:00:00:00:00:0a:00",
            "192.0.2.1 of 02:00:00:00:00:0c",
        ] {
            assert_eq!(
                found("192.0.2.1=02:00:00:00:00:0a", OURS, "True", message),
                "",
                "{message}"
            );
        }
        assert_eq!(found("", OURS, "True", message), "", "the condition alone is for people");
    }

    #[test]
    fn conflicts_read_back_as_they_were_written() {
        let text = "192.0.2.1=02:00:00:00:00:0a,2001:db8::1=02:00:00:00:00:0b";
        let conflicts = Conflicts::parse(text);
        assert_eq!(conflicts.to_string(), text);
        assert_eq!(conflicts.of(&"192.0.2.1".parse().unwrap()), Some([2, 0, 0, 0, 0, 10]));
        assert_eq!(conflicts.addresses().count(), 2);
    }

    #[test]
    fn what_is_no_conflict_is_passed_over() {
        for text in ["", ",", "192.0.2.1", "192.0.2.1=", "192.0.2.1=02:00", "x=02:00:00:00:00:0a"] {
            assert!(Conflicts::parse(text).is_empty(), "{text}");
        }
        let many =
            (0..10_000_u32).map(|n| format!("{}=02:00:00:00:00:0a", IpAddr::from(n.to_be_bytes())));
        assert_eq!(Conflicts::parse(&many.collect::<Vec<_>>().join(",")).iter().count(), 16);
        let mixed = Conflicts::parse("nonsense, 192.0.2.1=02:00:00:00:00:0a");
        assert_eq!(mixed.to_string(), "192.0.2.1=02:00:00:00:00:0a");
    }
}
