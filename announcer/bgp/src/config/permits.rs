//! What Services ask for by their annotations, and which of them may. What is not allowed is left out and told; the
//! address is announced without it.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use super::flaw::{Flaw, Place};
use crate::attributes::{Community, CommunityError, LargeCommunity, MOST_COMMUNITIES, digits};
use crate::policy::Asked;

/// The annotations.
pub const ASKED: [&str; 3] = [COMMUNITIES, LOCAL_PREF, PEERS];

const COMMUNITIES: &str = "berth.dev/bgp-communities";
const LOCAL_PREF: &str = "berth.dev/bgp-local-pref";
const PEERS: &str = "berth.dev/bgp-peers";

/// What their names begin with.
const COMMON: &str = "berth.dev/bgp-";

/// Names that are none of these and that are told of.
const MOST_MISSPELT: usize = 3;

/// The most entries of a list of what is accepted that are named.
const MOST_NAMED: usize = 8;

/// The longest value that is read.
const LONGEST: usize = 4096;

/// The most peers that a Service may name, and the longest name.
const MOST_PEERS: usize = 32;
const LONGEST_NAME: usize = 63;

/// Reads the annotations of a Service. One that cannot be read asks for nothing.
pub fn asked<'t>(annotation: impl Fn(&str) -> Option<&'t str>) -> (Asked, Vec<Flaw>) {
    let (mut asked, mut flaws) = (Asked::default(), Vec::new());
    let given = |name: &str| annotation(name).map(str::trim).filter(|text| !text.is_empty());
    let mut wrong = |name: &str, text: &str, accepted: String| {
        flaws.push(Flaw::new("", name, Place::Named, accepted).value(text));
    };
    if let Some(text) = given(COMMUNITIES) {
        match communities(text) {
            Ok((communities, large)) => {
                (asked.communities, asked.large_communities) = (communities, large)
            }
            Err((text, accepted)) => wrong(COMMUNITIES, text, accepted),
        }
    }
    if let Some(text) = given(LOCAL_PREF) {
        match digits(text) {
            Ok(preference) => asked.local_pref = Some(preference),
            Err(_) => wrong(
                LOCAL_PREF,
                text,
                "accepted is a whole number from 0 to 4294967295".to_owned(),
            ),
        }
    }
    if let Some(text) = given(PEERS) {
        let names = || text.split(',').map(str::trim).filter(|name| !name.is_empty());
        // Each announcer keeps what any tenant writes, permitted or not.
        let fits = (1..=MOST_PEERS).contains(&names().take(MOST_PEERS + 1).count())
            && names().all(|name| name.len() <= LONGEST_NAME);
        match fits {
            true => asked.peers = Some(names().map(str::to_owned).collect()),
            false => {
                let accepted = format!(
                    "accepted are names of peers with commas between them, {MOST_PEERS} at most of {LONGEST_NAME} characters"
                );
                wrong(PEERS, text, accepted);
            }
        }
    }
    (asked, flaws)
}

/// Annotations among these that are meant to be of this kind and are none: what they ask for nobody would hear of.
pub fn misspelt<'t>(annotations: impl Iterator<Item = &'t str>) -> Vec<Flaw> {
    let is_none = |name: &&str| name.starts_with(COMMON) && !ASKED.contains(name);
    let flaw = |name: &str| {
        let accepted = format!("accepted are {}", ASKED.join(", "));
        Flaw::new("", "metadata.annotations", Place::Named, accepted).value(name)
    };
    annotations.filter(is_none).take(MOST_MISSPELT).map(flaw).collect()
}

/// Communities of both kinds.
type Communities = (BTreeSet<Community>, BTreeSet<LargeCommunity>);

/// Communities in a list; else what of it is wrong, and what is accepted.
fn communities(text: &str) -> Result<Communities, (&str, String)> {
    let (mut communities, mut large) = (BTreeSet::new(), BTreeSet::new());
    if text.len() > LONGEST {
        let length = text.len();
        return Err((text, format!("it has {length} octets; accepted are {LONGEST}")));
    }
    for text in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match (text.parse(), text.parse()) {
            (Ok(community), _) => _ = communities.insert(community),
            (_, Ok(community)) => _ = large.insert(community),
            _ => return Err((text, format!("{CommunityError}; with commas between them"))),
        }
    }
    match communities.len().max(large.len()) {
        most if most > MOST_COMMUNITIES => {
            Err((text, format!("they are {most}; accepted are {MOST_COMMUNITIES} of each kind")))
        }
        _ => Ok((communities, large)),
    }
}

/// Communities that may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This one.
    Is(Community),
    /// All of this AS.
    Of(u16),
    /// This one.
    IsLarge(LargeCommunity),
    /// All of this AS.
    OfLarge(u32),
}

impl Pattern {
    pub(super) fn read(text: &str) -> Option<Self> {
        if let Some(asn) = text.strip_suffix(":*:*") {
            return digits(asn).ok().map(Self::OfLarge);
        }
        if let Some(asn) = text.strip_suffix(":*") {
            return digits(asn).ok().map(Self::Of);
        }
        let community = text.parse().ok().map(Self::Is);
        community.or_else(|| text.parse().ok().map(Self::IsLarge))
    }

    fn takes(self, community: Community) -> bool {
        match self {
            Self::Is(allowed) => allowed == community,
            Self::Of(asn) => community.0 >> 16 == u32::from(asn),
            Self::IsLarge(_) | Self::OfLarge(_) => false,
        }
    }

    fn takes_large(self, community: LargeCommunity) -> bool {
        match self {
            Self::IsLarge(allowed) => allowed == community,
            Self::OfLarge(asn) => community.0 == asn,
            Self::Is(_) | Self::Of(_) => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(community) => write!(f, "{community}"),
            Self::Of(asn) => write!(f, "{asn}:*"),
            Self::IsLarge(community) => write!(f, "{community}"),
            Self::OfLarge(asn) => write!(f, "{asn}:*:*"),
        }
    }
}

/// What Services of some namespaces may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// The namespaces; `*` for all.
    pub namespaces: BTreeSet<String>,
    /// Communities.
    pub communities: Vec<Pattern>,
    /// Preferences.
    pub local_pref: Option<RangeInclusive<u32>>,
    /// Peers that may be chosen among, by their names; `*` for all.
    pub peers: BTreeSet<String>,
}

/// A part of what a Service asks for that it does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The annotation.
    pub annotation: &'static str,
    /// That part of its value.
    pub value: String,
}

/// What Services may ask for. Without any permit, for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permits(pub Vec<Permit>);

impl Permits {
    /// What a Service of this namespace may ask for by an annotation, for people.
    pub fn accepted(&self, namespace: &str, annotation: &str) -> String {
        let is_for = |permit: &&Permit| {
            permit.namespaces.contains("*") || permit.namespaces.contains(namespace)
        };
        let of = |permit: &Permit| -> Vec<String> {
            match annotation {
                COMMUNITIES => permit.communities.iter().map(ToString::to_string).collect(),
                LOCAL_PREF => permit
                    .local_pref
                    .iter()
                    .map(|range| format!("{} to {}", range.start(), range.end()))
                    .collect(),
                _ => permit.peers.iter().cloned().collect(),
            }
        };
        let listed: Vec<String> = self.0.iter().filter(is_for).flat_map(of).collect();
        if listed.is_empty() {
            return format!(
                "nothing: `services` of ConfigMap berth-bgp lists nothing for namespace {namespace}"
            );
        }
        let more = listed.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named: Vec<String> = listed.into_iter().take(MOST_NAMED).collect();
        format!("{}{more}, as `services` of ConfigMap berth-bgp lists", named.join(", "))
    }

    /// What a Service of this namespace gets of what it asks for, and what it does not get.
    pub fn admit(&self, namespace: &str, asked: Asked) -> (Asked, Vec<Denied>) {
        let has =
            |names: &BTreeSet<String>, name: &str| names.contains("*") || names.contains(name);
        let permits: Vec<&Permit> =
            self.0.iter().filter(|permit| has(&permit.namespaces, namespace)).collect();
        let patterns = || permits.iter().flat_map(|permit| &permit.communities);
        let mut refused = Vec::new();
        let mut refuse = |annotation, value| refused.push(Denied { annotation, value });
        let (communities, not): (BTreeSet<_>, BTreeSet<_>) = asked
            .communities
            .into_iter()
            .partition(|community| patterns().any(|pattern| pattern.takes(*community)));
        not.iter().for_each(|community: &Community| refuse(COMMUNITIES, community.to_string()));
        let (large_communities, not): (BTreeSet<_>, BTreeSet<_>) = asked
            .large_communities
            .into_iter()
            .partition(|community| patterns().any(|pattern| pattern.takes_large(*community)));
        not.iter()
            .for_each(|community: &LargeCommunity| refuse(COMMUNITIES, community.to_string()));
        let preferred = |preference: &u32| {
            permits
                .iter()
                .filter_map(|permit| permit.local_pref.as_ref())
                .any(|range| range.contains(preference))
        };
        let local_pref = asked.local_pref.filter(preferred);
        if let (Some(preference), None) = (asked.local_pref, local_pref) {
            refuse(LOCAL_PREF, preference.to_string());
        }
        let peers = asked.peers.and_then(|names| {
            let chosen = |name: &String| permits.iter().any(|permit| has(&permit.peers, name));
            let (chosen, not): (BTreeSet<_>, BTreeSet<_>) = names.into_iter().partition(chosen);
            not.into_iter().for_each(|name| refuse(PEERS, name));
            // Where none of those that it names may be chosen, all are told, as without the annotation.
            Some(chosen).filter(|chosen| !chosen.is_empty())
        });
        (Asked { communities, large_communities, local_pref, peers }, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &'static str)]) -> (Asked, Vec<String>) {
        let (asked, flaws) =
            asked(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value));
        (asked, flaws.iter().map(ToString::to_string).collect())
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_service_asks_by_annotations() {
        let (asked, flaws) = read(&[
            (COMMUNITIES, "65000:100, no-export,4200000000:1:2"),
            (LOCAL_PREF, " 200 "),
            (PEERS, "tor-a, tor-b,"),
        ]);
        assert!(flaws.is_empty(), "{flaws:?}");
        assert_eq!((asked.communities.len(), asked.large_communities.len()), (2, 1));
        assert_eq!((asked.local_pref, asked.peers), (Some(200), Some(names(&["tor-a", "tor-b"]))));
        assert_eq!(read(&[]), (Asked::default(), vec![]));
        assert_eq!(read(&[(PEERS, " ")]), (Asked::default(), vec![]));
    }

    #[test]
    fn what_cannot_be_read_asks_for_nothing_and_costs_nothing_else() {
        let (asked, flaws) =
            read(&[(COMMUNITIES, "65000:100,x"), (LOCAL_PREF, "200"), (PEERS, ",,")]);
        assert_eq!((asked.communities.len(), asked.local_pref, asked.peers), (0, Some(200), None));
        assert_eq!(flaws.len(), 2);
        assert!(flaws[0].starts_with("berth.dev/bgp-communities \"x\": accepted is"), "{flaws:?}");
        let many: String = (0..101).map(|n| format!("1:{n},")).collect();
        assert!(communities(&many).unwrap_err().1.starts_with("they are 101; accepted are 100"));
        assert!(communities(&many[..many.len() - 6]).is_ok());
        assert!(communities(&"1:1,".repeat(2000)).unwrap_err().1.starts_with("it has 8000 octets"));
        let names = ["berth.dev/bgp-community", "berth.dev/bgp-med", PEERS, "berth.dev/drain"];
        let told: Vec<String> =
            misspelt(names.into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        let begins = "metadata.annotations \"berth.dev/bgp-community\": accepted are berth.dev/bgp-communities,";
        assert!(told[0].starts_with(begins), "{told:?}");
        for preference in ["+150", "-1", "1.5", "4294967296"] {
            assert_eq!(read(&[(LOCAL_PREF, preference)]).0.local_pref, None, "{preference}");
        }
        let peers = |text: &str| super::asked(|name| (name == PEERS).then_some(text)).0.peers;
        let many: String = (0..33).map(|n| format!("{n},")).collect();
        let few = many.trim_end_matches("32,").to_owned();
        assert_eq!((peers(&many), peers(&few).map(|few| few.len())), (None, Some(32)));
        assert!(peers(&"x".repeat(64)).is_none() && peers(&"x".repeat(63)).is_some());
    }

    #[test]
    fn without_a_permit_nothing_is_allowed_and_each_refusal_is_told() {
        let (asked, _) =
            read(&[(COMMUNITIES, "65000:100,1:2:3"), (LOCAL_PREF, "200"), (PEERS, "tor-a")]);
        let (admitted, refused) = Permits::default().admit("web", asked);
        assert_eq!(admitted, Asked::default());
        assert_eq!(refused.len(), 4);
        let first = Denied { annotation: COMMUNITIES, value: "65000:100".to_owned() };
        assert_eq!(refused[0], first);
    }

    #[test]
    fn a_permit_is_for_its_namespaces_and_what_it_lists() {
        let communities =
            ["65000:*", "no-export", "4200000000:*:*"].map(|text| Pattern::read(text).unwrap());
        let permits = Permits(vec![Permit {
            namespaces: names(&["web"]),
            communities: communities.to_vec(),
            local_pref: Some(100..=200),
            peers: names(&["tor-a"]),
        }]);
        let ask = || {
            let texts = [
                (COMMUNITIES, "65000:1,65001:1,no-export,4200000000:1:2,1:2:3"),
                (LOCAL_PREF, "200"),
                (PEERS, "tor-a,tor-b"),
            ];
            read(&texts).0
        };
        let (admitted, refused) = permits.admit("web", ask());
        assert_eq!((admitted.communities.len(), admitted.large_communities.len()), (2, 1));
        assert_eq!((admitted.local_pref, admitted.peers), (Some(200), Some(names(&["tor-a"]))));
        assert_eq!(refused.len(), 3, "{refused:?}");
        for (annotation, accepted) in [
            (COMMUNITIES, "65000:*, no-export, 4200000000:*:*, as"),
            (LOCAL_PREF, "100 to 200, as"),
            (PEERS, "tor-a, as"),
        ] {
            let told = permits.accepted("web", annotation);
            assert!(told.starts_with(accepted), "{told}");
            assert!(permits.accepted("other", annotation).starts_with("nothing: "));
        }
        assert_eq!(permits.admit("other", ask()).0, Asked::default());
        let (admitted, _) =
            permits.admit("web", Asked { local_pref: Some(201), ..Asked::default() });
        assert_eq!(admitted.local_pref, None);
        for wrong in ["70000:*", "+65000:*", "+1:*:*", ":*", ":*:*"] {
            assert_eq!(Pattern::read(wrong), None, "{wrong}");
        }
    }
}
