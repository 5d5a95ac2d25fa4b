//! What an owner gets, keeps and is refused, one sentence each.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use berth_ipam::{
    AddressSet, Families, Family, FamilyPolicy, Grant, Ledger, Origin, Owner, OwnerKind, Request,
    Scope, allocate,
};
use support::*;

use FamilyPolicy::{PreferDualStack, RequireDualStack, SingleStack};

const BOTH: (&str, &str) = ("cidr-global", "192.0.2.8/30,2001:db8::8/126");

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn the_lowest_free_address_comes_first_and_the_highest_with_desc() {
    let mut low = ledger(&[("cidr-global", "192.0.2.8/30")]);
    assert_eq!(give(&mut low, &single("shop/a")).unwrap(), ["192.0.2.8"]);
    assert_eq!(give(&mut low, &single("shop/b")).unwrap(), ["192.0.2.9"]);
    let mut high = ledger(&[("cidr-global", "192.0.2.8/30"), ("search-order", "desc")]);
    assert_eq!(give(&mut high, &single("shop/a")).unwrap(), ["192.0.2.11"]);
    assert_eq!(give(&mut high, &single("shop/b")).unwrap(), ["192.0.2.10"]);
}

#[test]
fn a_held_address_is_never_given_twice_also_from_overlapping_pools() {
    let mut ledger = ledger(&[("cidr-a", "192.0.2.8/31"), ("range-b", "192.0.2.8-192.0.2.9")]);
    assert_eq!(give(&mut ledger, &single("a/x")).unwrap(), ["192.0.2.8"]);
    assert_eq!(give(&mut ledger, &single("b/x")).unwrap(), ["192.0.2.9"]);
    assert_eq!(reason(give(&mut ledger, &single("a/y"))), "PoolExhausted");
    assert_eq!(ledger.overlaps()[0].pools, [Scope::of("a"), Scope::of("b")]);
}

#[test]
fn a_second_insert_of_a_held_address_is_a_conflict_that_names_the_holder() {
    let mut ledger = Ledger::new();
    ledger.insert(ip("192.0.2.8"), Grant::new(service("shop/a"))).unwrap();
    let conflict = ledger.insert(ip("192.0.2.8"), Grant::new(service("shop/b"))).unwrap_err();
    assert_eq!(conflict.to_string(), "192.0.2.8 is held by Service shop/a");
    assert_eq!(held(&ledger, "shop/b"), [""; 0]);
}

#[test]
fn an_assigned_address_stays_whatever_happens_to_its_pool() {
    let mut ledger = ledger(&[("cidr-global", "192.0.2.8/30")]);
    give(&mut ledger, &single("shop/a")).unwrap();
    for keys in [
        &[("cidr-global", "198.51.100.0/24")][..],
        &[("cidr-global", "192.0.2.8/30"), ("exclude-global", "192.0.2.8")],
        &[("cidr-global", "192.0.2.8/30"), ("drain-global", "true")],
        &[("cidr-global", "192.0.2.8/30"), ("quota-shop", "0")],
        &[],
    ] {
        edit(&mut ledger, keys);
        assert_eq!(give(&mut ledger, &single("shop/a")).unwrap(), ["192.0.2.8"], "{keys:?}");
    }
}

#[test]
fn addresses_that_left_their_pool_are_reported_and_those_of_users_are_not() {
    let mut ledger = ledger(&[("cidr-global", "192.0.2.8/30")]);
    give(&mut ledger, &single("shop/a")).unwrap();
    give(&mut ledger, &pinned(single("shop/b"), &["203.0.113.5"])).unwrap();
    assert_eq!(ledger.strays(), []);
    edit(&mut ledger, &[("cidr-global", "192.0.2.9/32")]);
    let strays = ledger.strays();
    assert_eq!(strays.len(), 1);
    assert_eq!((strays[0].address, &strays[0].owner), (ip("192.0.2.8"), &service("shop/a")));
}

#[test]
fn buggy_addresses_are_left_out_unless_the_user_wants_them() {
    let pool = ("range-global", "192.0.2.254-192.0.3.1");
    let mut ledger = ledger(&[pool]);
    assert_eq!(give(&mut ledger, &single("shop/a")).unwrap(), ["192.0.2.254"]);
    assert_eq!(give(&mut ledger, &single("shop/b")).unwrap(), ["192.0.3.1"]);
    assert_eq!(reason(give(&mut ledger, &single("shop/c"))), "PoolExhausted");
    assert_eq!(
        give(&mut ledger, &pinned(single("shop/c"), &["192.0.3.0"])).unwrap(),
        ["192.0.3.0"]
    );
    edit(&mut ledger, &[pool, ("avoid-buggy-ips", "false")]);
    assert_eq!(give(&mut ledger, &single("shop/d")).unwrap(), ["192.0.2.255"]);
}

#[test]
fn an_ipv6_pool_has_no_buggy_addresses() {
    let mut ledger = ledger(&[("range-global", "2001:db8::ff-2001:db8::100")]);
    assert_eq!(give(&mut ledger, &single_v6("shop/a")).unwrap(), ["2001:db8::ff"]);
    assert_eq!(give(&mut ledger, &single_v6("shop/b")).unwrap(), ["2001:db8::100"]);
}

#[test]
fn a_freed_address_rests_before_it_is_given_again() {
    let mut ledger = ledger(&[("range-global", "192.0.2.8"), ("reuse-delay", "30s")]);
    give(&mut ledger, &single("shop/a")).unwrap();
    release_all(&mut ledger, &service("shop/a"), seconds(100));
    let refusal = give(&mut ledger, &single("shop/b")).unwrap_err();
    assert!(refusal.to_string().contains("1 rest after their release"), "{refusal}");
    assert_eq!(ledger.next_rested(), Some(seconds(130)));
    assert_eq!(ledger.advance(seconds(129)), 0);
    assert_eq!(reason(give(&mut ledger, &single("shop/b"))), "PoolExhausted");
    assert_eq!(ledger.advance(seconds(130)), 1);
    assert_eq!(give(&mut ledger, &single("shop/b")).unwrap(), ["192.0.2.8"]);
}

#[test]
fn a_resting_address_goes_back_at_once_only_to_an_object_of_the_same_name() {
    let mut ledger = ledger(&[("range-global", "192.0.2.8")]);
    give(&mut ledger, &single("shop/a")).unwrap();
    release_all(&mut ledger, &service("shop/a"), seconds(1));
    let other = pinned(single("shop/b"), &["192.0.2.8"]);
    assert_eq!(reason(give(&mut ledger, &other)), "AddressResting");
    let recreated = Owner::new(OwnerKind::Service, "shop", "a", "another uid");
    let again = pinned(Request::new(recreated, Families::single(Family::V4)), &["192.0.2.8"]);
    assert_eq!(give(&mut ledger, &again).unwrap(), ["192.0.2.8"]);
    assert_eq!(ledger.next_rested(), None);
}

#[test]
fn a_rest_that_began_before_a_restart_goes_on() {
    let mut ledger = ledger(&[("range-global", "192.0.2.8"), ("reuse-delay", "30s")]);
    ledger.rest(ip("192.0.2.8"), service("shop/gone"), seconds(5));
    assert_eq!(reason(give(&mut ledger, &single("shop/a"))), "PoolExhausted");
    ledger.advance(seconds(35));
    assert_eq!(give(&mut ledger, &single("shop/a")).unwrap(), ["192.0.2.8"]);
}

#[test]
fn an_address_that_is_set_aside_is_given_to_nobody_but_who_asks_for_it() {
    let mut ledger = ledger(&[("range-global", "192.0.2.8-192.0.2.9"), ("reuse-delay", "0s")]);
    ledger.set_aside(ip("192.0.2.8"), "shop", seconds(600));
    assert_eq!(give(&mut ledger, &single("shop/a")).unwrap(), ["192.0.2.9"]);
    assert_eq!(reason(give(&mut ledger, &single("shop/b"))), "PoolExhausted");
    // Neither an edit of the pools nor a release brings it back.
    edit(&mut ledger, &[("range-global", "192.0.2.8-192.0.2.10"), ("reuse-delay", "0s")]);
    let asks = pinned(single("shop/c"), &["192.0.2.8"]);
    assert_eq!(give(&mut ledger, &asks).unwrap(), ["192.0.2.8"]);
    release_all(&mut ledger, &service("shop/c"), seconds(100));
    assert_eq!(give(&mut ledger, &single("shop/b")).unwrap(), ["192.0.2.10"]);
    assert_eq!(ledger.next_rested(), Some(seconds(600)));
    assert_eq!(ledger.advance(seconds(599)), 0);
    assert_eq!(ledger.advance(seconds(600)), 1);
    assert_eq!(give(&mut ledger, &single("shop/d")).unwrap(), ["192.0.2.8"]);
}

#[test]
fn who_cannot_use_its_address_gets_another_within_its_quota() {
    let mut ledger = ledger(&[("range-global", "192.0.2.8-192.0.2.9"), ("quota-shop", "2")]);
    let web = single("shop/web");
    assert_eq!(give(&mut ledger, &web).unwrap(), ["192.0.2.8"]);
    ledger.set_aside(ip("192.0.2.8"), "shop", seconds(600));
    let current = vec![ip("192.0.2.8")];
    let elsewhere = Request { shuns: current.clone(), current, ..web };
    let allocation = allocate(&ledger, &elsewhere).unwrap();
    assert_eq!(allocation.addresses[0].address, ip("192.0.2.9"));
    assert_eq!(allocation.released, [ip("192.0.2.8")]);
    edit(&mut ledger, &[("range-global", "192.0.2.8")]);
    assert_eq!(allocate(&ledger, &elsewhere).unwrap_err().reason(), "PoolExhausted");
}

#[test]
fn an_insert_that_never_became_a_claim_is_taken_back_without_a_rest() {
    let mut ledger = ledger(&[("range-global", "192.0.2.8")]);
    give(&mut ledger, &single("shop/a")).unwrap();
    assert!(ledger.forget(&service("shop/a"), ip("192.0.2.8")));
    assert!(!ledger.forget(&service("shop/a"), ip("192.0.2.8")));
    assert_eq!(give(&mut ledger, &single("shop/b")).unwrap(), ["192.0.2.8"]);
}

#[test]
fn reserved_addresses_are_never_given_and_come_back_when_the_reservation_ends() {
    let mut ledger = ledger(&[("cidr-global", "192.0.2.8/31")]);
    let address = |text: &str| -> AddressSet { [ip(text)].into_iter().collect() };
    ledger.reserve("node x", address("192.0.2.8"));
    ledger.reserve("the control plane", address("192.0.2.8"));
    assert_eq!(give(&mut ledger, &single("shop/a")).unwrap(), ["192.0.2.9"]);
    let refusal = give(&mut ledger, &pinned(single("shop/b"), &["192.0.2.8"])).unwrap_err();
    assert_eq!(
        (refusal.reason(), refusal.to_string().contains("node x")),
        ("AddressReserved", true)
    );
    let overlaps = ledger.reserved_overlaps(|_| false);
    assert_eq!((overlaps.len(), &overlaps[0].pools), (1, &vec![Scope::Global]), "told once");
    ledger.reserve("node x", AddressSet::new());
    assert_eq!(reason(give(&mut ledger, &single("shop/b"))), "PoolExhausted");
    ledger.reserve("the control plane", address("203.0.113.1"));
    assert_eq!(give(&mut ledger, &single("shop/b")).unwrap(), ["192.0.2.8"]);
}

#[test]
fn a_quota_counts_services_and_bindings_together_and_lets_moves_through() {
    let mut ledger = ledger(&[("cidr-global", "192.0.2.8/29"), ("quota-shop", "2")]);
    give(&mut ledger, &single("shop/a")).unwrap();
    let binding = Owner::new(OwnerKind::EipBinding, "shop", "vm", "uid-of-vm");
    give(&mut ledger, &Request::new(binding, Families::single(Family::V4))).unwrap();
    assert_eq!(reason(give(&mut ledger, &single("shop/b"))), "QuotaExceeded");
    assert_eq!(
        reason(give(&mut ledger, &pinned(single("shop/b"), &["203.0.113.1"]))),
        "QuotaExceeded"
    );
    assert_eq!(
        give(&mut ledger, &pinned(single("shop/a"), &["192.0.2.15"])).unwrap(),
        ["192.0.2.15"]
    );
    assert_eq!(give(&mut ledger, &single("other/a")).unwrap().len(), 1);
    assert_eq!(ledger.held_in("shop"), 2);
}

#[test]
fn a_quota_with_room_for_one_gives_a_lenient_owner_one_family() {
    let mut ledger = ledger(&[BOTH, ("quota-shop", "1")]);
    assert_eq!(reason(give(&mut ledger, &dual("shop/a", RequireDualStack))), "QuotaExceeded");
    let allocation = allocate(&ledger, &dual("shop/a", PreferDualStack)).unwrap();
    assert_eq!(shown(&allocation), ["192.0.2.8"]);
    assert_eq!(allocation.refused[0].reason(), "QuotaExceeded");
}

#[test]
fn refusals_tell_no_pool_from_a_missing_family_and_a_draining_one() {
    let mut nothing = ledger(&[("cidr-other", "192.0.2.8/29")]);
    assert_eq!(reason(give(&mut nothing, &single("shop/a"))), "NoPool");
    let mut v6 = ledger(&[("cidr-global", "2001:db8::/64")]);
    assert_eq!(reason(give(&mut v6, &single("shop/a"))), "FamilyUnavailable");
    let mut draining = ledger(&[("cidr-global", "192.0.2.8/29"), ("drain-global", "true")]);
    assert_eq!(reason(give(&mut draining, &single("shop/a"))), "PoolDraining");
    let pin = pinned(single("shop/a"), &["192.0.2.9"]);
    assert_eq!(reason(give(&mut draining, &pin)), "PoolDraining");
}

#[test]
fn a_pool_whose_keys_were_never_good_hands_out_nothing_rather_than_global_addresses() {
    for bad in [
        ("cidr-shop", "x"),
        ("exclude-shop", "x"),
        ("drain-shop", "x"),
        ("quota-shop", "x"),
        ("exclude-global", "x"),
    ] {
        let mut ledger = Ledger::new();
        let errors = ledger.update_pools(&data(&[("cidr-global", "192.0.2.8/29"), bad]));
        assert_eq!(errors.len(), 1);
        let refusal = give(&mut ledger, &single("shop/a")).unwrap_err();
        assert_eq!(refusal.reason(), "InvalidPool", "{bad:?}");
        assert!(refusal.to_string().contains(bad.0), "{refusal}");
        let other = give(&mut ledger, &single("other/a"));
        assert_eq!(other.is_ok(), bad.0 != "exclude-global", "other namespaces go on: {bad:?}");
    }
}

#[test]
fn a_full_namespace_pool_overflows_only_if_told_to() {
    let keys = [("range-shop", "192.0.2.8"), ("cidr-global", "198.51.100.8/29")];
    let mut strict = ledger(&keys);
    give(&mut strict, &single("shop/a")).unwrap();
    assert_eq!(reason(give(&mut strict, &single("shop/b"))), "PoolExhausted");
    let mut open = ledger(&[keys[0], keys[1], ("overflow-shop", "global")]);
    give(&mut open, &single("shop/a")).unwrap();
    let allocation = give_at(&mut open, &single("shop/b"), Duration::ZERO).unwrap();
    assert_eq!(shown(&allocation), ["198.51.100.8"]);
    assert_eq!(allocation.addresses[0].pool, Some(Scope::Global));
}

#[test]
fn dual_stack_follows_policy_and_order() {
    let mut ledger = ledger(&[BOTH]);
    let v6_first = Families::new(PreferDualStack, [Family::V6, Family::V4]);
    let request = Request::new(service("shop/a"), v6_first);
    assert_eq!(give(&mut ledger, &request).unwrap(), ["2001:db8::8", "192.0.2.8"]);
    assert_eq!(
        give(&mut ledger, &dual("shop/b", RequireDualStack)).unwrap(),
        ["192.0.2.9", "2001:db8::9"]
    );
    assert_eq!(give(&mut ledger, &dual("shop/c", SingleStack)).unwrap(), ["192.0.2.10"]);
    let on_a_single_stack_cluster = Families::new(PreferDualStack, [Family::V4]);
    let request = Request::new(service("shop/d"), on_a_single_stack_cluster);
    assert_eq!(give(&mut ledger, &request).unwrap(), ["192.0.2.11"]);
}

#[test]
fn require_dual_stack_takes_both_or_none() {
    let mut ledger = ledger(&[("cidr-global", "192.0.2.8/30")]);
    assert_eq!(reason(give(&mut ledger, &dual("shop/a", RequireDualStack))), "FamilyUnavailable");
    assert_eq!(ledger.claims().count(), 0);
}

#[test]
fn prefer_dual_stack_takes_one_and_gains_the_second_when_it_becomes_possible() {
    let mut ledger = ledger(&[("cidr-global", "192.0.2.8/30")]);
    let request = dual("shop/a", PreferDualStack);
    let first = give_at(&mut ledger, &request, Duration::ZERO).unwrap();
    assert_eq!(
        (shown(&first), first.refused[0].reason()),
        (vec!["192.0.2.8".to_owned()], "FamilyUnavailable")
    );
    edit(&mut ledger, &[BOTH]);
    assert_eq!(give(&mut ledger, &request).unwrap(), ["192.0.2.8", "2001:db8::8"]);
}

#[test]
fn single_to_dual_keeps_the_first_address_and_back_again_releases_the_second() {
    let mut ledger = ledger(&[BOTH]);
    give(&mut ledger, &pinned(single("shop/a"), &["192.0.2.10"])).unwrap();
    let dual = dual("shop/a", RequireDualStack);
    assert_eq!(give(&mut ledger, &dual).unwrap(), ["192.0.2.10", "2001:db8::8"]);
    // The annotation still names both when the policy goes back.
    let back = pinned(single("shop/a"), &["192.0.2.10", "2001:db8::8"]);
    let allocation = give_at(&mut ledger, &back, Duration::ZERO).unwrap();
    assert_eq!(
        (shown(&allocation), allocation.released),
        (vec!["192.0.2.10".to_owned()], vec![ip("2001:db8::8")])
    );
    assert_eq!(allocation.refused, []);
}

#[test]
fn a_pin_outside_every_pool_is_given_and_counted() {
    let mut ledger = ledger(&[BOTH]);
    let allocation =
        give_at(&mut ledger, &pinned(single("shop/a"), &["203.0.113.9"]), Duration::ZERO).unwrap();
    let assigned = &allocation.addresses[0];
    assert_eq!((assigned.origin, &assigned.pool, assigned.shared), (Origin::Pinned, &None, false));
    assert_eq!(
        reason(give(&mut ledger, &pinned(single("other/b"), &["203.0.113.9"]))),
        "AddressInUse"
    );
}

#[test]
fn a_changed_pin_moves_the_owner_and_a_refused_one_leaves_it_where_it_is() {
    let mut ledger = ledger(&[BOTH]);
    give(&mut ledger, &single("shop/a")).unwrap();
    give(&mut ledger, &single("shop/b")).unwrap();
    assert_eq!(
        reason(give(&mut ledger, &pinned(single("shop/b"), &["192.0.2.8"]))),
        "AddressInUse"
    );
    assert_eq!(held(&ledger, "shop/b"), ["192.0.2.9"]);
    let moved =
        give_at(&mut ledger, &pinned(single("shop/b"), &["192.0.2.11"]), Duration::ZERO).unwrap();
    assert_eq!(
        (shown(&moved), moved.released),
        (vec!["192.0.2.11".to_owned()], vec![ip("192.0.2.9")])
    );
}

#[test]
fn a_pin_of_one_family_leaves_the_other_to_the_pool() {
    let mut ledger = ledger(&[BOTH]);
    let request = pinned(dual("shop/a", RequireDualStack), &["2001:db8::b"]);
    assert_eq!(give(&mut ledger, &request).unwrap(), ["192.0.2.8", "2001:db8::b"]);
}

#[test]
fn a_pin_of_a_family_that_the_owner_does_not_use_is_refused() {
    let mut ledger = ledger(&[BOTH]);
    assert_eq!(
        reason(give(&mut ledger, &pinned(single("shop/a"), &["2001:db8::b"]))),
        "FamilyUnavailable"
    );
    let both = pinned(single("shop/a"), &["192.0.2.9", "2001:db8::b"]);
    let allocation = give_at(&mut ledger, &both, Duration::ZERO).unwrap();
    assert_eq!(
        (shown(&allocation), allocation.refused[0].reason()),
        (vec!["192.0.2.9".to_owned()], "FamilyUnavailable")
    );
}

#[test]
fn nobody_can_pin_what_no_host_can_have_or_what_belongs_to_another_namespace() {
    let mut ledger = ledger(&[
        ("cidr-other", "192.0.2.8/30"),
        ("cidr-global", "198.51.100.8/30"),
        ("exclude-global", "203.0.113.1"),
    ]);
    for pin in [
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.5",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.9",
        "203.0.113.1",
    ] {
        assert_eq!(
            reason(give(&mut ledger, &pinned(single("shop/a"), &[pin]))),
            "AddressReserved",
            "{pin}"
        );
    }
    for pin in ["::a9fe:a9fe", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "fe80::1", "fec0::1"] {
        let refused = give(&mut ledger, &pinned(single_v6("shop/a"), &[pin]));
        assert_eq!(reason(refused), "AddressReserved", "{pin}");
    }
    assert_eq!(
        give(&mut ledger, &pinned(single("other/a"), &["198.51.100.9"])).unwrap(),
        ["198.51.100.9"]
    );
}

#[test]
fn a_dhcp_pool_gives_its_marker_to_everybody_and_nobody_holds_it() {
    let mut ledger = ledger(&[("cidr-global", "0.0.0.0/32, ::/128")]);
    for name in ["shop/a", "shop/b"] {
        let allocation =
            give_at(&mut ledger, &dual(name, RequireDualStack), Duration::ZERO).unwrap();
        assert_eq!(shown(&allocation), ["0.0.0.0", "::"]);
        assert!(allocation.addresses.iter().all(|assigned| assigned.origin == Origin::Dhcp));
    }
    assert_eq!(ledger.claims().count(), 0);
    let request = Request { current: vec![ip("0.0.0.0")], ..single("shop/a") };
    edit(&mut ledger, &[("cidr-global", "192.0.2.8/30")]);
    assert_eq!(give(&mut ledger, &request).unwrap(), ["0.0.0.0"], "it does not move by itself");
    assert_eq!(give(&mut ledger, &pinned(request, &["192.0.2.8"])).unwrap(), ["192.0.2.8"]);
    assert_eq!(give(&mut ledger, &pinned(single("shop/a"), &["0.0.0.0"])).unwrap(), ["0.0.0.0"]);
    assert_eq!(held(&ledger, "shop/a"), [""; 0]);
}

#[test]
fn of_two_claims_after_a_move_that_was_cut_short_the_object_decides() {
    let mut ledger = ledger(&[BOTH]);
    for address in ["192.0.2.8", "192.0.2.10"] {
        ledger.insert(ip(address), Grant::new(service("shop/a"))).unwrap();
    }
    let request = Request { current: vec![ip("192.0.2.10")], ..single("shop/a") };
    let allocation = allocate(&ledger, &request).unwrap();
    assert_eq!(
        (shown(&allocation), allocation.released),
        (vec!["192.0.2.10".to_owned()], vec![ip("192.0.2.8")])
    );
}
