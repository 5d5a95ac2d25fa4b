//! What a node tells of the routers that it tells where addresses are (RFC 4724).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::names::annotation;

/// The most routers that one node may tell, and the most addresses.
const MOST: usize = 256;

/// The longest name of a router that is told.
const LONGEST: usize = 64;

/// The longest that routers may keep an address, whatever is told: RFC 4724 has 4095 s for a restart, and RFC 4271 65535 s
/// for a silence, which nobody waits for.
const MOST_KEPT: Duration = Duration::from_secs(2 * 4095);

/// What a node tells of routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routers {
    /// The sessions that are up and have been told everything, and those that were up in an earlier life and are waited for.
    pub sessions: BTreeSet<String>,
    /// For how long routers may lead addresses to this node although nothing is heard of it any more. Whole seconds.
    pub keeps: Duration,
    /// The addresses of routers, and those by which they know nodes: next hops and router ids. They are nobody's to ask for.
    pub addresses: BTreeSet<IpAddr>,
}

impl Routers {
    /// Writes what is told. A name that is too long, or has a comma in it, is left out.
    pub(super) fn write(told: Option<&Self>, annotations: &mut BTreeMap<String, String>) {
        let Some(Self { sessions, keeps, addresses }) = told else {
            for name in [annotation::BGP_SESSIONS, annotation::BGP_KEEPS, annotation::BGP_ADDRESSES]
            {
                annotations.remove(name);
            }
            return;
        };
        let fits = |name: &&str| name.len() <= LONGEST && !name.contains(',') && !name.is_empty();
        let names = sessions.iter().map(String::as_str).filter(fits).take(MOST);
        let names = names.collect::<Vec<_>>().join(",");
        annotations.insert(annotation::BGP_SESSIONS.to_owned(), names);
        annotations.insert(annotation::BGP_KEEPS.to_owned(), keeps.as_secs().to_string());
        let addresses: Vec<String> = addresses.iter().take(MOST).map(ToString::to_string).collect();
        annotations.insert(annotation::BGP_ADDRESSES.to_owned(), addresses.join(","));
    }

    /// What is told; nothing where no number of seconds is. What cannot be read, and what exceeds the bounds, is passed over.
    pub(super) fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let keeps =
            annotations.get(annotation::BGP_KEEPS)?.parse().ok().map(Duration::from_secs)?;
        let listed = |name: &str| {
            let text = annotations.get(name).map_or("", String::as_str);
            text.split(',').map(str::trim).take(MOST)
        };
        let names = listed(annotation::BGP_SESSIONS);
        let names = names.filter(|name| !name.is_empty() && name.len() <= LONGEST);
        let addresses = listed(annotation::BGP_ADDRESSES).filter_map(|text| text.parse().ok());
        Some(Self {
            sessions: names.map(str::to_owned).collect(),
            keeps: keeps.min(MOST_KEPT),
            addresses: addresses.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_routers_is_read_and_what_does_not_fit_is_left_out() {
        let mut annotations = BTreeMap::new();
        let names = ["192.0.2.1".to_owned(), "tor-a".to_owned(), "a,b".to_owned(), "x".repeat(65)];
        let addresses: BTreeSet<IpAddr> =
            ["192.0.2.200", "2001:db8::200"].map(|own| own.parse().unwrap()).into();
        let told = Routers { sessions: names.into(), keeps: Duration::from_secs(150), addresses };
        Routers::write(Some(&told), &mut annotations);
        let read = Routers::read(&annotations).unwrap();
        assert_eq!(read.addresses, told.addresses);
        let many = (0..2000u32).map(|number| IpAddr::from(number.to_be_bytes())).collect();
        let crowd = Routers { addresses: many, ..told.clone() };
        let mut crowded = BTreeMap::new();
        Routers::write(Some(&crowd), &mut crowded);
        assert_eq!(crowded[annotation::BGP_ADDRESSES].split(',').count(), MOST);
        let listed: Vec<String> = crowd.addresses.iter().map(ToString::to_string).collect();
        crowded.insert(annotation::BGP_ADDRESSES.to_owned(), format!("x,,{}", listed.join(",")));
        let read_of_many = Routers::read(&crowded).unwrap().addresses;
        assert_eq!(read_of_many.len(), MOST - 2, "so many entries are looked at");
        assert_eq!(read.sessions, ["192.0.2.1".to_owned(), "tor-a".to_owned()].into());
        assert_eq!(read.keeps, told.keeps);
        for (text, read) in [("86400", Some(MOST_KEPT)), ("soon", None), ("-1", None)] {
            annotations.insert(annotation::BGP_KEEPS.to_owned(), text.to_owned());
            assert_eq!(Routers::read(&annotations).map(|told| told.keeps), read, "{text}");
        }
        Routers::write(None, &mut annotations);
        assert!(annotations.is_empty(), "who tells no routers any more says nothing of them");
    }
}
