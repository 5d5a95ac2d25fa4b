//! Address sets against sets of single addresses, and at the ends of both families.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_ipam::{AddressSet, Family, Range};
use proptest::collection::vec;
use proptest::prelude::*;

fn range(text: &str) -> Range {
    text.parse().unwrap()
}

/// Ranges that reach either end of either family.
fn ranges() -> impl Strategy<Value = Range> {
    (any::<bool>(), any::<bool>(), 0..24u8, 0..6u8).prop_map(|(v6, high, at, more)| {
        let (first, last) = (u32::from(at), u32::from(at + more));
        let address = |n: u32| -> IpAddr {
            match (v6, high) {
                (false, false) => Ipv4Addr::from(n).into(),
                (false, true) => Ipv4Addr::from(u32::MAX - 29 + n).into(),
                (true, false) => Ipv6Addr::from(u128::from(n)).into(),
                (true, true) => Ipv6Addr::from(u128::MAX - 29 + u128::from(n)).into(),
            }
        };
        Range::new(address(first), address(last)).unwrap()
    })
}

fn listed(range: Range) -> Vec<IpAddr> {
    let mut all = vec![range.first()];
    while *all.last().unwrap() != range.last() {
        all.push(match all.last().unwrap() {
            IpAddr::V4(v4) => Ipv4Addr::from(u32::from(*v4) + 1).into(),
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(*v6) + 1).into(),
        });
    }
    all
}

fn list(set: &AddressSet) -> BTreeSet<IpAddr> {
    set.iter().flat_map(listed).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_set_has_exactly_what_was_put_in_and_not_taken_out(steps in vec((any::<bool>(), ranges()), 0..20)) {
        let mut set = AddressSet::new();
        let mut naive = BTreeSet::new();
        for (put, range) in steps {
            if put {
                set.insert(range);
                naive.extend(listed(range));
            } else {
                set.remove(range);
                listed(range).iter().for_each(|address| _ = naive.remove(address));
            }
            prop_assert_eq!(list(&set), naive.clone());
            for family in Family::ALL {
                let of = |address: &&IpAddr| Family::of(**address) == family;
                prop_assert_eq!(set.first(family), naive.iter().find(of).copied());
                prop_assert_eq!(set.last(family), naive.iter().rfind(of).copied());
                prop_assert_eq!(set.has(family), naive.iter().any(|address| of(&address)));
            }
            prop_assert_eq!(set.is_empty(), naive.is_empty());
        }
    }

    #[test]
    fn sets_combine_as_sets_of_addresses_do(
        one in vec(ranges(), 0..8),
        other in vec(ranges(), 0..8),
        probe in ranges(),
    ) {
        let (a, b): (AddressSet, AddressSet) = (one.into_iter().collect(), other.into_iter().collect());
        let (x, y) = (list(&a), list(&b));
        prop_assert_eq!(list(&a.intersection(&b)), x.intersection(&y).copied().collect());
        let (mut union, mut difference) = (a.clone(), a.clone());
        union.extend_with(&b);
        difference.subtract(&b);
        prop_assert_eq!(list(&union), x.union(&y).copied().collect());
        prop_assert_eq!(list(&difference), x.difference(&y).copied().collect());
        let probed: BTreeSet<IpAddr> = listed(probe).into_iter().collect();
        let inside: BTreeSet<IpAddr> = a.overlapping(probe).flat_map(listed).collect();
        prop_assert_eq!(&inside, &x.intersection(&probed).copied().collect());
        for address in probed {
            prop_assert_eq!(a.contains(address), x.contains(&address));
        }
    }
}

#[test]
fn adjacent_ranges_merge() {
    let set: AddressSet = ["10.0.0.0/25", "10.0.0.128/25"].map(range).into_iter().collect();
    assert_eq!(set.iter().map(|range| range.to_string()).collect::<Vec<_>>(), ["10.0.0.0/24"]);
}

#[test]
fn whole_families_are_sets_like_any_other() {
    let mut set: AddressSet = ["0.0.0.0/0", "::/0"].map(range).into_iter().collect();
    assert_eq!(
        set.iter().map(|range| range.to_string()).collect::<Vec<_>>(),
        ["0.0.0.0/0", "::/0"]
    );
    set.remove(range("::"));
    set.remove(range("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    set.remove(range("255.255.255.255"));
    assert_eq!(set.first(Family::V6).unwrap().to_string(), "::1");
    assert_eq!(set.last(Family::V4).unwrap().to_string(), "255.255.255.254");
    assert_eq!(
        set.last(Family::V6).unwrap().to_string(),
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"
    );
}
