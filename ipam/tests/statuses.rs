//! What the status of an object shows is given to nobody else.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use berth_ipam::{Family, Scope};
use support::{data, give, ip, ledger, listening, pinned, reason, release_all, service, single};

#[test]
fn an_address_is_out_of_the_pool_for_as_long_as_anybody_shows_it() {
    let mut ledger = ledger(&[("range-global", "192.0.2.1-192.0.2.2"), ("reuse-delay", "0s")]);
    let (kept, other) = (service("mallory/kept"), service("other/balanced"));
    give(&mut ledger, &single("mallory/kept")).unwrap();
    assert!(!ledger.show(&kept, [ip("192.0.2.1")]), "it is its own");
    release_all(&mut ledger, &kept, Duration::ZERO);
    ledger.show(&other, [ip("192.0.2.1"), ip("0.0.0.0"), ip("203.0.113.1")]);
    assert_eq!(
        reason(give(&mut ledger, &pinned(single("shop/pin"), &["192.0.2.1"]))),
        "AddressResting"
    );
    assert_eq!(give(&mut ledger, &single("shop/web")).unwrap(), ["192.0.2.2"]);
    let refused = give(&mut ledger, &single("shop/late"));
    assert!(refused.unwrap_err().to_string().contains("1 rest"), "it is told");
    assert_eq!(ledger.usage(&Scope::Global, Family::V4).resting, 1);
    let counted = |ledger: &berth_ipam::Ledger, name: &str| ledger.counted_in(name).shown;
    assert_eq!((counted(&ledger, "mallory"), counted(&ledger, "other")), (1, 1), "of the pool");
    // Other pools: it stays so.
    ledger.update_pools(&data(&[("range-global", "192.0.2.1-192.0.2.3"), ("reuse-delay", "0s")]));
    assert_eq!(give(&mut ledger, &single("shop/late")).unwrap(), ["192.0.2.3"]);
    assert!(ledger.show(&kept, []));
    assert_eq!(reason(give(&mut ledger, &single("shop/more"))), "PoolExhausted");
    assert!(!ledger.hide(&other, Some("another uid")) && ledger.hide(&other, Some(&other.uid)));
    assert_eq!(give(&mut ledger, &single("shop/more")).unwrap(), ["192.0.2.1"]);
    assert_eq!(ledger.showing().count(), 0);
}

#[test]
fn one_made_anew_under_the_name_shows_only_what_it_shows_itself() {
    let mut ledger = ledger(&[("range-global", "192.0.2.1-192.0.2.1")]);
    let mut web = service("shop/web");
    ledger.show(&web, [ip("192.0.2.1")]);
    web.uid = "another".to_owned();
    assert!(ledger.show(&web, []));
    assert_eq!(give(&mut ledger, &single("shop/other")).unwrap(), ["192.0.2.1"]);
}

#[test]
fn nobody_joins_an_address_that_one_shows_who_is_no_holder() {
    let keys = [("range-global", "192.0.2.1-192.0.2.2"), ("allow-share-global", "true")];
    let mut ledger = ledger(&keys);
    let tcp = |name: &str, port| listening(single(name), &[(berth_ipam::Protocol::Tcp, port)]);
    give(&mut ledger, &tcp("shop/web", 80)).unwrap();
    ledger.show(&service("shop/web"), [ip("192.0.2.1")]);
    assert_eq!(give(&mut ledger, &tcp("shop/admin", 443)).unwrap(), ["192.0.2.1"]);
    ledger.show(&service("shop/left"), [ip("192.0.2.1")]);
    assert_eq!(give(&mut ledger, &tcp("shop/dns", 53)).unwrap(), ["192.0.2.2"]);
    let pin = pinned(tcp("shop/pin", 53), &["192.0.2.1"]);
    assert_eq!(reason(give(&mut ledger, &pin)), "AddressResting");
    assert!(ledger.show(&service("shop/left"), []), "who waits for it is looked at again");
    give(&mut ledger, &pin).unwrap();
}
