//! Two announcers on one node: what one of them does, how it ends, and what its next life sweeps leaves the other's as
//! it is, to the byte.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use berth_announcer::dataplane::{self, eip};
use berth_announcer::instance::Instance;
use berth_announcer::kernel::{Binding, Guard, Kernel, Lifetime, Port, Vlan};
use berth_announcer::locks::{self, WhenTaken};
use berth_announcer::sweep;
use berth_announcer::vip::Forwards;

use crate::kept::Kept;
use crate::namespace::{address, alone, attempt, door, run};

/// Everything that an announcer leaves in a namespace when it is killed.
struct Left {
    instance: Instance,
    address: &'static str,
    vlan: u16,
}

impl Left {
    /// Makes it, and goes without a word.
    async fn by(instance: Instance, address: &'static str, vlan: u16) -> Self {
        let mut kernel = door().netlink(&instance);
        let index = kernel.look().await.unwrap().interfaces["eth0"].index;
        let until = Lifetime::Until(Instant::now() + Duration::from_secs(3600));
        let binding = Binding { index, address: address.parse().unwrap() };
        kernel.bind(binding, until).await.unwrap();
        // Where this kernel makes none, there is none to be swept.
        let made =
            kernel.make_vlan(&format!("eth0.{vlan}"), Vlan { parent: index, id: vlan }).await;
        println!("VLAN: {made:?}");
        let ports: BTreeSet<Port> =
            [Port { address: binding.address, protocol: 6, port: 80 }].into();
        let mut guard = Kept::of(&instance, "unserved");
        guard.dataplane.unserved.want(ports.clone().into());
        guard.tells(&Guard::Holds(ports.into()).into()).await;
        guard.stop().await;
        let former = [(binding.address, "192.0.2.11".parse().unwrap())];
        let forwards: Forwards = former.into_iter().chain([six()]).collect();
        let mut forward = Kept::of(&instance, "forward");
        forward.dataplane.forward.want(forwards.clone());
        forward.tells(&forwards.into()).await;
        forward.stop().await;
        Self { instance, address, vlan }
    }

    /// What is seen of it from outside.
    fn shown(&self) -> String {
        let (table, number) = (self.instance.table(), self.instance.number());
        let tables = ["inet", "ip", "ip6"].map(|family| {
            let shown = attempt(&format!("nft -j list table {family} {table}"));
            String::from_utf8(shown.stdout).unwrap()
        });
        let links = run("ip -o -d link");
        let vlan = format!("eth0.{}", self.vlan);
        let link = links.lines().filter(|line| line.contains(&vlan)).collect::<String>();
        let addresses = run("ip -o -d addr");
        let address = addresses.lines().filter(|line| line.contains(self.address)).map(
            // Its lifetime runs.
            |line| line.split("valid_lft").next().unwrap_or_default().to_owned(),
        );
        let rules = [run("ip -N -d rule"), run("ip -N -6 -d rule")].concat();
        let rules = rules.lines().filter(|line| line.contains(&format!("proto {number}")));
        let routes = attempt(&format!("ip -N -d route show table {number}"));
        [
            tables.concat(),
            link,
            address.collect(),
            rules.collect::<String>(),
            String::from_utf8(routes.stdout).unwrap(),
        ]
        .join("\n")
    }

    /// What its next life does first.
    async fn swept(&self) {
        let door = door();
        let mut kernel = door.netlink(&self.instance);
        let host = kernel.look().await.unwrap();
        for binding in host.ours.keys() {
            kernel.remove(*binding).await.unwrap();
        }
        for index in host.made {
            kernel.remove_link(index).await.unwrap();
        }
        dataplane::remove(&self.instance).await;
        eip::sweep(&door, &self.instance).await.unwrap();
    }
}

fn six() -> (std::net::IpAddr, std::net::IpAddr) {
    ("2001:db8::1".parse().unwrap(), "2001:db8::11".parse().unwrap())
}

/// Routes, rules, sets and chains of elastic IPs, of the one instance that has them.
async fn translate() {
    run("ip route add default via 192.0.2.254 dev eth0");
    let mut kept = Kept::start("elastic IPs");
    let pair = eip::Pair { vmi: "10.244.0.4".parse().unwrap(), stage: eip::Stage::Held };
    let nat = eip::Nat {
        pairs: [("192.0.2.77".parse().unwrap(), pair)].into(),
        uplink: Some("eth0".to_owned()),
        ..eip::Nat::default()
    };
    kept.dataplane.eip.want(Some(nat.clone()));
    kept.tells(&eip::Translation::Holds(nat).into()).await;
    kept.stop().await;
}

fn untouched() -> String {
    [run("ipset save"), chains(), run("ip -N -d rule")].concat()
}

fn chains() -> String {
    // Comments tell the time.
    let shown = run("iptables-nft-save -t nat");
    shown.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_is_swept_is_ones_own_and_the_other_instances_stays_as_it_is_to_the_byte() {
    alone(async || {
        let services = Left::by(Instance::services(), "192.0.2.1", 5).await;
        translate().await;
        let other = Left::by(Instance::of_roles(true, false), "192.0.2.2", 6).await;
        let third = Left::by(Instance::named("192-0-2-3").unwrap(), "192.0.2.3", 7).await;
        let of = |left: &Left| (left.shown(), left.address);
        let (first, second, last) = (of(&services), of(&other), of(&third));
        for (shown, address) in [&first, &second, &last] {
            assert!(shown.contains(&format!("inet {address}/32")), "{shown}");
            assert!(shown.matches(r#""chain""#).count() >= 3, "three tables: {shown}");
        }
        assert!(first.0.contains("192.0.2.254"), "the route table: {}", first.0);
        let translated = untouched();

        other.swept().await;
        assert!(!other.shown().contains("192.0.2.2/32"), "{}", other.shown());
        assert!(!attempt("nft list table inet berth-cp").status.success());
        assert!(!attempt("nft list table ip6 berth-cp").status.success());
        assert_eq!((services.shown(), third.shown()), (first.0, last.0.clone()));
        assert_eq!(untouched(), translated, "elastic IPs belong to the other one");

        services.swept().await;
        assert_eq!(services.shown().trim(), "", "nothing is left of it");
        assert_eq!(third.shown(), last.0);
    });
}

/// The filter of a fence that its process has left.
fn fence(instance: &Instance) {
    let instance = berth_fence::Instance::of(instance.name(), instance.number()).unwrap();
    let options = berth_fence::Options { instance, ..berth_fence::Options::default() };
    let mut fence = berth_fence::open(&options).fence;
    assert!(fence.attach(&["eth0".to_owned()].into()).is_empty());
}

fn fences() -> String {
    let shown = attempt("tc filter show dev eth0 egress");
    let tables = run("nft list tables netdev");
    let shown = String::from_utf8(shown.stdout).unwrap() + &tables;
    let words = shown.split_whitespace().map(|word| word.split(':').next().unwrap_or_default());
    let names: BTreeSet<&str> = words.filter(|word| word.starts_with("berth-fence")).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_an_instance_has_left_that_does_not_run_is_swept_and_nothing_of_one_that_runs() {
    alone(async || {
        let [gone, lives, me] = ["gone", "lives", "me"].map(|name| Instance::named(name).unwrap());
        let services = Left::by(Instance::services(), "192.0.2.1", 5).await;
        let gone = Left::by(gone, "192.0.2.6", 6).await;
        let lives = Left::by(lives, "192.0.2.3", 7).await;
        translate().await;
        [&services, &gone, &lives].into_iter().for_each(|left| fence(&left.instance));
        assert_eq!(fences(), "berth-fence berth-fence-gone berth-fence-lives");
        // Of this one nothing but addresses is left, and one of the operator's has such a number.
        let until = Lifetime::Until(Instant::now() + Duration::from_secs(600));
        for (address, lifetime) in [("192.0.2.4", until), ("192.0.2.5", Lifetime::Forever)] {
            let mut kernel = door().netlink(&Instance::numbered(247));
            let index = kernel.look().await.unwrap().interfaces["eth0"].index;
            let binding = Binding { index, address: address.parse().unwrap() };
            kernel.bind(binding, lifetime).await.unwrap();
        }
        let _locks = locks::take(&lives.instance, WhenTaken::End).await.unwrap();
        let before = (services.shown(), lives.shown(), untouched());

        let sweep = async |me: &Instance| {
            let door = door();
            let host = door.netlink(me).look().await.unwrap();
            sweep::others(&door, &host, me).await;
        };
        sweep(&me).await;
        assert_eq!(gone.shown().trim(), "", "nothing is left of it");
        assert_eq!((services.shown(), lives.shown(), untouched()), before);
        assert_eq!(fences(), "berth-fence berth-fence-lives", "Services are another's");
        assert!(address("eth0", "192.0.2.4").is_none() && address("eth0", "192.0.2.5").is_some());

        // Who serves Services as well disposes of them, but for the sets and chains, which it takes over.
        let (nat, both) = (chains(), Instance::of_roles(true, true));
        sweep(&both).await;
        assert_eq!(services.shown().trim(), "", "nor of this one");
        assert_eq!((lives.shown(), chains()), (before.1, nat));
        assert_eq!(fences(), "berth-fence-lives");
    });
}

#[test]
fn what_another_instance_has_bound_is_foreign_and_not_to_be_adopted() {
    alone(async || {
        let other = Left::by(Instance::of_roles(true, false), "192.0.2.2", 6).await;
        let host = door().netlink(&Instance::services()).look().await.unwrap();
        assert!(host.ours.is_empty() && host.made.is_empty(), "{host:?}");
        let address = other.address.parse().unwrap();
        assert!(!host.interfaces["eth0"].foreign[&address].adoptable);
    });
}

#[test]
fn only_the_instance_that_serves_services_translates() {
    alone(async || {
        translate().await;
        let before = untouched();
        let mut kept = Kept::of(&Instance::of_roles(true, false), "elastic IPs");
        kept.dataplane.eip.want(Some(eip::Nat::default()));
        kept.tells(&eip::Translation::Holds(eip::Nat::default()).into()).await;
        let pair = eip::Pair { vmi: "10.244.0.9".parse().unwrap(), stage: eip::Stage::Held };
        let pairs = [("192.0.2.78".parse().unwrap(), pair)].into();
        kept.dataplane.eip.want(Some(eip::Nat { pairs, ..eip::Nat::default() }));
        let told = format!("{:?}", kept.next().await);
        assert!(told.contains("berth-announcer-cp translates no elastic IPs"), "{told}");
        kept.stop().await;
        assert_eq!(untouched(), before);
    });
}
