//! What is said about a route beside its prefix, the next hop and our own AS: as policy decides it, the same for every
//! address that is treated alike.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Most communities of each kind that one route carries: more would leave no room for prefixes in a message.
pub const MOST_COMMUNITIES: usize = 100;

/// Most repetitions of the own AS.
pub const MOST_PREPENDS: u8 = 32;

/// What is said about a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// LOCAL_PREF, which only peers of the own AS are told; 100 where nothing is said.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How often the own AS is repeated towards peers of another AS, at most [`MOST_PREPENDS`] times.
    pub prepend: u8,
    /// Communities (RFC 1997). [`MOST_COMMUNITIES`] are sent, [`Community::GRACEFUL_SHUTDOWN`] besides: the well-known ones
    /// first, by which routers act, then the lowest.
    pub communities: BTreeSet<Community>,
    /// Large communities (RFC 8092), as many, the lowest first.
    pub large_communities: BTreeSet<LargeCommunity>,
}

impl Attributes {
    /// The communities that are sent.
    pub(crate) fn sent(&self) -> BTreeSet<Community> {
        let shutdown = self.communities.get(&Community::GRACEFUL_SHUTDOWN);
        let others = by_weight(&self.communities).filter(|one| Some(*one) != shutdown);
        others.take(MOST_COMMUNITIES).chain(shutdown).copied().collect()
    }

    /// Adds what is asked for to what is decided, as far as there is room. Gives what there is none for: of what is decided
    /// nothing gives way.
    pub(crate) fn ask(
        &mut self,
        communities: &BTreeSet<Community>,
        large_communities: &BTreeSet<LargeCommunity>,
    ) -> (BTreeSet<Community>, BTreeSet<LargeCommunity>) {
        let new = by_weight(communities).filter(|one| !self.communities.contains(one));
        let new: Vec<Community> = new.copied().collect();
        let room = MOST_COMMUNITIES.saturating_sub(self.communities.len()).min(new.len());
        self.communities.extend(&new[..room]);
        let large = large_communities.difference(&self.large_communities);
        let large: Vec<LargeCommunity> = large.copied().collect();
        let large_room = MOST_COMMUNITIES.saturating_sub(self.large_communities.len());
        let large_room = large_room.min(large.len());
        self.large_communities.extend(&large[..large_room]);
        let left = new[room..].iter().copied().collect();
        (left, large[large_room..].iter().copied().collect())
    }

    /// The same route while this node is about to withdraw it: with the community of RFC 8326, and for peers of the own
    /// AS with the lowest preference (RFC 8326 §4).
    #[must_use]
    pub fn shutting_down(&self) -> Self {
        let mut attributes = self.clone();
        attributes.local_pref = Some(0);
        attributes.communities.insert(Community::GRACEFUL_SHUTDOWN);
        attributes
    }
}

/// A community: an AS and a number of its own, 16 bits each (RFC 1997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// "Use another path if there is one: this one goes" (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);

    /// Where those begin that are the same everywhere (RFC 1997 §2).
    const WELL_KNOWN: Self = Self(0xffff_0000);

    /// Those with a name, of IANA's registry.
    const NAMED: [(&str, Self); 6] = [
        ("graceful-shutdown", Self::GRACEFUL_SHUTDOWN),
        ("blackhole", Self(0xffff_029a)),
        ("no-export", Self(0xffff_ff01)),
        ("no-advertise", Self(0xffff_ff02)),
        ("no-export-subconfed", Self(0xffff_ff03)),
        ("no-peer", Self(0xffff_ff04)),
    ];
}

/// Those that are well known first, each in their order.
fn by_weight(communities: &BTreeSet<Community>) -> impl Iterator<Item = &Community> {
    communities.range(Community::WELL_KNOWN..).chain(communities.range(..Community::WELL_KNOWN))
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(_, community)| community == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

/// A large community: an AS and two numbers of its own, 32 bits each (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity(pub u32, pub u32, pub u32);

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0, self.1, self.2)
    }
}

/// Why a text is no community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "accepted is a community such as 65000:100 (two numbers to 65535) or 4200000000:1:2 (three to 4294967295), or \
     graceful-shutdown, blackhole, no-export, no-advertise, no-export-subconfed, no-peer"
)]
pub struct CommunityError;

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        if let Some((_, community)) = Self::NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*community);
        }
        let (asn, number) = text.split_once(':').ok_or(CommunityError)?;
        let half = |text: &str| digits::<u16>(text).map(u32::from);
        Ok(Self(half(asn)? << 16 | half(number)?))
    }
}

impl FromStr for LargeCommunity {
    type Err = CommunityError;

    /// Takes MetalLB's form, `large:4200000000:1:2`, too.
    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let mut parts = text.strip_prefix("large:").unwrap_or(text).split(':').map(digits::<u32>);
        let mut part = || parts.next().unwrap_or(Err(CommunityError));
        let community = Self(part()?, part()?, part()?);
        parts.next().is_none().then_some(community).ok_or(CommunityError)
    }
}

/// A number without a sign, which Rust would take.
pub(crate) fn digits<T: FromStr>(text: &str) -> Result<T, CommunityError> {
    let number = text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok());
    number.flatten().ok_or(CommunityError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_are_read_as_they_are_shown() {
        for text in [
            "65000:100",
            "0:0",
            "65535:1",
            "no-export",
            "graceful-shutdown",
            "blackhole",
            "no-peer",
        ] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        assert_eq!("65535:0".parse(), Ok(Community::GRACEFUL_SHUTDOWN));
        for text in ["4200000000:1:2", "0:0:4294967295"] {
            assert_eq!(text.parse::<LargeCommunity>().unwrap().to_string(), text);
        }
        assert_eq!("large:1:2:3".parse(), Ok(LargeCommunity(1, 2, 3)));
        for wrong in
            ["", "1", "1:", ":1", "65536:1", "1:65536", "+1:1", "1:2:3", "no-exports", "1: 2"]
        {
            assert_eq!(wrong.parse::<Community>(), Err(CommunityError), "{wrong}");
        }
        for wrong in ["1:2", "1:2:3:4", "1:2:4294967296", "1:2:", "-1:2:3", "large:1:2"] {
            assert_eq!(wrong.parse::<LargeCommunity>(), Err(CommunityError), "{wrong}");
        }
    }

    #[test]
    fn what_shuts_down_keeps_what_was_said_and_is_preferred_least() {
        let community = Community(7);
        let before = Attributes {
            local_pref: Some(200),
            med: Some(3),
            communities: BTreeSet::from([community]),
            ..Attributes::default()
        };
        let after = before.shutting_down();
        assert_eq!((after.local_pref, after.med), (Some(0), Some(3)));
        assert_eq!(after.communities, BTreeSet::from([community, Community::GRACEFUL_SHUTDOWN]));
    }

    #[test]
    fn of_too_many_the_well_known_ones_are_sent_and_what_is_decided_before_what_is_asked_for() {
        let [export, last] = ["no-export", "65010:7"].map(|text| text.parse().unwrap());
        let asked: BTreeSet<Community> = (1..=100).map(|n| Community(65000 << 16 | n)).collect();
        let mut attributes = Attributes {
            communities: BTreeSet::from([export, last]),
            large_communities: BTreeSet::from([LargeCommunity(9, 9, 9)]),
            ..Attributes::default()
        };
        let large: BTreeSet<LargeCommunity> = (1..=100).map(|n| LargeCommunity(1, 1, n)).collect();
        let (left, left_large) = attributes.ask(&asked, &large);
        let texts: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["65000:99", "65000:100"]);
        assert_eq!(left_large, BTreeSet::from([LargeCommunity(1, 1, 100)]));
        let sent = attributes.shutting_down().sent();
        assert_eq!(sent.len(), MOST_COMMUNITIES + 1);
        assert!([export, last, Community::GRACEFUL_SHUTDOWN].iter().all(|one| sent.contains(one)));
        attributes.communities.extend(&asked);
        let sent = attributes.sent();
        assert_eq!((sent.len(), sent.contains(&export)), (MOST_COMMUNITIES, true));
        assert_eq!(
            attributes.ask(&BTreeSet::from([export]), &large).0,
            BTreeSet::new(),
            "it has it"
        );
    }
}
