//! How often what is said of an address changes by what its Service says of itself: whoever edits one a hundred times a second
//! would have each router told so by each node (RFC 4271 §9.2.1.1). The first change is said at once, the last one in the end.
//! Where an address is, and that it goes, never waits. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_bgp::Announcement;

/// How soon a change may follow another one. RFC 4271 §10 suggests 5 s within an AS.
const PAUSE: Duration = Duration::from_secs(5);

/// What was said of addresses, and when.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When a change was said the last time.
    said: BTreeMap<IpAddr, Instant>,
    /// Those of which something else is to be said by now.
    waiting: BTreeMap<IpAddr, Instant>,
}

impl Pace {
    /// Begins to look at what is to be said of all addresses.
    pub(super) fn begin(&mut self, now: Instant) {
        self.said.retain(|_, said| *said + PAUSE > now);
        self.waiting.clear();
    }

    /// What is to be said now, where that was said `before`.
    pub(super) fn say(
        &mut self,
        before: Option<&Announcement>,
        wanted: Announcement,
        now: Instant,
    ) -> Announcement {
        let of_one = |before: &&Announcement| {
            (&before.namespace, &before.pool) == (&wanted.namespace, &wanted.pool)
        };
        let Some(before) = before.filter(of_one) else { return wanted };
        if before.asked == wanted.asked && before.labels == wanted.labels {
            return wanted;
        }
        match self.said.get(&wanted.address) {
            Some(said) => {
                self.waiting.insert(wanted.address, *said + PAUSE);
                let (asked, labels) = (before.asked.clone(), before.labels.clone());
                Announcement { asked, labels, ..wanted }
            }
            None => {
                self.said.insert(wanted.address, now);
                wanted
            }
        }
    }

    /// When something that waits is to be said.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use berth_bgp::Asked;

    use super::*;

    fn asking(local_pref: u32) -> Announcement {
        let asked = Asked { local_pref: Some(local_pref), ..Asked::default() };
        Announcement { asked, ..Announcement::of("192.0.2.1".parse().unwrap(), "shop") }
    }

    #[test]
    fn of_many_changes_the_first_is_said_at_once_and_then_the_last_of_each_pause() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let mut known = pace.say(None, asking(0), begin);
        let mut changes = Vec::new();
        for tenth in 1..=200u32 {
            let now = begin + Duration::from_millis(100) * tenth;
            pace.begin(now);
            let said = pace.say(Some(&known), asking(tenth.min(120)), now);
            if said != known {
                changes.push(said.asked.local_pref.unwrap());
            }
            known = said;
        }
        assert_eq!(changes, [1, 51, 101, 120]);
        assert_eq!(pace.deadline(), None, "the last word was said");
    }

    #[test]
    fn where_it_is_and_whose_and_that_it_goes_never_waits() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let known = pace.say(Some(&asking(0)), asking(1), now);
        pace.begin(now);
        let going = Announcement { shutting_down: true, med: Some(7), ..asking(2) };
        let said = pace.say(Some(&known), going.clone(), now);
        assert!(said.shutting_down && said.med == Some(7) && said.asked == known.asked);
        assert_eq!(pace.deadline(), Some(now + PAUSE));
        let others = Announcement { namespace: "other".to_owned(), ..asking(3) };
        assert_eq!(pace.say(Some(&known), others.clone(), now), others);
        assert_eq!(pace.say(None, asking(4), now), asking(4), "it was not announced before");
    }
}
