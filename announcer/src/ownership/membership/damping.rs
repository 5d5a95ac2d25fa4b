//! Which interfaces have come back only lately: their node lets every other one go first. Pure.
//!
//! An owner keeps what it has, so one link that flaps moves its addresses once. Where several flap, or the owner fails
//! meanwhile, addresses would follow the links; a node that waits behind all others takes only what nobody else can.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::kernel::Interface;

/// How long an interface that came back has to stay before its node counts like any other.
const DAMPED: Duration = Duration::from_secs(10);

/// What is remembered of the interfaces.
#[derive(Debug, Default)]
pub(super) struct FlapDamping {
    /// Seen in use, at any time.
    known: BTreeSet<String>,
    /// Known, and not in use now.
    down: BTreeSet<String>,
    /// In use again since then.
    back: BTreeMap<String, Instant>,
}

impl FlapDamping {
    /// Takes in the interfaces as they are at `now`; true if another set of them is damped than before.
    pub(super) fn observe(
        &mut self,
        interfaces: &BTreeMap<String, Interface>,
        now: Instant,
    ) -> bool {
        let before: Vec<String> = self.back.keys().cloned().collect();
        self.back.retain(|_, since| now < *since + DAMPED);
        let up = |name: &String| interfaces.get(name).is_some_and(|interface| interface.up);
        for name in self.known.iter().filter(|name| !up(name)) {
            self.back.remove(name);
            self.down.insert(name.clone());
        }
        for name in self.down.iter().filter(|name| up(name)) {
            self.back.insert(name.clone(), now);
        }
        self.down.retain(|name| !up(name));
        // One that comes late has not flapped.
        self.known.extend(interfaces.keys().filter(|name| up(name)).cloned());
        !self.back.keys().eq(before.iter())
    }

    /// Whether the interface with this index came back lately.
    pub(super) fn damps(&self, interfaces: &BTreeMap<String, Interface>, index: u32) -> bool {
        let mut back = self.back.keys().filter_map(|name| interfaces.get(name));
        back.any(|interface| interface.index == index)
    }

    /// When [`FlapDamping::observe`] may say something else although nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.back.values().map(|since| *since + DAMPED).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth0(up: bool) -> BTreeMap<String, Interface> {
        let interface = Interface { index: 2, mac: Some([2; 6]), up, foreign: [].into() };
        [("eth0".to_owned(), interface)].into()
    }

    #[test]
    fn an_interface_that_was_there_from_the_start_or_comes_late_is_steady() {
        let now = Instant::now();
        let mut damping = FlapDamping::default();
        assert!(!damping.observe(&eth0(false), now));
        assert!(!damping.observe(&eth0(true), now + DAMPED));
        assert!(!damping.damps(&eth0(true), 2));
        assert_eq!(damping.deadline(), None);
    }

    #[test]
    fn one_that_comes_back_is_damped_until_it_has_stayed_for_ten_seconds() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut damping = FlapDamping::default();
        damping.observe(&eth0(true), now);
        assert!(!damping.observe(&eth0(false), now), "without it there is nothing to damp");
        assert!(damping.observe(&eth0(true), now + second));
        assert!(damping.damps(&eth0(true), 2) && !damping.damps(&eth0(true), 3));
        assert_eq!(damping.deadline(), Some(now + second + DAMPED));
        assert!(!damping.observe(&eth0(true), now + DAMPED));
        assert!(damping.observe(&eth0(true), now + second + DAMPED));
        assert!(!damping.damps(&eth0(true), 2));
    }

    #[test]
    fn each_flap_begins_the_wait_anew_also_if_the_interface_was_gone() {
        let now = Instant::now();
        let mut damping = FlapDamping::default();
        damping.observe(&eth0(true), now);
        for flap in 0..20 {
            let at = now + Duration::from_secs(3) * flap;
            let gone = if flap % 2 == 0 { eth0(false) } else { BTreeMap::new() };
            damping.observe(&gone, at);
            let back = at + Duration::from_millis(1500);
            damping.observe(&eth0(true), back);
            assert!(damping.damps(&eth0(true), 2));
            assert_eq!(damping.deadline(), Some(back + DAMPED));
        }
    }
}
