//! Who may share an address with whom.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use berth_ipam::Protocol::{Tcp, Udp};
use berth_ipam::{Request, TrafficPolicy, allocate};
use support::*;

const POOL: (&str, &str) = ("cidr-global", "192.0.2.8/30");
const SHARE: (&str, &str) = ("allow-share-global", "true");

fn local(mut request: Request) -> Request {
    request.sharing.as_mut().unwrap().policy = TrafficPolicy::Local;
    request
}

#[test]
fn services_with_disjoint_ports_share_one_address_where_the_pool_allows_it() {
    let mut ledger = ledger(&[POOL, SHARE]);
    assert_eq!(
        give(&mut ledger, &listening(single("shop/a"), &[(Tcp, 80)])).unwrap(),
        ["192.0.2.8"]
    );
    let second =
        give_at(&mut ledger, &listening(single("shop/b"), &[(Tcp, 443)]), Duration::ZERO).unwrap();
    assert_eq!((shown(&second), second.addresses[0].shared), (vec!["192.0.2.8".to_owned()], true));
    assert_eq!(
        give(&mut ledger, &listening(single("shop/c"), &[(Tcp, 80)])).unwrap(),
        ["192.0.2.9"]
    );
}

#[test]
fn no_more_share_an_address_than_its_claim_has_room_for() {
    let mut ledger = ledger(&[POOL, SHARE]);
    for port in 1..=512 {
        let next = listening(single(&format!("shop/s{port}")), &[(Tcp, port)]);
        assert_eq!(give(&mut ledger, &next).unwrap(), ["192.0.2.8"]);
    }
    let more = listening(single("shop/more"), &[(Tcp, 513)]);
    let pin = pinned(more.clone(), &["192.0.2.8"]);
    assert_eq!(reason(give(&mut ledger, &pin)), "AddressInUse");
    assert_eq!(give(&mut ledger, &more).unwrap(), ["192.0.2.9"], "the next one");
    let many = |from: u16| (from..from + 4000).map(|port| (Tcp, port)).collect::<Vec<_>>();
    for (name, from, address) in
        [("a", 1000, "192.0.2.9"), ("b", 5000, "192.0.2.9"), ("c", 9000, "192.0.2.10")]
    {
        let wide = listening(single(&format!("shop/{name}")), &many(from));
        assert_eq!(give(&mut ledger, &wide).unwrap(), [address], "{name}");
    }
    let few = listening(single("shop/few"), &[(Tcp, 600)]);
    assert_eq!(give(&mut ledger, &few).unwrap(), ["192.0.2.9"], "there is room for a few");
}

/// Namespaces `a` and `m` share the first address, which `a` had first.
const CONSENT: [(&str, &str); 2] = [("share-with-a", "m"), ("share-with-m", "a")];

#[test]
fn who_comes_second_leaves_room_to_the_namespace_that_came_first() {
    let mut ledger = ledger(&[&[POOL, SHARE][..], &CONSENT].concat());
    give(&mut ledger, &listening(single("a/web"), &[(Tcp, 80)])).unwrap();
    let joins = |name: &str, ports: &[(berth_ipam::Protocol, u16)]| {
        pinned(listening(single(name), ports), &["192.0.2.8"])
    };
    for port in 1000..1064 {
        give(&mut ledger, &joins(&format!("m/s{port}"), &[(Tcp, port)])).unwrap();
    }
    let more = joins("m/more", &[(Tcp, 2000)]);
    let told = "192.0.2.8 is shared by 64 Services of namespace m: where another namespace had the address first, accepted \
                are 64 of one namespace, and 1024 ports together";
    let refusal = allocate(&ledger, &more).unwrap_err();
    assert_eq!((refusal.to_string().as_str(), refusal.reason()), (told, "AddressInUse"));
    let anywhere = listening(single("m/more"), &[(Tcp, 2000)]);
    assert_eq!(give(&mut ledger, &anywhere).unwrap(), ["192.0.2.9"], "the next one");
    for port in 3000..3447 {
        give(&mut ledger, &joins(&format!("a/s{port}"), &[(Tcp, port)])).unwrap();
    }
    let refusal = allocate(&ledger, &joins("a/more", &[(Tcp, 4000)])).unwrap_err();
    assert!(refusal.to_string().contains("by 512 Services: its claim has no room"), "{refusal}");
    release_all(&mut ledger, &service("m/s1000"), Duration::ZERO);
    give(&mut ledger, &more).unwrap();
    let kept = joins("m/s1001", &[(Tcp, 1001)]);
    assert_eq!(give(&mut ledger, &kept).unwrap(), ["192.0.2.8"], "who is there stays");
}

#[test]
fn who_comes_second_leaves_ports_to_the_namespace_that_came_first() {
    let mut ledger = ledger(&[&[POOL, SHARE][..], &CONSENT].concat());
    give(&mut ledger, &listening(single("a/web"), &[(Tcp, 80)])).unwrap();
    let joins = |name: &str, from: u16, count: u16| {
        let ports: Vec<_> = (from..from + count).map(|port| (Tcp, port)).collect();
        pinned(listening(single(name), &ports), &["192.0.2.8"])
    };
    give(&mut ledger, &joins("m/wide", 1000, 1000)).unwrap();
    assert_eq!(reason(give(&mut ledger, &joins("m/more", 2000, 25))), "AddressInUse");
    give(&mut ledger, &joins("m/few", 2000, 24)).unwrap();
    give(&mut ledger, &joins("a/wide", 3000, 7000)).unwrap();
}

#[test]
fn who_is_there_takes_up_no_more_ports_than_there_is_room_for_a_newcomer() {
    let mut ledger = ledger(&[&[POOL, SHARE][..], &CONSENT].concat());
    give(&mut ledger, &listening(single("a/web"), &[(Tcp, 80)])).unwrap();
    let with = |name: &str, from: u16, count: u16| {
        let ports: Vec<_> = (from..from + count).map(|port| (Tcp, port)).collect();
        pinned(listening(single(name), &ports), &["192.0.2.8"])
    };
    for n in 0..9 {
        give(&mut ledger, &with(&format!("m/s{n}"), 1000 * (n + 1), 1)).unwrap();
    }
    give(&mut ledger, &with("m/s0", 1000, 1000)).unwrap();
    let told = "192.0.2.8 is shared by 9 Services of namespace m: where another namespace had the address first, accepted \
                are 64 of one namespace, and 1024 ports together";
    let refusal = allocate(&ledger, &with("m/s1", 2000, 100)).unwrap_err();
    assert_eq!((refusal.to_string().as_str(), refusal.reason()), (told, "AddressInUse"));
    assert_eq!(held(&ledger, "m/s1"), ["192.0.2.8"], "it stays, with what it has");
    give(&mut ledger, &with("m/s1", 2500, 1)).unwrap();
    give(&mut ledger, &with("m/s0", 1500, 400)).unwrap();
    give(&mut ledger, &with("m/s1", 2000, 100)).unwrap();
    // Who came first has all the others, as before.
    for n in 0..8 {
        give(&mut ledger, &with(&format!("a/s{n}"), 20_000 + 2000 * n, 1)).unwrap();
        let grown = give(&mut ledger, &with(&format!("a/s{n}"), 20_000 + 2000 * n, 1024));
        assert_eq!(grown.is_ok(), n < 7, "{n}");
    }
}

#[test]
fn who_cannot_share_an_address_for_its_ports_or_its_policy_is_told_which() {
    let mut ledger = ledger(&[&[POOL, SHARE][..], &CONSENT].concat());
    let web = [(Tcp, 80), (Udp, 53), (Tcp, 443)];
    give(&mut ledger, &listening(single("a/web"), &web)).unwrap();
    let told = |ledger: &_, request| allocate(ledger, &request).unwrap_err().to_string();
    for name in ["a/more", "m/more"] {
        let pin = |ports| pinned(listening(single(name), ports), &["192.0.2.8"]);
        let held = "192.0.2.8 is held by Service a/web; Service a/web has";
        let port = "there: accepted are ports that no other has there, of TCP, UDP and SCTP each";
        let same = told(&ledger, pin(&[(Tcp, 53), (Udp, 53), (Tcp, 80)]));
        assert_eq!(same, format!("{held} port TCP/80 {port}"));
        assert_eq!(told(&ledger, pin(&[(Udp, 53)])), format!("{held} port UDP/53 {port}"));
        let other = told(&ledger, local(pin(&[(Tcp, 81)])));
        let policy = "externalTrafficPolicy Cluster there: accepted is the same";
        assert_eq!(other, format!("{held} {policy}"));
    }
    // Who is there already, and takes one up.
    let own = listening(single("m/own"), &[(Tcp, 81)]);
    give(&mut ledger, &own).unwrap();
    let refused = allocate(&ledger, &listening(single("m/own"), &[(Udp, 53)])).unwrap_err();
    assert!(refused.to_string().contains("Service a/web has port UDP/53"), "{refused}");
}

#[test]
fn nobody_shares_unless_asked() {
    let mut ledger = ledger(&[POOL]);
    give(&mut ledger, &listening(single("shop/a"), &[(Tcp, 80)])).unwrap();
    assert_eq!(
        give(&mut ledger, &listening(single("shop/b"), &[(Tcp, 443)])).unwrap(),
        ["192.0.2.9"]
    );
    let pin = pinned(listening(single("shop/c"), &[(Tcp, 443)]), &["192.0.2.8"]);
    assert_eq!(reason(give(&mut ledger, &pin)), "AddressInUse");
}

#[test]
fn one_port_of_two_protocols_is_two_ports() {
    let mut ledger = ledger(&[POOL, SHARE]);
    give(&mut ledger, &listening(single("dns/tcp"), &[(Tcp, 53)])).unwrap();
    assert_eq!(
        give(&mut ledger, &listening(single("dns/udp"), &[(Udp, 53)])).unwrap(),
        ["192.0.2.8"]
    );
}

#[test]
fn sharers_agree_on_the_traffic_policy() {
    let mut ledger = ledger(&[POOL, SHARE]);
    give(&mut ledger, &listening(single("shop/a"), &[(Tcp, 80)])).unwrap();
    let other = local(listening(single("shop/b"), &[(Tcp, 443)]));
    assert_eq!(give(&mut ledger, &other).unwrap(), ["192.0.2.9"]);
    let third = local(listening(single("shop/c"), &[(Tcp, 80)]));
    assert_eq!(give(&mut ledger, &third).unwrap(), ["192.0.2.9"]);
}

#[test]
fn an_owner_without_ports_takes_the_whole_address() {
    let mut ledger = ledger(&[POOL, SHARE]);
    give(&mut ledger, &single("shop/whole")).unwrap();
    assert_eq!(
        give(&mut ledger, &listening(single("shop/a"), &[(Tcp, 80)])).unwrap(),
        ["192.0.2.9"]
    );
    assert_eq!(give(&mut ledger, &listening(single("shop/b"), &[])).unwrap(), ["192.0.2.10"]);
}

#[test]
fn a_pin_joins_an_address_where_sharing_is_allowed_also_outside_every_pool() {
    let mut ledger = ledger(&[POOL, SHARE]);
    let pin = |name: &str, port| pinned(listening(single(name), &[(Tcp, port)]), &["203.0.113.9"]);
    assert_eq!(give(&mut ledger, &pin("shop/a", 80)).unwrap(), ["203.0.113.9"]);
    assert_eq!(give(&mut ledger, &pin("shop/b", 443)).unwrap(), ["203.0.113.9"]);
    assert_eq!(reason(give(&mut ledger, &pin("shop/c", 80))), "AddressInUse");
}

#[test]
fn a_namespace_that_does_not_allow_sharing_is_left_alone() {
    let mut ledger = ledger(&[POOL, SHARE, ("allow-share-private", "false")]);
    give(&mut ledger, &listening(single("private/a"), &[(Tcp, 80)])).unwrap();
    assert_eq!(
        give(&mut ledger, &listening(single("shop/b"), &[(Tcp, 443)])).unwrap(),
        ["192.0.2.9"]
    );
}

/// `web` of namespace a has port 80 of the first address; where does `b/tls` get its port 443?
fn beside_a(keys: &[(&str, &str)]) -> String {
    let mut ledger = ledger(&[&[POOL], keys].concat());
    give(&mut ledger, &listening(single("a/web"), &[(Tcp, 80)])).unwrap();
    let tls = listening(single("b/tls"), &[(Tcp, 443)]);
    let pin = allocate(&ledger, &pinned(tls.clone(), &["192.0.2.8"]));
    let given = give(&mut ledger, &tls).unwrap().swap_remove(0);
    assert_eq!(pin.is_ok(), given == "192.0.2.8", "a pin and a pool say the same");
    if let Err(refusal) = pin {
        let told = "192.0.2.8 is held by Service a/web; their ports differ, and they share it where `share-with-b` \
                    names a, `share-with-a` names b, and `allow-share-` is true for both";
        assert_eq!(refusal.to_string(), told);
    }
    given
}

#[test]
fn who_could_not_share_an_address_whatever_the_keys_say_is_not_told_of_them() {
    let mut ledger = ledger(&[POOL, SHARE]);
    give(&mut ledger, &listening(single("a/web"), &[(Tcp, 80)])).unwrap();
    for (name, ports) in [("b/same", &[(Tcp, 80)][..]), ("b/whole", &[]), ("a/whole", &[])] {
        let pin = pinned(listening(single(name), ports), &["192.0.2.8"]);
        let refusal = allocate(&ledger, &pin).unwrap_err();
        assert_eq!(refusal.to_string(), "192.0.2.8 is held by Service a/web", "{name}");
    }
}

#[test]
fn two_namespaces_share_only_where_each_names_the_other_and_both_may_share() {
    let (a, b) = (("share-with-a", "c,b"), ("share-with-b", "a"));
    for keys in [
        &[SHARE][..],
        &[SHARE, a],
        &[SHARE, b],
        &[a, b],
        &[SHARE, a, b, ("allow-share-a", "false")],
    ] {
        assert_eq!(beside_a(keys), "192.0.2.9", "{keys:?}");
    }
    assert_eq!(beside_a(&[SHARE, a, b]), "192.0.2.8");
    assert_eq!(beside_a(&[SHARE, a, b, ("search-order", "asc")]), "192.0.2.8");
}

#[test]
fn who_joins_may_share_with_everybody_who_is_there() {
    let pairs = [("share-with-a", "b,c"), ("share-with-b", "a"), ("share-with-c", "a")];
    let keys = [&[POOL, SHARE][..], &pairs].concat();
    let mut ledger = ledger(&keys);
    for (name, port) in [("a/web", 80), ("b/tls", 443)] {
        let shared = give(&mut ledger, &listening(single(name), &[(Tcp, port)])).unwrap();
        assert_eq!(shared, ["192.0.2.8"]);
    }
    let third = listening(single("c/ssh"), &[(Tcp, 22)]);
    assert_eq!(give(&mut ledger, &third).unwrap(), ["192.0.2.9"], "b does not know c");
    release_all(&mut ledger, &service("b/tls"), Duration::ZERO);
    let fourth = listening(single("c/dns"), &[(Tcp, 53)]);
    assert_eq!(give(&mut ledger, &fourth).unwrap(), ["192.0.2.8"]);
}

#[test]
fn what_two_namespaces_share_stays_shared_and_is_named_and_a_third_is_not_let_in() {
    let pairs = [("share-with-a", "b"), ("share-with-b", "a")];
    let mut ledger = ledger(&[&[POOL, SHARE][..], &pairs].concat());
    for (name, port) in [("a/web", 80), ("b/tls", 443)] {
        give(&mut ledger, &listening(single(name), &[(Tcp, port)])).unwrap();
    }
    assert_eq!(ledger.crossings(), []);
    edit(&mut ledger, &[POOL, SHARE]);
    let [crossing] = &ledger.crossings()[..] else { panic!("one") };
    let namespaces = ["a".to_owned(), "b".to_owned()];
    assert_eq!((crossing.address, &crossing.namespaces[..]), (ip("192.0.2.8"), &namespaces[..]));
    for (name, port) in [("a/web", 80), ("b/tls", 443)] {
        let kept = give(&mut ledger, &listening(single(name), &[(Tcp, port)])).unwrap();
        assert_eq!(kept, ["192.0.2.8"], "nobody is moved");
    }
    for name in ["a/more", "b/more"] {
        let more = give(&mut ledger, &listening(single(name), &[(Tcp, 22)])).unwrap();
        assert_ne!(more, ["192.0.2.8"], "{name}");
    }
}

#[test]
fn a_live_edit_of_allow_share_counts_for_those_that_come_after() {
    let mut ledger = ledger(&[POOL]);
    give(&mut ledger, &listening(single("shop/a"), &[(Tcp, 80)])).unwrap();
    edit(&mut ledger, &[POOL, SHARE]);
    assert_eq!(
        give(&mut ledger, &listening(single("shop/b"), &[(Tcp, 443)])).unwrap(),
        ["192.0.2.8"]
    );
    edit(&mut ledger, &[POOL]);
    assert_eq!(
        give(&mut ledger, &listening(single("shop/c"), &[(Tcp, 25)])).unwrap(),
        ["192.0.2.9"]
    );
    assert_eq!(
        give(&mut ledger, &listening(single("shop/b"), &[(Tcp, 443)])).unwrap(),
        ["192.0.2.8"]
    );
}

#[test]
fn a_shared_address_rests_only_after_its_last_holder() {
    let mut ledger = ledger(&[POOL, SHARE]);
    give(&mut ledger, &listening(single("shop/a"), &[(Tcp, 80)])).unwrap();
    give(&mut ledger, &listening(single("shop/b"), &[(Tcp, 443)])).unwrap();
    release_all(&mut ledger, &service("shop/a"), Duration::ZERO);
    assert_eq!(ledger.next_rested(), None);
    assert_eq!(
        give(&mut ledger, &listening(single("shop/c"), &[(Tcp, 80)])).unwrap(),
        ["192.0.2.8"]
    );
    release_all(&mut ledger, &service("shop/b"), Duration::ZERO);
    release_all(&mut ledger, &service("shop/c"), Duration::ZERO);
    assert_eq!(ledger.next_rested(), Some(Duration::from_secs(60)));
}

#[test]
fn a_shared_address_counts_once_against_the_quota() {
    let mut ledger = ledger(&[POOL, SHARE, ("quota-shop", "1")]);
    give(&mut ledger, &listening(single("shop/a"), &[(Tcp, 80)])).unwrap();
    assert_eq!(
        give(&mut ledger, &listening(single("shop/b"), &[(Tcp, 443)])).unwrap(),
        ["192.0.2.8"]
    );
    assert_eq!(ledger.held_in("shop"), 1);
    assert_eq!(
        reason(give(&mut ledger, &listening(single("shop/c"), &[(Tcp, 80)]))),
        "QuotaExceeded"
    );
}

#[test]
fn a_sharer_that_wants_a_port_of_another_is_refused_and_stays() {
    let mut ledger = ledger(&[POOL, SHARE]);
    give(&mut ledger, &listening(single("shop/a"), &[(Tcp, 80)])).unwrap();
    give(&mut ledger, &listening(single("shop/b"), &[(Tcp, 443)])).unwrap();
    let greedy = listening(single("shop/b"), &[(Tcp, 443), (Tcp, 80)]);
    assert_eq!(
        allocate(&ledger, &greedy).unwrap_err().to_string(),
        "192.0.2.8 is held by Service shop/a; Service shop/a has port TCP/80 there: accepted are ports that no other has \
         there, of TCP, UDP and SCTP each"
    );
    assert_eq!(held(&ledger, "shop/b"), ["192.0.2.8"]);
}
