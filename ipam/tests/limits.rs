//! What a namespace may have: how many addresses, and which it may ask for.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use berth_ipam::{Counted, Families, Family, Ledger, Owner, OwnerKind, Request, allocate};
use support::*;

const POOL: (&str, &str) = ("cidr-global", "192.0.2.8/29");
const ONE: (&str, &str) = ("quota-shop", "1");

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The Service of that name, made anew.
fn anew(name: &str) -> Request {
    let owner = service(name);
    let owner = Owner::new(OwnerKind::Service, owner.namespace, owner.name, "another uid");
    Request::new(owner, Families::single(Family::V4))
}

#[test]
fn what_rests_counts_against_the_quota_of_the_namespace_that_gave_it_back() {
    let mut ledger = ledger(&[POOL, ("quota-shop", "2")]);
    for (name, at) in [("shop/a", 0), ("shop/b", 0)] {
        give(&mut ledger, &single(name)).unwrap();
        release_all(&mut ledger, &service(name), seconds(at));
    }
    assert_eq!(ledger.counted_in("shop"), Counted { held: 0, resting: 2, aside: 0, shown: 0 });
    assert_eq!(
        give(&mut ledger, &single("shop/c")).unwrap_err().to_string(),
        "namespace shop holds 2 of the 2 addresses that `quota-shop` allows (2 of them rest after their release)"
    );
    give(&mut ledger, &single("other/a")).unwrap();
    ledger.advance(seconds(60));
    assert_eq!(give(&mut ledger, &single("shop/c")).unwrap().len(), 1);
}

#[test]
fn nobody_is_locked_out_by_the_address_that_it_left_itself() {
    let mut ledger = ledger(&[POOL, ONE]);
    give(&mut ledger, &single("shop/web")).unwrap();
    let moved = pinned(single("shop/web"), &["192.0.2.15"]);
    assert_eq!(give(&mut ledger, &moved).unwrap(), ["192.0.2.15"]);
    assert_eq!(ledger.counted_in("shop").total(), 2);
    // Back to where it was costs nothing, and a third address is one too many.
    let back = pinned(single("shop/web"), &["192.0.2.8"]);
    assert!(allocate(&ledger, &back).is_ok());
    let on = pinned(single("shop/web"), &["192.0.2.14"]);
    assert_eq!(reason(allocate(&ledger, &on)), "QuotaExceeded");
    assert_eq!(give(&mut ledger, &back).unwrap(), ["192.0.2.8"]);
    release_all(&mut ledger, &service("shop/web"), seconds(1));
    assert_eq!(ledger.counted_in("shop"), Counted { held: 0, resting: 2, aside: 0, shown: 0 });
    assert_eq!(reason(give(&mut ledger, &anew("shop/web"))), "QuotaExceeded");
}

#[test]
fn a_service_made_anew_is_excused_of_one_address_and_not_of_a_walk_through_the_pool() {
    let mut ledger = ledger(&[POOL, ONE]);
    give(&mut ledger, &single("shop/web")).unwrap();
    release_all(&mut ledger, &service("shop/web"), seconds(1));
    assert_eq!(reason(give(&mut ledger, &single("shop/other"))), "QuotaExceeded");
    assert_eq!(give(&mut ledger, &anew("shop/web")).unwrap(), ["192.0.2.9"]);
    release_all(&mut ledger, &anew("shop/web").owner, seconds(2));
    assert_eq!(reason(give(&mut ledger, &anew("shop/web"))), "QuotaExceeded");
    // One of them it may have again all the same.
    let again = pinned(anew("shop/web"), &["192.0.2.8"]);
    assert_eq!(give(&mut ledger, &again).unwrap(), ["192.0.2.8"]);
}

#[test]
fn what_is_set_aside_counts_against_the_quota_of_the_namespace_that_had_it() {
    let mut ledger = ledger(&[POOL, ("quota-shop", "2")]);
    let web = single("shop/web");
    give(&mut ledger, &web).unwrap();
    ledger.set_aside(ip("192.0.2.8"), "shop", seconds(600));
    assert_eq!(
        ledger.counted_in("shop"),
        Counted { held: 1, resting: 0, aside: 0, shown: 0 },
        "once"
    );
    let shuns = |address: &str| Request { shuns: vec![ip(address)], ..web.clone() };
    assert_eq!(give(&mut ledger, &shuns("192.0.2.8")).unwrap(), ["192.0.2.9"]);
    assert_eq!(ledger.counted_in("shop"), Counted { held: 1, resting: 1, aside: 0, shown: 0 });
    ledger.advance(seconds(60));
    assert_eq!(ledger.counted_in("shop"), Counted { held: 1, resting: 0, aside: 1, shown: 0 });
    // At full quota who holds an address that another host has keeps it.
    ledger.set_aside(ip("192.0.2.9"), "shop", seconds(700));
    assert_eq!(
        allocate(&ledger, &shuns("192.0.2.9")).unwrap_err().to_string(),
        "namespace shop holds 2 of the 2 addresses that `quota-shop` allows (1 of them are set aside, as another host \
         answers for them)"
    );
    ledger.advance(seconds(600));
    assert_eq!(give(&mut ledger, &shuns("192.0.2.9")).unwrap(), ["192.0.2.8"]);
}

#[test]
fn what_was_set_aside_by_nobody_known_counts_against_no_quota() {
    let mut ledger = ledger(&[POOL, ONE]);
    ledger.set_aside(ip("192.0.2.8"), "", seconds(600));
    assert_eq!(give(&mut ledger, &single("shop/a")).unwrap(), ["192.0.2.9"]);
}

#[test]
fn a_namespace_without_a_quota_of_its_own_has_that_of_everybody() {
    let keys = [POOL, ("namespace-quota", "1"), ("quota-shop", "2"), ("quota-default", "0")];
    let mut ledger = ledger(&keys);
    for name in ["shop/a", "shop/b", "other/a"] {
        give(&mut ledger, &single(name)).unwrap();
    }
    let refused = |ledger: &mut Ledger, name| give(ledger, &single(name)).unwrap_err().to_string();
    let text = "namespace other holds 1 of the 1 addresses that `namespace-quota` allows";
    assert_eq!(refused(&mut ledger, "other/b"), text);
    assert!(refused(&mut ledger, "shop/c").contains("2 addresses that `quota-shop` allows"));
    assert!(refused(&mut ledger, "default/a").contains("0 addresses that `quota-default` allows"));
}

#[test]
fn a_quota_of_everybody_that_was_never_good_stops_who_has_none_of_its_own() {
    let mut ledger = Ledger::new();
    ledger.update_pools(&data(&[POOL, ("namespace-quota", "many"), ("quota-shop", "2")]));
    let refusal = give(&mut ledger, &single("other/a")).unwrap_err();
    assert_eq!(refusal.reason(), "InvalidPool");
    assert!(refusal.to_string().contains("namespace-quota"), "{refusal}");
    assert!(give(&mut ledger, &single("shop/a")).is_ok());
}

#[test]
fn what_may_be_asked_for_is_any_the_pools_or_a_list() {
    let own = ("cidr-shop", "198.51.100.8/29");
    let answers = |pins: &[(&str, &str)]| {
        let keys: Vec<_> = [POOL, own].into_iter().chain(pins.iter().copied()).collect();
        let ledger = ledger(&keys);
        ["198.51.100.9", "192.0.2.9", "203.0.113.1", "203.0.113.200"].map(|pin| {
            match allocate(&ledger, &pinned(single("shop/a"), &[pin])) {
                Ok(_) => "",
                Err(refusal) => refusal.reason(),
            }
        })
    };
    const NO: &str = "AddressNotAllowed";
    assert_eq!(answers(&[]), ["", "", "", ""]);
    assert_eq!(answers(&[("pins-shop", "any"), ("pins-global", "pool")]), ["", "", "", ""]);
    assert_eq!(answers(&[("pins-global", "pool")]), ["", NO, NO, NO]);
    assert_eq!(answers(&[("pins-global", "pool"), ("overflow-shop", "global")]), ["", "", NO, NO]);
    assert_eq!(answers(&[("pins-shop", "203.0.113.0/25,192.0.2.9")]), ["", "", "", NO]);
    let excluded = [("pins-shop", "203.0.113.1"), ("exclude-shop", "203.0.113.1")];
    assert_eq!(answers(&excluded), ["", NO, "AddressReserved", NO]);
}

#[test]
fn a_refused_pin_names_the_address_the_key_and_what_is_accepted() {
    let text = |pins: &str| {
        let ledger = ledger(&[POOL, ("pins-global", pins)]);
        let asks = pinned(single("shop/a"), &["8.8.8.8"]);
        allocate(&ledger, &asks).unwrap_err().to_string()
    };
    let pool = "8.8.8.8 may not be asked for: key `pins-global` accepts addresses of a pool that serves the namespace";
    assert_eq!(text("pool"), pool);
    assert_eq!(
        text("203.0.113.0/24, 203.0.114.7"),
        format!("{pool} and `203.0.113.0/24,203.0.114.7`")
    );
    let many: Vec<String> = (0..20_000).map(|n| format!("10.{}.{}.1", n / 200, n % 200)).collect();
    assert!(text(&many.join(",")).len() < 256);
}

#[test]
fn what_is_held_stays_whatever_may_be_asked_for() {
    let mut ledger = ledger(&[POOL]);
    let web = pinned(single("shop/web"), &["203.0.113.1"]);
    give(&mut ledger, &web).unwrap();
    edit(&mut ledger, &[POOL, ("pins-shop", "pool")]);
    assert_eq!(give(&mut ledger, &web).unwrap(), ["203.0.113.1"]);
    release_all(&mut ledger, &service("shop/web"), seconds(1));
    assert_eq!(reason(give(&mut ledger, &web)), "AddressNotAllowed");
}

#[test]
fn with_pins_that_were_never_good_nothing_is_to_be_asked_for_and_the_pool_goes_on() {
    for (bad, others) in [("pins-shop", true), ("pins-global", false)] {
        let mut ledger = Ledger::new();
        ledger.update_pools(&data(&[POOL, (bad, "pools")]));
        let refusal = give(&mut ledger, &pinned(single("shop/a"), &["192.0.2.9"])).unwrap_err();
        assert_eq!(refusal.reason(), "InvalidPool", "{bad}");
        assert!(refusal.to_string().contains(bad), "{refusal}");
        assert_eq!(give(&mut ledger, &single("shop/a")).unwrap(), ["192.0.2.8"]);
        let other = give(&mut ledger, &pinned(single("other/a"), &["192.0.2.9"]));
        assert_eq!(other.is_ok(), others, "{bad}");
    }
}
