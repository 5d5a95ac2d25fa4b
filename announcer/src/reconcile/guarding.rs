//! What is known of the guard, and how long addresses wait for it. Pure.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::desired::Desired;
use crate::kernel::Guard;

/// How long addresses wait for a guard of which nothing is heard: `nft` may hang, or the kernel under it. Without the
/// guard, connections to what kube-proxy does not serve yet are refused; without the address nobody is served.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of the guard.
#[derive(Debug)]
pub(super) struct Guarding {
    pub(super) known: Guard,
    /// Since when something else is to be guarded, and nothing is heard of it.
    since: Option<Instant>,
    /// Whether it was told that addresses wait no longer.
    told: bool,
}

impl Default for Guarding {
    fn default() -> Self {
        Self { known: Guard::Unknown, since: None, told: false }
    }
}

impl Guarding {
    /// Takes in what is told of it. Gives since when that was waited for.
    pub(super) fn take(&mut self, guard: Guard) -> Option<Instant> {
        (self.known, self.told) = (guard, false);
        self.since.take()
    }

    /// What there is, or may be soon. Whoever has waited too long goes on without.
    pub(super) fn expected(&mut self, desired: &Desired, now: Instant) -> Cow<'_, Guard> {
        let waits = match &self.known {
            Guard::Unavailable(_) => false,
            Guard::Unknown => !desired.addresses.is_empty(),
            Guard::Holds(guarded) => *guarded != desired.guard,
        };
        if !waits {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(now);
        }
        match self.missing(now) {
            Some(why) => Cow::Owned(Guard::Unavailable(why.into())),
            None => Cow::Borrowed(&self.known),
        }
    }

    /// Why addresses are bound without it, where they are.
    pub(super) fn missing(&self, now: Instant) -> Option<String> {
        let late = self.since.is_some_and(|since| since + PATIENCE <= now);
        let why = match &self.known {
            Guard::Unavailable(why) => why.to_string(),
            _ if late => format!("nothing heard of nft for {PATIENCE:?}"),
            _ => return None,
        };
        Some(format!("{why}; it is tried again"))
    }

    /// Whether it is news that it is waited for no longer. Whoever keeps the guard tells of one that cannot be had.
    pub(super) fn is_late_anew(&mut self, now: Instant) -> bool {
        let late = self.since.is_some_and(|since| since + PATIENCE <= now);
        late && !std::mem::replace(&mut self.told, true)
    }

    /// When it is waited for no longer.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE).filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::kernel::{Guarded, Port};

    #[test]
    fn what_is_not_heard_of_is_waited_for_and_then_missing_until_it_is_there() {
        let (mut guarding, begin) = (Guarding::default(), Instant::now());
        let port = Port { address: "192.0.2.1".parse().unwrap(), protocol: 6, port: 80 };
        let desired = Desired { guard: BTreeSet::from([port]).into(), ..Desired::default() };
        let holds = Guard::Holds(desired.guard.clone());
        assert!(guarding.take(Guard::Holds(Guarded::default())).is_none());
        assert_eq!(*guarding.expected(&desired, begin), Guard::Holds(Guarded::default()));
        assert_eq!(
            (guarding.deadline(begin), guarding.missing(begin)),
            (Some(begin + PATIENCE), None)
        );
        let late = begin + PATIENCE;
        assert!(matches!(*guarding.expected(&desired, late), Guard::Unavailable(_)));
        assert!(guarding.missing(late).unwrap().starts_with("nothing heard of nft for 5s"));
        assert_eq!(guarding.deadline(late), None, "no round follows the other");
        assert_eq!([begin, late, late].map(|now| guarding.is_late_anew(now)), [false, true, false]);
        assert_eq!(guarding.take(holds.clone()), Some(begin));
        assert_eq!(*guarding.expected(&desired, late), holds);
        assert_eq!(guarding.missing(late), None);
        guarding.take(Guard::Unavailable("starting nft: not found".into()));
        assert_eq!(
            guarding.missing(late).as_deref(),
            Some("starting nft: not found; it is tried again")
        );
    }
}
