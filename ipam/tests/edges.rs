//! The smallest and the largest pools, and the last addresses of both families.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use berth_ipam::{AddressSet, Family, Ledger, Range, Scope, Usage};
use support::*;

/// Everything that a pool hands out until it is empty.
fn drained(pool: &str, family: Family, more: &[(&str, &str)]) -> Vec<String> {
    let keys = [&[("cidr-global", pool)], more].concat();
    let mut ledger = ledger(&keys);
    let request = |number| match family {
        Family::V4 => single(&format!("shop/{number}")),
        Family::V6 => single_v6(&format!("shop/{number}")),
    };
    (0..).map_while(|number| give(&mut ledger, &request(number)).ok()).flatten().collect()
}

#[test]
fn the_smallest_pools_give_all_they_have() {
    let all = [("avoid-buggy-ips", "false"), ("skip-end-ips-in-cidr", "true")];
    assert_eq!(drained("192.0.2.0/32", Family::V4, &all), ["192.0.2.0"]);
    assert_eq!(drained("192.0.2.254/31", Family::V4, &all), ["192.0.2.254", "192.0.2.255"]);
    assert_eq!(drained("192.0.2.0/30", Family::V4, &all), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(drained("2001:db8::/128", Family::V6, &all), ["2001:db8::"]);
    assert_eq!(drained("2001:db8::/127", Family::V6, &all), ["2001:db8::", "2001:db8::1"]);
}

#[test]
fn a_pool_of_nothing_but_buggy_addresses_is_exhausted() {
    for pool in ["192.0.2.0/32", "192.0.2.255", "192.0.2.255-192.0.3.0"] {
        assert_eq!(drained(pool, Family::V4, &[]), [""; 0], "{pool}");
        let usage = ledger(&[("cidr-global", pool)]).usage(&Scope::Global, Family::V4);
        assert_eq!(usage.free, 0, "{pool}");
    }
}

#[test]
fn the_last_addresses_of_each_family_are_handed_out_up_to_those_that_no_host_can_have() {
    let all = [("avoid-buggy-ips", "false")];
    assert_eq!(
        drained("223.255.255.254-224.0.0.9", Family::V4, &all),
        ["223.255.255.254", "223.255.255.255"]
    );
    assert_eq!(drained("255.255.255.252/30", Family::V4, &all), [""; 0]);
    let last = "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    assert_eq!(drained(last, Family::V6, &[]), [last]);
    let multicast = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127";
    assert_eq!(drained(multicast, Family::V6, &[]), [""; 0]);
}

#[test]
fn pools_that_overlap_up_to_the_very_last_address_are_cut_once() {
    let ledger =
        ledger(&[("cidr-a", "::/0"), ("cidr-b", "ffff::/16"), ("cidr-global", "0.0.0.0/0")]);
    let overlaps = ledger.overlaps();
    assert_eq!(overlaps.len(), 1);
    let shared: Vec<Range> = overlaps[0].addresses.iter().collect();
    assert_eq!(shared, ["ffff::/16".parse().unwrap()]);
    assert_eq!(ledger.usage(&Scope::of("a"), Family::V6).size, u128::MAX);
    assert_eq!(ledger.usage(&Scope::Global, Family::V4).size, 1 << 32);
}

#[test]
fn whole_families_serve_as_pools() {
    let mut ledger = ledger(&[("cidr-global", "0.0.0.0/0,::/0"), ("search-order", "desc")]);
    assert_eq!(give(&mut ledger, &single("shop/a")).unwrap(), ["223.255.255.254"]);
    assert_eq!(
        give(&mut ledger, &single_v6("shop/b")).unwrap(),
        ["fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
    );
    let everything: AddressSet = Family::ALL.into_iter().map(Range::all).collect();
    let before = ledger.usage(&Scope::Global, Family::V6);
    ledger.reserve("everything", everything);
    assert_eq!(ledger.usage(&Scope::Global, Family::V6).free, 0);
    ledger.reserve("everything", AddressSet::new());
    assert_eq!(ledger.usage(&Scope::Global, Family::V6), before);
}

#[test]
fn a_slash_64_counts_its_addresses() {
    let mut ledger = ledger(&[("cidr-global", "2001:db8::/64")]);
    give(&mut ledger, &single_v6("shop/a")).unwrap();
    let size = 1 << 64;
    assert_eq!(
        ledger.usage(&Scope::Global, Family::V6),
        Usage { size, used: 1, resting: 0, free: size - 1 }
    );
}

#[test]
fn buggy_addresses_in_front_of_a_free_one_are_skipped() {
    // 10.0.0.0/8 with everything reserved but its last /24: 65,535 pairs of .255 and .0 lie before it.
    let mut ledger: Ledger = ledger(&[("cidr-global", "10.0.0.0/8")]);
    let taken: AddressSet =
        [Range::new(ip("10.0.0.0"), ip("10.255.254.255")).unwrap()].into_iter().collect();
    ledger.reserve("taken", taken);
    assert_eq!(give(&mut ledger, &single("shop/a")).unwrap(), ["10.255.255.1"]);
    assert_eq!(ledger.usage(&Scope::Global, Family::V4).free, 253);
}
