//! Owns for how long routers may lead an address to a node that nothing is heard of any more ([`berth_api::host::Routers`]):
//! so long nobody else is to have one that was given back. Nodes do not tell which addresses routers know of, and an announcer
//! that was killed withdraws nothing: while any node tells routers of addresses, each that is given back rests for that long.

use std::collections::BTreeMap;
use std::time::Duration;

/// What nodes tell of routers.
#[derive(Clone, Debug, Default)]
pub(super) struct Routers {
    /// How long routers keep what a node tells them.
    told: BTreeMap<String, Duration>,
    /// The same as it was before it became less, with until when that counts: a router goes by what it was told.
    before: BTreeMap<String, (Duration, Duration)>,
}

impl Routers {
    /// Takes in what a node tells; nothing where it tells of no routers, or its Lease is gone.
    pub(super) fn hear(&mut self, node: &str, keeps: Option<Duration>, now: Duration) {
        let was = match keeps {
            Some(keeps) => self.told.insert(node.to_owned(), keeps),
            None => self.told.remove(node),
        };
        self.before.retain(|_, (_, until)| *until > now);
        let counts = was.filter(|was| *was > keeps.unwrap_or_default());
        if let Some(was) = counts {
            self.before.insert(node.to_owned(), (was, now + was));
        }
    }

    /// How long a router may lead an address to a node that is gone.
    pub(super) fn keep(&self, now: Duration) -> Duration {
        let before = self.before.values().filter(|(_, until)| *until > now);
        let all = self.told.values().chain(before.map(|(keeps, _)| keeps));
        all.max().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_longest_counts_and_what_was_told_counts_on_for_as_long_as_a_router_goes_by_it() {
        let mut routers = Routers::default();
        assert_eq!(routers.keep(second(0)), second(0));
        routers.hear("a", Some(second(150)), second(10));
        routers.hear("b", Some(second(90)), second(10));
        assert_eq!(routers.keep(second(1000)), second(150));
        routers.hear("a", Some(second(30)), second(1000));
        assert_eq!(routers.keep(second(1149)), second(150));
        assert_eq!(routers.keep(second(1150)), second(90), "of the other node");
        routers.hear("b", None, second(2000));
        assert_eq!(routers.keep(second(2089)), second(90), "its Lease is gone");
        assert_eq!(routers.keep(second(2090)), second(30));
    }
}
