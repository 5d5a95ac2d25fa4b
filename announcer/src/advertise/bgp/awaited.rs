//! The sessions that were up in an earlier life of this process: it is ready once they are up again and have been told everything,
//! so that no rolling update takes the next node before routers go by this one. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::peers::Terms;
use super::told::Told;

/// What readiness waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    peers: BTreeSet<String>,
    since: Option<Instant>,
}

impl Awaited {
    /// These were up when an earlier life ended.
    pub fn new(peers: BTreeSet<String>, now: Instant) -> Self {
        Self { peers, since: Some(now) }
    }

    /// Takes in what is known of peers, of which there are these. A peer that is wanted no more is not waited for, and none for
    /// longer than the longest restart takes.
    pub(super) fn see(&mut self, told: &Told, all: &BTreeMap<String, Terms>, now: Instant) {
        let until = self.until(all);
        let is_over = until.is_none_or(|until| until <= now);
        self.peers.retain(|name| {
            let is_up = told.peers.get(name).is_some_and(|peer| peer.is_complete);
            !is_over && all.contains_key(name) && !is_up
        });
    }

    /// When nothing is waited for any more, of these peers.
    pub(super) fn until(&self, all: &BTreeMap<String, Terms>) -> Option<Instant> {
        let longest = all.values().filter_map(Terms::restart).max().unwrap_or(Duration::ZERO);
        self.since.map(|since| since + longest)
    }

    /// Those that are waited for.
    pub(super) fn peers(&self) -> &BTreeSet<String> {
        &self.peers
    }

    /// Why this process is not ready.
    pub(super) fn why(&self) -> Option<String> {
        let names: Vec<&str> = self.peers.iter().map(String::as_str).collect();
        let names = names.join(", ");
        (!self.peers.is_empty()).then(|| {
            format!("sessions that were up before the restart are not up again, or not told everything yet: {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use berth_bgp::config;

    use super::*;
    use crate::advertise::bgp::PeerTold;

    #[test]
    fn each_that_was_up_is_waited_for_until_it_is_again_or_a_restart_would_be_over() {
        let (peers, _) = config::peers("192.0.2.1:65001,192.0.2.2:65001");
        let terms =
            |peer: config::Peer| (peer.name.clone(), Terms::new(peer, &config::Speaker::default()));
        let all: BTreeMap<String, Terms> = peers.into_iter().map(terms).collect();
        let start = Instant::now();
        let names = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(str::to_owned);
        let mut awaited = Awaited::new(names.into(), start);
        let mut told = Told::default();
        awaited.see(&told, &all, start);
        assert_eq!(awaited.peers().len(), 2, "one is wanted no more");
        told.peers
            .insert("192.0.2.1".to_owned(), PeerTold { is_complete: true, ..PeerTold::default() });
        awaited.see(&told, &all, start);
        assert!(awaited.why().unwrap().ends_with("yet: 192.0.2.2"));
        told.peers.clear();
        awaited.see(&told, &all, start + Duration::from_secs(119));
        assert_eq!(awaited.peers().len(), 1, "what was up once is not waited for again");
        assert_eq!(awaited.until(&all), Some(start + Duration::from_secs(120)));
        awaited.see(&told, &all, start + Duration::from_secs(120));
        assert_eq!(awaited.why(), None);
        assert_eq!(Awaited::default().why(), None);
    }
}
