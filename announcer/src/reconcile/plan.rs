//! The steps that turn what the kernel shows into what is desired. Pure, and the same at start, on every event and on
//! every tick: whatever was lost, flushed or left half done is mended by the same steps.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::desired::Desired;
use crate::kernel::{Binding, Guard, Host, Lifetime, Step};

/// Lists the steps from `host` and `guard` to `desired`: removals first, then the guard, then what it covers.
///
/// An address gets the lifetime of the hold it stands on, so that the kernel drops it when this program does not live
/// to do so. It is renewed when it falls more than `slack` behind the hold.
pub(super) fn plan(
    desired: &Desired,
    host: &Host,
    guard: &Guard,
    slack: Duration,
    now: Instant,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let held = |binding: &Binding| {
        let place = desired.addresses.get(&binding.address);
        place.is_some_and(|place| place.attach.index() == binding.index && place.until > now)
    };
    steps.extend(host.ours.keys().filter(|binding| !held(binding)).copied().map(Step::Remove));
    // What is bound there goes first, in the round before.
    let bound: BTreeSet<u32> = match host.made.is_empty() {
        true => [].into(),
        false => host.ours.keys().map(|binding| binding.index).collect(),
    };
    let needed = desired.vlans.keys().filter_map(|name| host.interfaces.get(name));
    let needed: BTreeSet<u32> = needed.map(|interface| interface.index).collect();
    let idle = host.made.iter().filter(|index| !bound.contains(*index) && !needed.contains(*index));
    steps.extend(idle.copied().map(Step::RemoveLink));
    let missing = desired.vlans.iter().filter(|(name, _)| !host.interfaces.contains_key(*name));
    steps.extend(missing.map(|(name, vlan)| Step::MakeVlan(name.clone(), *vlan)));
    let guarded = match guard {
        // What cannot be had as a whole may be had in part.
        Guard::Unavailable(_) | Guard::Unknown => false,
        Guard::Holds(guarded) => *guarded == desired.guard,
    };
    if !guarded {
        steps.push(Step::Guard(desired.guard.clone()));
    }
    for (address, place) in desired.addresses.iter().filter(|(_, place)| place.until > now) {
        let binding = Binding { index: place.attach.index(), address: *address };
        let wanted = Lifetime::Until(place.until);
        let needed = match host.ours.get(&binding) {
            Some(lifetime) => lifetime.is_stale(wanted, slack),
            // Bound before it is guarded it would refuse what kube-proxy does not serve yet.
            None => match guard {
                Guard::Unknown => false,
                Guard::Unavailable(_) => true,
                Guard::Holds(guarded) => place.ports.is_subset(&guarded.ports),
            },
        };
        if needed {
            steps.push(Step::Bind(binding, wanted));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::kernel::{Guarded, Interface, Port, Vlan};
    use crate::reconcile::desired::Place;
    use crate::vip::{Attach, Link};

    const SLACK: Duration = Duration::from_secs(4);

    fn port(address: &str) -> Port {
        Port { address: address.parse().unwrap(), protocol: 6, port: 80 }
    }

    fn desired(addresses: &[&str], until: Instant) -> Desired {
        let mut desired = Desired::default();
        for address in addresses {
            let attach = Attach::L2(Link { index: 2, mac: [2; 6] });
            let place = Place { attach, until, answers: true, ports: [port(address)].into() };
            desired.addresses.insert(address.parse().unwrap(), place);
            desired.guard.ports.insert(port(address));
        }
        desired
    }

    fn binding(index: u32, address: &str) -> Binding {
        Binding { index, address: address.parse().unwrap() }
    }

    fn host(ours: &[(u32, &str, Lifetime)]) -> Host {
        let ours =
            ours.iter().map(|(index, a, lifetime)| (binding(*index, a), *lifetime)).collect();
        Host { ours, ..Host::default() }
    }

    fn guarded(addresses: &[&str]) -> Guard {
        Guard::Holds(addresses.iter().map(|address| port(address)).collect::<BTreeSet<_>>().into())
    }

    #[test]
    fn removals_come_first_and_an_address_on_the_wrong_interface_is_removed() {
        let now = Instant::now();
        let until = Lifetime::Until(now + SLACK);
        let host = host(&[(2, "192.0.2.9", until), (3, "192.0.2.1", until)]);
        let wanted = desired(&["192.0.2.1"], now + SLACK);
        let steps = plan(&wanted, &host, &guarded(&["192.0.2.1"]), SLACK, now);
        assert_eq!(
            steps,
            [
                Step::Remove(binding(2, "192.0.2.9")),
                Step::Remove(binding(3, "192.0.2.1")),
                Step::Bind(binding(2, "192.0.2.1"), until),
            ]
        );
    }

    #[test]
    fn an_address_waits_for_its_guard_and_not_where_there_can_be_none() {
        let now = Instant::now();
        let wanted = desired(&["192.0.2.1"], now + SLACK);
        let empty = Host::default();
        let only_guard = [Step::Guard(wanted.guard.clone())];
        assert_eq!(plan(&wanted, &empty, &Guard::Unknown, SLACK, now), only_guard);
        assert_eq!(plan(&wanted, &empty, &guarded(&[]), SLACK, now), only_guard);
        let bind = [Step::Bind(binding(2, "192.0.2.1"), Lifetime::Until(now + SLACK))];
        assert_eq!(plan(&wanted, &empty, &guarded(&["192.0.2.1"]), SLACK, now), bind);
        let missing = Guard::Unavailable("no nft".into());
        let both = [&only_guard[..], &bind].concat();
        assert_eq!(plan(&wanted, &empty, &missing, SLACK, now), both, "it may be had in part");
    }

    #[test]
    fn what_is_as_desired_needs_no_step() {
        let now = Instant::now();
        let until = now + Duration::from_secs(10);
        let host = host(&[(2, "192.0.2.1", Lifetime::Until(until - Duration::from_secs(1)))]);
        let wanted = desired(&["192.0.2.1"], until);
        assert_eq!(plan(&wanted, &host, &guarded(&["192.0.2.1"]), SLACK, now), []);
    }

    #[test]
    fn a_lifetime_follows_the_hold() {
        let now = Instant::now();
        let until = now + Duration::from_secs(10);
        let wanted = desired(&["192.0.2.1"], until);
        let bind = [Step::Bind(binding(2, "192.0.2.1"), Lifetime::Until(until))];
        for lifetime in [Lifetime::Until(now + Duration::from_secs(5)), Lifetime::Forever] {
            let host = host(&[(2, "192.0.2.1", lifetime)]);
            assert_eq!(plan(&wanted, &host, &guarded(&["192.0.2.1"]), SLACK, now), bind);
        }
    }

    #[test]
    fn an_address_whose_hold_has_ended_is_removed() {
        let now = Instant::now();
        let host = host(&[(2, "192.0.2.1", Lifetime::Until(now + SLACK))]);
        let wanted = desired(&["192.0.2.1"], now);
        let steps = plan(&wanted, &host, &guarded(&["192.0.2.1"]), SLACK, now);
        assert_eq!(steps, [Step::Remove(binding(2, "192.0.2.1"))]);
    }

    #[test]
    fn a_vlan_is_made_when_it_is_needed_and_removed_after_its_last_address() {
        let now = Instant::now();
        let vlan = Vlan { parent: 2, id: 5 };
        let mut wanted = Desired::default();
        wanted.vlans.insert("eth0.5".to_owned(), vlan);
        let guard = Guard::Holds(Guarded::default());
        let steps = plan(&wanted, &Host::default(), &guard, SLACK, now);
        assert_eq!(steps, [Step::MakeVlan("eth0.5".to_owned(), vlan)]);
        let mut host = host(&[(7, "192.0.2.1", Lifetime::Forever)]);
        let made = Interface { index: 7, mac: Some([2; 6]), up: true, foreign: [].into() };
        host.interfaces.insert("eth0.5".to_owned(), made);
        assert_eq!(
            plan(&wanted, &host, &guard, SLACK, now),
            [Step::Remove(binding(7, "192.0.2.1"))]
        );
        host.made.insert(7);
        let none = Desired::default();
        let off = [Step::Remove(binding(7, "192.0.2.1"))];
        assert_eq!(plan(&none, &host, &guard, SLACK, now), off);
        host.ours.clear();
        assert_eq!(plan(&wanted, &host, &guard, SLACK, now), []);
        assert_eq!(plan(&none, &host, &guard, SLACK, now), [Step::RemoveLink(7)]);
        host.made.clear();
        assert_eq!(plan(&none, &host, &guard, SLACK, now), [], "one of the user's own");
    }

    #[test]
    fn nothing_desired_sweeps_everything_that_is_ours() {
        let now = Instant::now();
        let host =
            host(&[(2, "192.0.2.1", Lifetime::Forever), (2, "2001:db8::1", Lifetime::Forever)]);
        let steps = plan(&Desired::default(), &host, &Guard::Holds(Guarded::default()), SLACK, now);
        assert_eq!(steps.len(), 2);
    }
}
