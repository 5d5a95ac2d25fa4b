//! What the keys of the ConfigMap mean, and what a bad one does.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use berth_ipam::{Family, Order, Pools, Scope};
use proptest::array::uniform9;
use proptest::collection::vec;
use proptest::prelude::*;
use support::data;

fn pools(keys: &[(&str, &str)]) -> Pools {
    let mut pools = Pools::default();
    assert_eq!(pools.update(&data(keys)), []);
    pools
}

fn addresses(pools: &Pools, scope: &Scope) -> Vec<String> {
    let pool = pools.pool(scope).unwrap();
    pool.addresses().iter().map(|range| range.to_string()).collect()
}

fn offered(keys: &[(&str, &str)]) -> Vec<String> {
    let pools = pools(keys);
    let pool = pools.pool(&Scope::Global).unwrap();
    pool.offered().iter().map(|range| range.to_string()).collect()
}

fn serving(pools: &Pools, namespace: &str) -> Vec<Scope> {
    pools.serving(namespace).into_iter().map(|(scope, _)| scope.clone()).collect()
}

#[test]
fn a_namespace_pool_is_the_union_of_both_its_keys_in_either_notation() {
    let pools = pools(&[
        ("cidr-shop", "192.0.2.0/30, 192.0.2.16-192.0.2.19,2001:db8::/127"),
        ("range-shop", "192.0.2.4-192.0.2.7,2001:db8::2/127, 198.51.100.7,"),
    ]);
    assert_eq!(
        addresses(&pools, &Scope::of("shop")),
        ["192.0.2.0/29", "192.0.2.16/30", "198.51.100.7", "2001:db8::/126"]
    );
}

#[test]
fn global_serves_only_namespaces_without_a_key_of_their_own() {
    let pools =
        pools(&[("cidr-global", "192.0.2.0/24"), ("range-shop", "198.51.100.1-198.51.100.2")]);
    assert_eq!(serving(&pools, "shop"), [Scope::of("shop")]);
    assert_eq!(serving(&pools, "other"), [Scope::Global]);
}

#[test]
fn overflow_adds_the_global_pool_behind_the_own_one() {
    let keys = [
        ("cidr-global", "192.0.2.0/24"),
        ("cidr-shop", "198.51.100.0/24"),
        ("overflow-shop", "global"),
    ];
    assert_eq!(serving(&pools(&keys), "shop"), [Scope::of("shop"), Scope::Global]);
}

#[test]
fn the_namespace_called_global_shares_its_keys_with_the_global_pool() {
    let pools = pools(&[
        ("cidr-global", "192.0.2.0/24"),
        ("quota-global", "3"),
        ("overflow-global", "global"),
    ]);
    assert_eq!(serving(&pools, "global"), [Scope::Global]);
    assert_eq!(serving(&pools, "other"), [Scope::Global]);
    assert_eq!((pools.quota("global"), pools.quota("other")), (Some(3), None));
}

#[test]
fn sharing_and_interface_fall_back_to_the_global_key() {
    let pools = pools(&[
        ("allow-share-global", "true"),
        ("allow-share-shop", "false"),
        ("interface-global", "eth0"),
        ("interface-shop", "auto"),
    ]);
    assert!(pools.allows_sharing("other") && !pools.allows_sharing("shop"));
    assert_eq!((pools.interface("other"), pools.interface("shop")), (Some("eth0"), Some("auto")));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let pools = Pools::default();
    assert_eq!(pools.order(), Order::Ascending);
    assert_eq!(pools.reuse_delay(), Duration::from_secs(60));
    assert!(pools.avoids_buggy());
    assert!(!pools.allows_sharing("shop"));
    assert_eq!((pools.quota("shop"), pools.interface("shop")), (None, None));
}

#[test]
fn skipped_ends_are_those_of_each_ipv4_prefix() {
    let ends = ("skip-end-ips-in-cidr", "true");
    assert_eq!(offered(&[("cidr-global", "10.0.0.16/29"), ends]), ["10.0.0.17-10.0.0.22"]);
    assert_eq!(
        offered(&[("cidr-global", "10.0.0.16/30,10.0.0.20/30"), ends]),
        ["10.0.0.17-10.0.0.18", "10.0.0.21-10.0.0.22"]
    );
    assert_eq!(offered(&[("range-global", "10.0.0.16-10.0.0.23"), ends]), ["10.0.0.16/29"]);
    assert_eq!(
        offered(&[("cidr-global", "10.0.0.16/29"), ("range-global", "10.0.0.16"), ends]),
        ["10.0.0.16-10.0.0.22"]
    );
    for whole in ["10.0.0.16/31", "10.0.0.16", "2001:db8::/64"] {
        assert_eq!(offered(&[("cidr-global", whole), ends]), [whole], "{whole}");
    }
}

#[test]
fn excluded_addresses_are_never_offered() {
    assert_eq!(
        offered(&[("cidr-global", "10.0.0.16/29"), ("exclude-global", "10.0.0.17,10.0.0.20/30")]),
        ["10.0.0.16", "10.0.0.18/31"]
    );
    let pools = pools(&[("cidr-shop", "10.0.0.16/30"), ("exclude-global", "10.0.0.16/31")]);
    let offered = pools.pool(&Scope::of("shop")).unwrap().offered();
    assert!(!offered.contains(support::ip("10.0.0.17")), "excluded for everybody");
}

#[test]
fn draining_takes_a_whole_pool_or_a_part_of_it() {
    let part = offered(&[("cidr-global", "10.0.0.16/29"), ("drain-global", "10.0.0.16/30")]);
    assert_eq!(part, ["10.0.0.20/30"]);
    assert_eq!(offered(&[("cidr-global", "10.0.0.16/29"), ("drain-global", "true")]), [""; 0]);
    assert_eq!(
        offered(&[("cidr-global", "10.0.0.16/29"), ("drain-global", "false")]),
        ["10.0.0.16/29"]
    );
}

#[test]
fn addresses_that_no_host_can_have_are_not_offered() {
    let pools = pools(&[("cidr-global", "0.0.0.0/0,::/0")]);
    let offered = pools.pool(&Scope::Global).unwrap().offered();
    for address in [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "240.0.0.0",
        "255.255.255.254",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "::ffff:10.0.0.1",
    ] {
        assert!(!offered.contains(support::ip(address)), "{address}");
    }
    assert_eq!(offered.first(Family::V4), Some(support::ip("1.0.0.0")));
    assert_eq!(offered.first(Family::V6), Some(support::ip("::1:0:0")));
}

#[test]
fn a_bad_value_is_named_with_its_key_and_what_is_accepted() {
    for (key, value, problem, accepted) in [
        ("cidr-shop", "192.0.2.0/33", "`192.0.2.0/33` is neither", "comma list"),
        ("range-global", "192.0.2.9-192.0.2.1", "reversed", "comma list"),
        ("range-global", "192.0.2.1-2001:db8::1", "mixes", "comma list"),
        ("exclude-shop", "eth0", "neither", "comma list"),
        ("drain-shop", "maybe", "neither", "true, false"),
        ("quota-shop", "-1", "no whole number", "0 or more"),
        ("namespace-quota", "-1", "no whole number", "0 or more"),
        ("pins-shop", "pools", "`pools` is neither", "any, pool, or a comma list"),
        ("pins-global", "", "empty", "any, pool, or a comma list"),
        ("share-with-shop", "a,B_c", "`B_c` is no name of a namespace", "comma list of namespaces"),
        ("overflow-shop", "other", "no pool", "global or none"),
        ("allow-share-shop", "yes", "neither true nor false", "true or false"),
        ("interface-shop", "eth0/1", "character", "network interface"),
        ("skip-end-ips-in-cidr", "2", "neither true nor false", "true or false"),
        ("avoid-buggy-ips", "", "neither true nor false", "true or false"),
        ("reuse-delay", "soon", "no duration", "60s"),
    ] {
        let errors = Pools::default().update(&data(&[(key, value)]));
        let text = errors[0].to_string();
        for part in [&format!("key `{key}`"), &format!("value `{value}`"), problem, accepted] {
            assert!(text.contains(part), "`{part}` is missing in: {text}");
        }
    }
}

#[test]
fn a_bad_key_keeps_its_last_good_value_and_stops_nothing_else() {
    let mut pools = pools(&[("cidr-global", "192.0.2.0/29"), ("quota-shop", "2")]);
    let errors = pools.update(&data(&[
        ("cidr-global", "192.0.2.0/9000"),
        ("cidr-shop", "198.51.100.0/29"),
        ("quota-shop", "3"),
    ]));
    assert_eq!(errors.iter().map(|error| error.key.as_str()).collect::<Vec<_>>(), ["cidr-global"]);
    assert_eq!(addresses(&pools, &Scope::Global), ["192.0.2.0/29"]);
    assert_eq!(addresses(&pools, &Scope::of("shop")), ["198.51.100.0/29"]);
    assert_eq!(pools.quota("shop"), Some(3));
}

#[test]
fn an_empty_list_says_nothing_and_stops_nothing() {
    let keys = [
        ("cidr-global", ""),
        ("range-global", "192.0.2.4/31"),
        ("exclude-global", " , "),
        ("drain-global", ""),
        ("share-with-shop", ""),
        ("cidr-blog", ","),
    ];
    let pools = pools(&keys);
    assert_eq!(addresses(&pools, &Scope::Global), ["192.0.2.4/31"]);
    assert_eq!(serving(&pools, "shop"), [Scope::Global]);
    // What was meant to be the namespace's own is not taken from everybody.
    assert_eq!(serving(&pools, "blog"), [Scope::of("blog")]);
    assert!(pools.pool(&Scope::of("blog")).unwrap().addresses().is_empty());
    let empty = data(&keys);
    let empty: Vec<&str> = Pools::empty_keys(&empty).into_iter().map(|(key, _)| key).collect();
    let all = ["cidr-blog", "cidr-global", "drain-global", "exclude-global", "share-with-shop"];
    assert_eq!(empty, all);
}

#[test]
fn an_empty_limit_is_none_that_is_accepted() {
    for key in ["pins-global", "quota-shop", "namespace-quota"] {
        assert_eq!(Pools::default().update(&data(&[(key, "")])).len(), 1, "{key}");
        assert_eq!(Pools::empty_keys(&data(&[(key, "")])), [], "{key}");
    }
}

#[test]
fn a_removed_key_is_forgotten_even_if_it_was_bad_before() {
    let mut pools = pools(&[("cidr-global", "192.0.2.0/29")]);
    pools.update(&data(&[("cidr-global", "garbage")]));
    pools.update(&data(&[]));
    assert!(pools.pool(&Scope::Global).is_none());
    assert_eq!(pools.errors().count(), 0);
}

#[test]
fn keys_that_mean_nothing_are_listed_for_a_check() {
    let misspelt =
        data(&[("cdir-global", "192.0.2.0/24"), ("cidr-", "x"), ("cidr-global", "192.0.2.0/24")]);
    assert_eq!(Pools::unknown_keys(&misspelt), ["cdir-global", "cidr-"]);
    assert_eq!(Pools::default().update(&misspelt), []);
}

/// Values of one key: two good ones, a bad one, and none.
const EDITS: [(&str, [&str; 3]); 9] = [
    ("cidr-global", ["192.0.2.0/29", "192.0.2.0/30,2001:db8::/64", "192.0.2.0/29,"]),
    ("cidr-shop", ["198.51.100.0/24", "198.51.100.0/25", "198.51.100.0/240"]),
    ("exclude-shop", ["198.51.100.1", "198.51.100.2-198.51.100.9", "198.51.100.2-198.51.100.1"]),
    ("quota-shop", ["1", "2", "many"]),
    ("avoid-buggy-ips", ["true", "false", "?"]),
    ("reuse-delay", ["1s", "2s", "two seconds"]),
    ("pins-shop", ["any", "203.0.113.7", "pools"]),
    ("share-with-shop", ["blog", "blog,default", "-"]),
    ("namespace-quota", ["1", "2", "many"]),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant 11: fail static on bad configuration.
    #[test]
    fn a_history_of_edits_means_what_its_last_good_values_mean(
        history in vec(uniform9(0..4usize), 1..8),
    ) {
        let mut pools = Pools::default();
        let mut good: BTreeMap<String, String> = BTreeMap::new();
        let mut never_good = false;
        for edit in history {
            let mut now = BTreeMap::new();
            never_good = false;
            for ((key, values), choice) in EDITS.iter().zip(edit) {
                let Some(value) = values.get(choice) else { _ = good.remove(*key); continue };
                now.insert((*key).to_owned(), (*value).to_owned());
                // The trailing comma is tolerated, so that key has no bad value.
                if choice < 2 || *key == "cidr-global" {
                    good.insert((*key).to_owned(), (*value).to_owned());
                } else {
                    never_good |= !good.contains_key(*key);
                }
            }
            let bad: Vec<String> = pools.update(&now).into_iter().map(|error| error.key).collect();
            let differs = |(key, value): &(&String, &String)| good.get(*key) != Some(*value);
            prop_assert_eq!(bad, now.iter().filter(differs).map(|(key, _)| key.clone()).collect::<Vec<_>>());
        }
        if !never_good {
            let mut fresh = Pools::default();
            fresh.update(&good);
            prop_assert!(pools.iter().eq(fresh.iter()));
            prop_assert_eq!(pools.quota("shop"), fresh.quota("shop"));
            prop_assert_eq!(pools.quota("other"), fresh.quota("other"));
            prop_assert_eq!(pools.with_any_pin(), fresh.with_any_pin());
            prop_assert_eq!(pools.reuse_delay(), fresh.reuse_delay());
            prop_assert_eq!(pools.avoids_buggy(), fresh.avoids_buggy());
        }
    }

    #[test]
    fn no_text_makes_a_key_panic(key in 0..EDITS.len(), text in "[-0-9a-f:./, smh]{0,24}") {
        Pools::default().update(&data(&[(EDITS[key].0, &text)]));
    }
}
