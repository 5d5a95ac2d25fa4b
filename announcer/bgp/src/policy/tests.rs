use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn rule(filter: Filter, change: Change) -> Rule {
    Rule { filter, change }
}

fn shown(routes: &Routes) -> Vec<String> {
    routes.keys().map(ToString::to_string).collect()
}

#[test]
fn without_rules_each_peer_is_told_of_each_address() {
    let both = [
        Announcement::of(address("192.0.2.7"), "a"),
        Announcement::of(address("2001:db8::7"), "b"),
    ];
    let routes = Policy::default().routes("tor", &both);
    assert_eq!(shown(&routes), ["192.0.2.7/32", "2001:db8::7/128"]);
    assert!(routes.values().all(|attributes| **attributes == Attributes::default()));
    let shared: Vec<_> = routes.values().collect();
    assert!(Arc::ptr_eq(shared[0], shared[1]), "what is alike is there once");
}

#[test]
fn later_rules_win_and_communities_add_up() {
    let policy = Policy {
        rules: vec![
            rule(
                Filter::default(),
                Change {
                    local_pref: Some(100),
                    med: Some(5),
                    communities: BTreeSet::from([Community(1)]),
                    ..Change::default()
                },
            ),
            rule(
                Filter { namespaces: names(&["web"]), ..Filter::default() },
                Change {
                    local_pref: Some(300),
                    prepend: Some(200),
                    communities: BTreeSet::from([Community(2)]),
                    ..Change::default()
                },
            ),
        ],
    };
    let web = policy.routes("tor", &[Announcement::of(address("192.0.2.7"), "web")]);
    let attributes = web.values().next().unwrap();
    assert_eq!((attributes.local_pref, attributes.med), (Some(300), Some(5)));
    assert_eq!(attributes.prepend, MOST_PREPENDS);
    assert_eq!(attributes.communities, BTreeSet::from([Community(1), Community(2)]));
    let other = policy.routes("tor", &[Announcement::of(address("192.0.2.7"), "other")]);
    assert_eq!(other.values().next().unwrap().local_pref, Some(100));
}

#[test]
fn a_rule_is_about_peers_pools_namespaces_and_labels_that_all_fit() {
    let filter = Filter {
        peers: names(&["tor-a", "tor-b"]),
        pools: names(&["global"]),
        namespaces: names(&["web"]),
        services: Some(Selector {
            labels: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
            ..Selector::default()
        }),
    };
    let fits = Announcement {
        pool: "global".to_owned(),
        labels: Some(BTreeMap::from([("tier".to_owned(), "gold".to_owned())]).into()),
        ..Announcement::of(address("192.0.2.7"), "web")
    };
    assert!(filter.takes("tor-b", &fits));
    assert!(!filter.takes("tor-c", &fits));
    assert!(!filter.takes("tor-b", &Announcement { pool: "web".to_owned(), ..fits.clone() }));
    assert!(!filter.takes("tor-b", &Announcement { namespace: "x".to_owned(), ..fits.clone() }));
    let unlabelled = Announcement { labels: Some(Arc::default()), ..fits.clone() };
    assert!(!filter.takes("tor-b", &unlabelled));
    let all_but = Selector {
        requirements: vec![Requirement::DoesNotExist("tier".to_owned())],
        ..Selector::default()
    };
    let filter = Filter { services: Some(all_but), ..filter };
    assert!(filter.takes("tor-b", &unlabelled));
    assert!(!filter.takes("tor-b", &Announcement { labels: None, ..fits }), "it is no Service");
}

#[test]
fn what_is_not_to_be_announced_is_not_unless_a_later_rule_says_so() {
    let never = rule(Filter::default(), Change { announce: Some(false), ..Change::default() });
    let web = rule(
        Filter { namespaces: names(&["web"]), ..Filter::default() },
        Change { announce: Some(true), ..Change::default() },
    );
    let policy = Policy { rules: vec![never, web] };
    let both = [
        Announcement::of(address("192.0.2.7"), "web"),
        Announcement::of(address("192.0.2.8"), "b"),
    ];
    assert_eq!(shown(&policy.routes("tor", &both)), ["192.0.2.7/32"]);
}

#[test]
fn a_service_may_name_its_peers_its_preference_and_communities() {
    let asked = Asked {
        communities: BTreeSet::from([Community(9)]),
        large_communities: BTreeSet::from([LargeCommunity(1, 2, 3)]),
        local_pref: Some(50),
        peers: Some(names(&["tor-a"])),
    };
    let one = Announcement { asked, ..Announcement::of(address("192.0.2.7"), "web") };
    let rules =
        vec![rule(Filter::default(), Change { local_pref: Some(100), ..Change::default() })];
    let policy = Policy { rules };
    assert!(policy.routes("tor-b", [&one]).is_empty());
    let routes = policy.routes("tor-a", [&one]);
    let attributes = routes.values().next().unwrap();
    assert_eq!(attributes.local_pref, Some(50));
    assert_eq!((attributes.communities.len(), attributes.large_communities.len()), (1, 1));
}

#[test]
fn what_is_at_one_node_at_a_time_has_its_own_place_among_those_that_announce_it() {
    let rules = vec![rule(Filter::default(), Change { med: Some(7), ..Change::default() })];
    let policy = Policy { rules };
    let med = |med| {
        let one = Announcement { med, ..Announcement::of(address("192.0.2.7"), "web") };
        policy.routes("tor", [&one]).into_values().next().unwrap().med
    };
    assert_eq!((med(None), med(Some(3))), (Some(7), Some(3)));
}

#[test]
fn what_a_service_asks_for_is_said_of_no_aggregate_which_is_of_others_too() {
    let widened = Some(Widened { v4: 24, ..Widened::default() });
    let policy =
        Policy { rules: vec![rule(Filter::default(), Change { widened, ..Change::default() })] };
    let asked = Asked {
        communities: BTreeSet::from([Community(9)]),
        local_pref: Some(0),
        peers: Some(names(&["tor-a"])),
        ..Asked::default()
    };
    let one = Announcement { asked, ..Announcement::of(address("192.0.2.7"), "web") };
    let routes = policy.routes("tor-a", [&one]);
    assert_eq!(shown(&routes), ["192.0.2.0/24"]);
    assert_eq!(**routes.values().next().unwrap(), Attributes::default());
    assert!(policy.routes("tor-b", [&one]).is_empty());
}

#[test]
fn an_aggregate_stands_for_all_its_addresses_until_the_last_of_them_goes() {
    let widened = Some(Widened { v4: 24, v6: 64 });
    let policy =
        Policy { rules: vec![rule(Filter::default(), Change { widened, ..Change::default() })] };
    let one = Announcement::of(address("192.0.2.7"), "a");
    let other = Announcement::of(address("192.0.2.200"), "a");
    let outside = Announcement::of(address("198.51.100.1"), "a");
    let v6 = Announcement::of(address("2001:db8::7"), "a");
    let all = [&one, &other, &outside, &v6];
    assert_eq!(
        shown(&policy.routes("tor", all)),
        ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64"]
    );
    let going =
        |announcement: &Announcement| Announcement { shutting_down: true, ..announcement.clone() };
    let first = policy.routes("tor", [&going(&one), &other]);
    assert_eq!(
        *first[&"192.0.2.0/24".parse().unwrap()],
        Attributes::default(),
        "the other one is still there"
    );
    let last = policy.routes("tor", [&going(&one), &going(&other)]);
    assert_eq!(*last[&"192.0.2.0/24".parse().unwrap()], Attributes::default().shutting_down());
}

#[test]
fn what_a_peer_knows_does_not_depend_on_the_order_of_announcements() {
    let widened = Some(Widened { v4: 24, v6: 64 });
    let of = |namespace: &str, local_pref| {
        let filter = Filter { namespaces: names(&[namespace]), ..Filter::default() };
        rule(filter, Change { widened, local_pref: Some(local_pref), ..Change::default() })
    };
    let policy = Policy { rules: vec![of("a", 10), of("b", 20)] };
    let low = Announcement::of(address("192.0.2.7"), "a");
    let high = Announcement::of(address("192.0.2.8"), "b");
    assert_eq!(policy.routes("tor", [&low, &high]), policy.routes("tor", [&high, &low]));
    assert_eq!(policy.routes("tor", [&high, &low]).values().next().unwrap().local_pref, Some(10));
}

#[test]
fn what_a_label_brings_is_said_of_no_aggregate_which_is_of_others_too() {
    let widened = Some(Widened { v4: 24, ..Widened::default() });
    let services = Some(Selector {
        labels: BTreeMap::from([("protect".to_owned(), "yes".to_owned())]),
        ..Selector::default()
    });
    let by_label = rule(
        Filter { services, ..Filter::default() },
        Change {
            communities: BTreeSet::from([Community(666)]),
            large_communities: BTreeSet::from([LargeCommunity(1, 2, 3)]),
            prepend: Some(3),
            local_pref: Some(0),
            med: Some(9),
            ..Change::default()
        },
    );
    let all = rule(
        Filter::default(),
        Change { widened, communities: BTreeSet::from([Community(7)]), ..Change::default() },
    );
    let labels = Arc::new(BTreeMap::from([("protect".to_owned(), "yes".to_owned())]));
    let one =
        Announcement { labels: Some(labels), ..Announcement::of(address("192.0.2.1"), "mallory") };
    let other = Announcement::of(address("192.0.2.7"), "alice");
    let policy = Policy { rules: vec![all, by_label.clone()] };
    let routes = policy.routes("tor", [&one, &other]);
    let said = Attributes { communities: BTreeSet::from([Community(7)]), ..Attributes::default() };
    assert_eq!(
        (shown(&routes), &**routes.values().next().unwrap()),
        (vec!["192.0.2.0/24".to_owned()], &said)
    );
    let policy = Policy { rules: vec![by_label] };
    let alone = policy.routes("tor", [&one]);
    assert_eq!(alone.values().next().unwrap().prepend, 3, "of its own address it is said");
}

#[test]
fn what_a_service_asks_for_takes_nothing_of_what_rules_say_and_what_has_no_room_is_known() {
    let own = BTreeSet::from(["no-export", "65010:7"].map(|text| text.parse().unwrap()));
    let change = Change { communities: own.clone(), ..Change::default() };
    let policy = Policy { rules: vec![rule(Filter::default(), change)] };
    let asked = Asked {
        communities: (1..=100).map(|n| Community(65000 << 16 | n)).collect(),
        ..Asked::default()
    };
    let one = Announcement { asked, ..Announcement::of(address("192.0.2.7"), "mallory") };
    let going = Announcement { shutting_down: true, ..one.clone() };
    for announcement in [&one, &going] {
        let routes = policy.routes("tor", [announcement]);
        let sent = routes.values().next().unwrap().sent();
        assert!(own.is_subset(&sent), "{sent:?}");
        assert_eq!(sent.contains(&Community::GRACEFUL_SHUTDOWN), announcement.shutting_down);
    }
    let left = policy.left_out("tor", &one);
    let texts: Vec<String> = left.communities.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["65000:99", "65000:100"]);
    assert!(Policy::default().left_out("tor", &one).is_nothing());
}

#[test]
fn what_is_not_on_every_node_is_in_no_aggregate_which_would_lead_to_others() {
    let widened = Some(Widened { v4: 24, ..Widened::default() });
    let all = rule(Filter::default(), Change { widened, ..Change::default() });
    let policy = Policy { rules: vec![all] };
    let one = Announcement::of(address("192.0.2.1"), "a");
    let local = Announcement { is_alone: true, ..Announcement::of(address("192.0.2.7"), "a") };
    assert_eq!(shown(&policy.routes("tor", [&one, &local])), ["192.0.2.0/24", "192.0.2.7/32"]);
    assert_eq!(shown(&policy.routes("tor", [&local])), ["192.0.2.7/32"]);
}
