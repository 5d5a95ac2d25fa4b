use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::attributes::Community;
use crate::wire::{Message, Update, decode};

fn path() -> Path {
    Path {
        asn: 65000,
        external: true,
        four_octets: true,
        v4: Some(Ipv4Addr::new(192, 0, 2, 11)),
        v6: vec!["2001:db8::11".parse().unwrap()],
        extended: false,
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn plain() -> Arc<Attributes> {
    Arc::default()
}

fn with(community: u32) -> Arc<Attributes> {
    Arc::new(Attributes {
        communities: BTreeSet::from([Community(community)]),
        ..Attributes::default()
    })
}

/// Everything that is to be told, a message each: its length and whether it is an end.
fn messages(rib: &mut Rib) -> Vec<(usize, Option<Family>)> {
    let mut all = Vec::new();
    loop {
        let mut out = Vec::new();
        if !rib.next(&path(), &mut out) {
            return all;
        }
        let Ok(Some((Message::Update(Update { end_of_rib }), length))) = decode(&out) else {
            panic!("{out:?}")
        };
        assert_eq!(length, out.len());
        all.push((length, end_of_rib));
    }
}

#[test]
fn routes_of_each_family_come_before_its_end_and_nothing_after_it() {
    let mut rib = Rib::default();
    rib.replace(Routes::from([
        (prefix("192.0.2.1/32"), plain()),
        (prefix("2001:db8::1/128"), plain()),
    ]));
    assert!(messages(&mut rib).is_empty(), "nobody is there");
    rib.up(Family::ALL, Family::ALL.into(), true);
    assert!(!rib.is_told());
    let ends: Vec<_> = messages(&mut rib).into_iter().map(|(_, end)| end).collect();
    assert_eq!(ends, [None, Some(Family::V4), None, Some(Family::V6)]);
    assert!(rib.is_told() && messages(&mut rib).is_empty());
    assert_eq!(Family::ALL.map(|family| rib.told(family)), [1, 1]);
}

#[test]
fn a_peer_that_waits_for_no_end_is_told_none_and_an_empty_table_ends_at_once() {
    let mut rib = Rib::default();
    rib.up(Family::ALL, Family::ALL.into(), false);
    assert!(messages(&mut rib).is_empty());
    rib.up(Family::ALL, Family::ALL.into(), true);
    let ends: Vec<_> = messages(&mut rib).into_iter().map(|(_, end)| end).collect();
    assert_eq!(ends, [Some(Family::V4), Some(Family::V6)]);
}

#[test]
fn what_changes_and_changes_back_is_not_told() {
    let (mut rib, route) = (Rib::default(), prefix("192.0.2.1/32"));
    rib.up(Family::ALL, Family::ALL.into(), false);
    rib.set(route, Some(plain()));
    rib.set(route, None);
    assert!(rib.is_told() && messages(&mut rib).is_empty());
    rib.set(route, Some(plain()));
    assert_eq!(messages(&mut rib).len(), 1);
    assert!(rib.knows(route));
    rib.set(route, None);
    rib.set(route, Some(with(1)));
    assert!(!rib.knows(route));
    rib.set(route, Some(Arc::default()));
    assert!(rib.is_told(), "the same by value, not by where it lies");
}

#[test]
fn what_takes_the_place_of_another_is_told_before_that_goes() {
    let mut rib = Rib::default();
    rib.up([Family::V4], Family::ALL.into(), false);
    rib.replace(Routes::from([(prefix("192.0.2.1/32"), plain())]));
    messages(&mut rib);
    rib.replace(Routes::from([(prefix("192.0.2.0/24"), plain())]));
    let mut out = Vec::new();
    assert!(rib.next(&path(), &mut out));
    assert_eq!(out[19..21], [0, 0], "no withdrawal in the first message");
    assert_eq!(messages(&mut rib).len(), 1);
    assert_eq!(rib.told(Family::V4), 1);
}

#[test]
fn a_refresh_tells_all_of_its_family_again_and_loses_no_withdrawal() {
    let mut rib = Rib::default();
    let routes =
        ["192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128"].map(|text| (prefix(text), plain()));
    rib.replace(Routes::from(routes));
    rib.up(Family::ALL, Family::ALL.into(), false);
    messages(&mut rib);
    rib.set(prefix("192.0.2.2/32"), None);
    rib.refresh(Family::V4);
    assert_eq!(messages(&mut rib).len(), 2, "one route and one withdrawal");
    assert_eq!(Family::ALL.map(|family| rib.told(family)), [1, 1]);
    rib.refresh(Family::V6);
    assert_eq!(messages(&mut rib).len(), 1);
}

#[test]
fn a_family_that_the_peer_does_not_speak_is_never_told() {
    let mut rib = Rib::default();
    rib.up([Family::V6], Family::ALL.into(), true);
    rib.set(prefix("192.0.2.1/32"), Some(plain()));
    rib.refresh(Family::V4);
    let ends: Vec<_> = messages(&mut rib).into_iter().map(|(_, end)| end).collect();
    assert_eq!(ends, [Some(Family::V6)]);
}

#[test]
fn twenty_thousand_routes_fill_their_messages() {
    let host = |number: u32| Prefix::host(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)));
    let shared = [plain(), with(1)];
    let routes: Routes = (0..20_000)
        .map(|number| (host(number), Arc::clone(&shared[number as usize % 2])))
        .collect();
    let mut rib = Rib::default();
    rib.replace(routes);
    rib.up([Family::V4], Family::ALL.into(), true);
    let messages = messages(&mut rib);
    // 4,096 less 23 of header and lengths, 20 of attributes, 7 of a community; 5 for each route.
    assert_eq!(messages.len(), 10_000_usize.div_ceil(810) + 10_000_usize.div_ceil(809) + 1);
    assert_eq!(rib.told(Family::V4), 20_000);
}

#[test]
fn what_is_to_be_told_again_and_goes_before_it_was_is_withdrawn() {
    let mut rib = Rib::default();
    let route = prefix("192.0.2.1/32");
    rib.replace(Routes::from([(route, plain())]));
    rib.up([Family::V4], Family::ALL.into(), false);
    assert_eq!(messages(&mut rib).len(), 1);
    rib.refresh(Family::V4);
    rib.begin_again(Family::V4);
    assert!(!rib.knows(route));
    rib.set(route, None);
    assert_eq!(messages(&mut rib).len(), 1, "a withdrawal");
    assert_eq!(rib.told(Family::V4), 0);
}

#[test]
fn a_family_that_leads_nowhere_any_more_is_withdrawn_and_one_that_leads_elsewhere_is_told_again() {
    let mut rib = Rib::default();
    rib.replace(Routes::from([
        (prefix("192.0.2.1/32"), plain()),
        (prefix("2001:db8::1/128"), plain()),
    ]));
    rib.up(Family::ALL, [Family::V4].into(), true);
    let ends: Vec<_> = messages(&mut rib).into_iter().map(|(_, end)| end).collect();
    assert_eq!(ends, [Some(Family::V6), None, Some(Family::V4)], "what leads nowhere ends, too");
    let told = |rib: &Rib| Family::ALL.map(|family| rib.told(family));
    rib.lead(Family::ALL.into(), &[Family::V6].into());
    assert_eq!((messages(&mut rib).len(), told(&rib)), (1, [1, 1]), "once");
    rib.lead(Family::ALL.into(), &[Family::V4].into());
    assert_eq!((messages(&mut rib).len(), told(&rib)), (1, [1, 1]));
    rib.lead(Family::ALL.into(), &[Family::V4].into());
    rib.lead([Family::V6].into(), &[].into());
    assert_eq!((messages(&mut rib).len(), told(&rib)), (1, [0, 1]), "withdrawn");
    rib.set(prefix("192.0.2.2/32"), Some(plain()));
    assert!(messages(&mut rib).is_empty() && rib.is_told());
}
