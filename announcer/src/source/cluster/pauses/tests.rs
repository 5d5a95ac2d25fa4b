use berth_api::claim::{ClaimPolicy, Holder};
use berth_api::service::{Port, Protocol};

use super::super::testing::service;
use super::super::{Cluster, Ingress};
use super::*;

const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const SECOND: Duration = Duration::from_secs(1);

/// The port of the Service of alice, which is older in the claim than all others.
const HERS: u16 = 80;

/// Who shares both addresses, by uid, with the port that it was given and the one that it has; whose statuses show them.
struct Scene {
    cluster: Cluster,
    sharers: Vec<(Name, u16)>,
    now: Instant,
}

fn port(number: u16) -> Port {
    Port { protocol: Protocol::Tcp, number }
}

impl Scene {
    fn new() -> Self {
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        cluster.claims.listed(&BTreeSet::new());
        let mut scene = Self { cluster, sharers: Vec::new(), now: Instant::now() };
        scene.join("alice/web", HERS);
        scene
    }

    /// Joins both addresses, and is published there.
    fn join(&mut self, name: &str, number: u16) {
        self.sharers.push((named(name), number));
        self.claim();
        self.edit(name, number, &BOTH);
    }

    fn claim(&mut self) {
        let holder = |(name, number): &(Name, u16)| Holder {
            uid: name.to_string(),
            shares: Some((name.clone(), vec![port(*number)])),
        };
        for address in BOTH {
            let holders = self.sharers.iter().map(holder).collect();
            self.cluster.claims.apply(address, holders, false);
        }
    }

    /// The Service has this port now, and its status shows these addresses.
    fn edit(&mut self, name: &str, number: u16, shown: &[&str]) {
        let published = shown.iter().map(|text| Ingress::vip(text.parse().unwrap(), &[]));
        let (uid, ports, published) = (name.to_owned(), vec![port(number)], published.collect());
        let web = Service { uid, ports, published, ..service(&BOTH) };
        self.cluster.apply_service(named(name), web);
        self.cluster.see(self.now);
    }

    /// The same with several ports, in this order, and more than are read.
    fn edit_many(&mut self, name: &str, numbers: &[u16], has_more: bool) {
        let published = BOTH.iter().map(|text| Ingress::vip(text.parse().unwrap(), &[]));
        let ports = numbers.iter().copied().map(port).collect();
        let (uid, has_more_ports, published) = (name.to_owned(), has_more, published.collect());
        let web = Service { uid, ports, published, has_more_ports, ..service(&BOTH) };
        self.cluster.apply_service(named(name), web);
        self.cluster.see(self.now);
    }

    /// It takes the port of alice, and announcers take it out.
    fn takes(&mut self, name: &str) {
        self.edit(name, HERS, &BOTH);
        self.edit(name, HERS, &[]);
    }

    fn leave(&mut self, name: &str) {
        self.sharers.retain(|(other, _)| *other != named(name));
        self.claim();
        self.cluster.delete_service(&named(name));
        self.cluster.see(self.now);
    }

    fn wait(&mut self, seconds: u32) {
        self.now += SECOND * seconds;
        self.cluster.see(self.now);
    }

    fn withheld(&self, name: &str) -> Option<Withheld> {
        let namespace = named(name).namespace;
        let of = |text: &str| {
            let address = text.parse().unwrap();
            self.cluster.pauses.withhold(address, &namespace, name)
        };
        assert_eq!(of(BOTH[0]), of(BOTH[1]), "both families");
        of(BOTH[0])
    }
}

fn named(text: &str) -> Name {
    let (namespace, name) = text.split_once('/').unwrap();
    Name::new(namespace, name)
}

#[test]
fn who_had_the_address_first_takes_a_port_by_mistake_once_in_ten_minutes_for_nothing() {
    let mut scene = Scene::new();
    (1..=1024).for_each(|n| scene.join(&format!("mallory/x{n}"), 1000 + n));
    let mut lengths = Vec::new();
    for wait in [0, 1, 100, 700, 0] {
        scene.wait(wait);
        scene.edit("alice/web", 1007, &BOTH);
        scene.edit("alice/web", 1007, &[]);
        scene.edit("alice/web", HERS, &[]);
        lengths.push(scene.withheld("alice/web").map_or(0, |withheld| withheld.length.as_secs()));
        scene.edit("alice/web", HERS, &BOTH);
        assert_eq!(scene.withheld("mallory/x7"), None);
    }
    assert_eq!(lengths, [0, 20, 40, 0, 20]);
    // Who joined later has none, and neither have those of who was first.
    scene.join("alice/more", 443);
    for name in ["mallory/x7", "alice/more"] {
        scene.wait(700);
        scene.takes(name);
        assert_eq!(scene.withheld(name).unwrap().length, FIRST, "{name}");
    }
}

#[test]
fn who_comes_after_one_that_took_a_port_waits_as_that_one_does_and_longer_each_time() {
    let mut scene = Scene::new();
    let mut lengths = Vec::new();
    for number in 0..8 {
        let (bad, next) = (format!("mallory/x{number}"), format!("mallory/x{}", number + 1));
        assert_eq!(scene.withheld(&bad), None, "{number}");
        scene.join(&bad, 1000 + number);
        scene.takes(&bad);
        scene.leave(&bad);
        let withheld = scene.withheld(&next).unwrap();
        assert_eq!((scene.withheld(&bad), &withheld.by), (Some(withheld.clone()), &named(&bad)));
        let due = scene.cluster.pauses.deadline().unwrap();
        assert!(!scene.cluster.pauses.are_due(due - SECOND) && scene.cluster.pauses.are_due(due));
        assert_eq!(due, scene.now + withheld.length);
        lengths.push(withheld.length.as_secs());
        assert_eq!(scene.withheld("alice/more").or(scene.withheld("alice/web")), None);
        scene.now = due;
        scene.wait(0);
    }
    assert_eq!(lengths, [10, 20, 40, 80, 160, 300, 300, 300]);
    scene.wait(601);
    scene.join("mallory/late", 2000);
    scene.takes("mallory/late");
    assert_eq!(scene.withheld("mallory/late").unwrap().length, FIRST, "it is forgiven");
}

#[test]
fn one_edit_is_one_however_often_it_is_seen_and_before_it_is_published_none() {
    let mut scene = Scene::new();
    scene.join("mallory/x", 81);
    scene.edit("mallory/x", HERS, &[]);
    assert_eq!(scene.withheld("mallory/x"), None, "nobody was led there");
    for _ in 0..5 {
        scene.edit("mallory/x", HERS, &BOTH);
        scene.wait(1);
    }
    assert_eq!(scene.withheld("mallory/x").unwrap().length, FIRST);
    scene.edit("mallory/x", 81, &BOTH);
    assert!(scene.withheld("mallory/x").is_some(), "that it gave it back does not hold it there");
    scene.edit("mallory/x", HERS, &BOTH);
    assert_eq!(scene.withheld("mallory/x").unwrap().length, FIRST * 2, "another one");
}

#[test]
fn who_has_done_nothing_stays_and_comes_back_after_its_endpoints() {
    let mut scene = Scene::new();
    scene.join("mallory/good", 81);
    scene.join("mallory/bad", 82);
    scene.join("mallory/other", 83);
    for _ in 0..4 {
        scene.takes("mallory/bad");
        assert!(scene.withheld("mallory/bad").is_some());
        assert!(scene.withheld("mallory/new").is_some());
        assert_eq!(scene.withheld("mallory/good"), None, "one of them, time and again, is one");
        scene.edit("mallory/good", 81, &[]);
        assert_eq!(scene.withheld("mallory/good"), None, "it is not new there");
        scene.edit("mallory/good", 81, &BOTH);
        scene.wait(1);
    }
    scene.takes("mallory/other");
    assert!(scene.withheld("mallory/other").is_some());
    assert_eq!(scene.withheld("mallory/good"), None, "two of them");
}

#[test]
fn who_has_prepared_hundreds_has_all_of_them_out_after_three() {
    let mut scene = Scene::new();
    let names: Vec<String> = (0..64).map(|number| format!("mallory/x{number}")).collect();
    (0..).zip(&names).for_each(|(number, name)| scene.join(name, 1000 + number));
    // A whole hour, in which each that is published takes the port as soon as it may.
    let mut taken = 0;
    for _ in 0..3600 {
        for (number, name) in (0..).zip(&names) {
            if scene.withheld(name).is_none() {
                scene.edit(name, 1000 + number, &BOTH);
                scene.takes(name);
                taken += 1;
            }
        }
        scene.wait(1);
    }
    // Each pause lets one in, and three were in at first.
    assert!((10..=20).contains(&taken), "{taken}");
    assert_eq!(scene.withheld("alice/web"), None);
}

#[test]
fn who_hides_a_port_of_another_behind_those_of_its_own_namespace_has_all_of_them_out_after_three() {
    type Takes = fn(&mut Scene, &str);
    let ways: [(&str, Takes); 3] = [
        ("behind a port of a sibling", |scene, name| scene.edit_many(name, &[1000, HERS], false)),
        ("behind more than are read", |scene, name| scene.edit_many(name, &[1], true)),
        ("after a port of a sibling", |scene, name| {
            scene.edit_many(name, &[1000], false);
            scene.edit_many(name, &[1000, HERS], false);
        }),
    ];
    for (what, takes) in ways {
        let mut scene = Scene::new();
        let names: Vec<String> = (0..8).map(|number| format!("mallory/x{number}")).collect();
        (0..).zip(&names).for_each(|(number, name)| scene.join(name, 1000 + number));
        for name in &names[1..4] {
            assert_eq!(scene.withheld(&names[7]), None, "{what}");
            takes(&mut scene, name);
            scene.edit(name, HERS, &[]);
        }
        assert!(scene.withheld(&names[7]).is_some(), "{what}");
        assert_eq!(scene.withheld("alice/web"), None);
    }
}

#[test]
fn who_has_more_ports_than_are_read_puts_no_sibling_out_where_nobody_else_is() {
    let mut scene = Scene::new();
    for (number, name) in (81..).zip(["alice/a", "alice/b", "alice/c", "alice/d"]) {
        scene.join(name, number);
    }
    for name in ["alice/a", "alice/b", "alice/c"] {
        scene.edit_many(name, &[1], true);
        assert!(scene.withheld(name).is_some());
    }
    assert_eq!(scene.withheld("alice/web").or(scene.withheld("alice/d")), None);
}

#[test]
fn who_takes_a_port_of_its_own_namespace_puts_no_sibling_out() {
    let mut scene = Scene::new();
    for (number, name) in (81..).zip(["alice/a", "alice/b", "alice/c", "alice/d"]) {
        scene.join(name, number);
    }
    for name in ["alice/a", "alice/b", "alice/c"] {
        scene.takes(name);
        assert!(scene.withheld(name).is_some());
    }
    assert_eq!(scene.withheld("alice/web").or(scene.withheld("alice/d")), None);
}

#[test]
fn of_thousands_of_namespaces_and_addresses_the_latest_are_remembered() {
    let mut scene = Scene::new();
    for number in 0..2000 {
        let name = format!("m{number}/x");
        scene.join(&name, 81);
        scene.takes(&name);
        scene.leave(&name);
        scene.now += SECOND / 100;
    }
    assert_eq!(scene.cluster.pauses.of.len(), MOST);
    assert!(scene.cluster.pauses.withhold(BOTH[0].parse().unwrap(), "m0", "y").is_none());
    assert!(scene.withheld("m1999/y").is_some());
}

#[test]
fn who_takes_one_port_at_each_of_thousands_of_addresses_is_not_forgotten_where_it_took_more() {
    let mut scene = Scene::new();
    scene.join("mallory/x", 81);
    for _ in 0..2 {
        scene.edit("mallory/x", 81, &BOTH);
        scene.takes("mallory/x");
    }
    for number in 0..2000 {
        let address = format!("2001:db8:1::{number:x}");
        let holder = |uid: &str, number| Holder {
            uid: uid.to_owned(),
            shares: Some((named(uid), vec![port(number)])),
        };
        let both = vec![holder("mallory/a", 1), holder("mallory/b", 2)];
        scene.cluster.claims.apply(&address, both, false);
        scene.edit("mallory/b", 1, &[&address]);
    }
    assert_eq!(scene.cluster.pauses.of.len(), MOST);
    assert_eq!(scene.withheld("mallory/x").unwrap().length, FIRST * 2);
}
