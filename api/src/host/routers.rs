//! What a node tells of the routers that it tells where addresses are (RFC 4724).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::names::annotation;

/// The most routers that one node may tell.
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
}

impl Routers {
    /// Writes what is told. A name that is too long, or has a comma in it, is left out.
    pub(super) fn write(told: Option<&Self>, annotations: &mut BTreeMap<String, String>) {
        let Some(Self { sessions, keeps }) = told else {
            annotations.remove(annotation::BGP_SESSIONS);
            annotations.remove(annotation::BGP_KEEPS);
            return;
        };
        let fits = |name: &&str| name.len() <= LONGEST && !name.contains(',') && !name.is_empty();
        let names = sessions.iter().map(String::as_str).filter(fits).take(MOST);
        let names = names.collect::<Vec<_>>().join(",");
        annotations.insert(annotation::BGP_SESSIONS.to_owned(), names);
        annotations.insert(annotation::BGP_KEEPS.to_owned(), keeps.as_secs().to_string());
    }

    /// What is told; nothing where no number of seconds is. What cannot be read, and what exceeds the bounds, is passed over.
    pub(super) fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let keeps =
            annotations.get(annotation::BGP_KEEPS)?.parse().ok().map(Duration::from_secs)?;
        let names = annotations.get(annotation::BGP_SESSIONS).map_or("", String::as_str);
        let names = names.split(',').map(str::trim).take(MOST);
        let names = names.filter(|name| !name.is_empty() && name.len() <= LONGEST);
        Some(Self { sessions: names.map(str::to_owned).collect(), keeps: keeps.min(MOST_KEPT) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_routers_is_read_and_what_does_not_fit_is_left_out() {
        let mut annotations = BTreeMap::new();
        let names = ["192.0.2.1".to_owned(), "tor-a".to_owned(), "a,b".to_owned(), "x".repeat(65)];
        let told = Routers { sessions: names.into(), keeps: Duration::from_secs(150) };
        Routers::write(Some(&told), &mut annotations);
        let read = Routers::read(&annotations).unwrap();
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
