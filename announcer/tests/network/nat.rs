//! Elastic IPs in the kernel, beside rules as kube-proxy has them, with both implementations of iptables.

mod flows;
mod gateways;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_announcer::dataplane::Event;
use berth_announcer::dataplane::eip::{Nat, Pair, Stage, Translation};
use serde_json::Value;

use crate::kept::Kept;
use crate::namespace::{alone, attempt, run};

/// As kube-proxy, a CNI and an administrator have them.
const FOREIGN: &str = "\
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SVC-NPX46M4PTMTKRN6Y -p tcp -m tcp -j DNAT --to-destination 10.0.0.11:6443
COMMIT
";

/// The contract's table, for one pair of each family.
const V4: &str = "\
-A FORWARD -m set --match-set kube-eip-vmi src -j ACCEPT
-A INPUT -m set --match-set kube-eip-eip dst -m conntrack ! --ctstate UNTRACKED -j DROP
-A KUBE-EIP-HAIRPIN -s 10.244.0.4/32 -j SNAT --to-source 192.0.2.1
-A KUBE-EIP-POSTROUTING -d 10.244.0.4/32 -m conntrack --ctstate DNAT --ctorigdst 192.0.2.1 -j KUBE-EIP-HAIRPIN
-A KUBE-EIP-POSTROUTING -s 10.244.0.4/32 -m set ! --match-set k8s_internal_net dst -j SNAT --to-source 192.0.2.1
-A KUBE-EIP-PREROUTING -d 192.0.2.1/32 -j DNAT --to-destination 10.244.0.4
-A POSTROUTING -m set --match-set kube-eip-vmi src -j KUBE-EIP-POSTROUTING
-A PREROUTING -m set --match-set kube-eip-eip dst -j KUBE-EIP-PREROUTING
-A PREROUTING -m set --match-set kube-eip-moving dst -m set ! --match-set k8s_internal_net src -j CT --notrack";
const V6: &str = "\
-A FORWARD -m set --match-set kube-eip-vmi6 src -j ACCEPT
-A INPUT -m set --match-set kube-eip-eip6 dst -m conntrack ! --ctstate UNTRACKED -j DROP
-A KUBE-EIP-HAIRPIN -s fd00:244::4/128 -j SNAT --to-source 2001:db8::1
-A KUBE-EIP-POSTROUTING -d fd00:244::4/128 -m conntrack --ctstate DNAT --ctorigdst 2001:db8::1 -j KUBE-EIP-HAIRPIN
-A KUBE-EIP-POSTROUTING -s fd00:244::4/128 -m set ! --match-set k8s_internal_net6 dst -j SNAT --to-source 2001:db8::1
-A KUBE-EIP-PREROUTING -d 2001:db8::1/128 -j DNAT --to-destination fd00:244::4
-A POSTROUTING -m set --match-set kube-eip-vmi6 src -j KUBE-EIP-POSTROUTING
-A PREROUTING -m set --match-set kube-eip-eip6 dst -j KUBE-EIP-PREROUTING
-A PREROUTING -m set --match-set kube-eip-moving6 dst -m set ! --match-set k8s_internal_net6 src -j CT --notrack";

const BACKENDS: [&str; 2] = ["nft", "legacy"];

fn nat(pairs: &[(&str, &str)]) -> Nat {
    let pair = |vmi: &str| Pair { vmi: vmi.parse().unwrap(), stage: Stage::Held };
    Nat {
        pairs: pairs.iter().map(|(eip, vmi)| (eip.parse().unwrap(), pair(vmi))).collect(),
        internal: ["10.244.0.0/16", "10.96.0.0/12", "fd00:244::/48"]
            .map(|n| n.parse().unwrap())
            .into(),
        uplink: Some("eth0".to_owned()),
        ..Nat::default()
    }
}

fn both() -> Nat {
    nat(&[("192.0.2.1", "10.244.0.4"), ("2001:db8::1", "fd00:244::4")])
}

struct Translator(Kept);

impl Translator {
    fn start() -> Self {
        Self(Kept::start("elastic IPs"))
    }

    /// Asks for `nat` and waits until it holds.
    async fn make(&mut self, nat: &Nat) {
        self.0.dataplane.eip.want(Some(nat.clone()));
        loop {
            match self.0.next().await {
                Event::Eip(Translation::Holds(held)) if held == *nat => return,
                Event::Eip(Translation::Failed(error)) => panic!("{error}"),
                _ => {}
            }
        }
    }

    async fn stop(self) {
        self.0.stop().await;
    }
}

/// How many sockets of this namespace speak each kind of netlink, but for the kernel's own.
fn netlink_sockets() -> [usize; 2] {
    let table = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let rows: Vec<Vec<&str>> =
        table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    // `NETLINK_ROUTE`, `NETLINK_NETFILTER`.
    ["0", "12"].map(|kind| rows.iter().filter(|row| row[1] == kind && row[2] != "0").count())
}

#[test]
fn the_kernel_is_entered_by_one_socket_for_requests_and_one_for_events_of_each_kind() {
    alone(async || {
        assert_eq!(netlink_sockets(), [0, 0]);
        let mut translator = Translator::start();
        translator.make(&both()).await;
        assert_eq!(netlink_sockets(), [2, 2]);
        translator.stop().await;
    });
}

fn feed(command: &str, input: &str) {
    let mut words = command.split(' ');
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{command}");
}

/// Foreign rules in this implementation, and two networks of routes.
fn prepare(backend: &str) {
    feed(&format!("iptables-{backend}-restore --noflush"), FOREIGN);
    run("ip route add default via 192.0.2.254 dev eth0");
    run("ip -6 route add default via 2001:db8::fe dev eth0");
}

/// Every rule, as `iptables-save` prints it.
fn rules(six: &str, backend: &str) -> Vec<String> {
    let text = run(&format!("ip{six}tables-{backend}-save"));
    text.lines().filter(|line| line.starts_with("-A ")).map(str::to_owned).collect()
}

fn is_ours(rule: &str) -> bool {
    rule.contains("KUBE-EIP-") || rule.contains("kube-eip-")
}

fn ours(six: &str, backend: &str) -> String {
    let mut ours: Vec<String> =
        rules(six, backend).into_iter().filter(|rule| is_ours(rule)).collect();
    ours.sort();
    ours.join("\n")
}

fn foreign(backend: &str) -> Vec<String> {
    rules("", backend).into_iter().filter(|rule| !is_ours(rule)).collect()
}

/// The elements of a set, as `ipset save` prints them.
fn set(name: &str) -> BTreeSet<String> {
    let text = String::from_utf8(attempt(&format!("ipset save {name}")).stdout).unwrap();
    let start = format!("add {name} ");
    text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

/// The sources of policy rules to our table.
fn policy(six: &str) -> Vec<String> {
    let shown: Vec<Value> = serde_json::from_str(&run(&format!("ip -N {six} -j rule"))).unwrap();
    let ours = shown.iter().filter(|rule| rule["priority"] == 1001 && rule["table"] == "190");
    ours.map(|rule| rule["src"].as_str().unwrap().to_owned()).collect()
}

fn table(six: &str) -> Vec<String> {
    table_of(six, 190)
}

/// The routes of a table of ours, by numbers: names are what packages of the host say, and FRR's calls 190 `ripng`.
fn table_of(six: &str, number: u8) -> Vec<String> {
    let shown = attempt(&format!("ip -N {six} route show table {number}"));
    let text = String::from_utf8(shown.stdout).unwrap();
    let tag = format!(" proto {number}");
    let trim = |line: &str| line.replace(&tag, "").replace("  ", " ").trim().to_owned();
    text.lines().map(trim).collect()
}

fn is_whole(backend: &str) -> bool {
    ours("", backend) == V4
        && ours("6", backend) == V6
        && set("kube-eip-eip") == BTreeSet::from(["192.0.2.1".to_owned()])
        && set("k8s_internal_net").len() == 2
        && policy("-4") == ["10.244.0.4"]
        && policy("-6") == ["fd00:244::4"]
        && table("-4").len() == 4
}

async fn until(what: &str, mut is: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(20), "not so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

#[test]
fn the_rules_are_those_of_the_contract_and_those_of_others_stay_as_they_are_to_the_byte() {
    for backend in BACKENDS {
        alone(async || {
            prepare(backend);
            let before = rules("", backend);
            let mut translator = Translator::start();
            translator.make(&both()).await;
            assert_eq!(ours("", backend), V4, "{backend}");
            assert_eq!(ours("6", backend), V6, "{backend}");
            assert_eq!(foreign(backend), before);
            let nat = run(&format!("iptables-{backend}-save -t nat"));
            let nat: Vec<&str> = nat.lines().collect();
            for chain in ["PREROUTING", "POSTROUTING"] {
                let start = format!("-A {chain} ");
                let first = nat.iter().find(|rule| rule.starts_with(&start));
                assert!(is_ours(first.unwrap()), "{backend}: {chain}");
            }
            assert_eq!(set("kube-eip-vmi"), ["10.244.0.4".to_owned()].into());
            assert_eq!(set("kube-eip-vmi6"), ["fd00:244::4".to_owned()].into());
            let internal = ["10.96.0.0/12", "10.244.0.0/16"].map(str::to_owned);
            assert_eq!(set("k8s_internal_net"), internal.into());
            assert_eq!(policy("-4"), ["10.244.0.4"]);
            // Type 9 is `throw`, scope 253 that of the link.
            let v4 = [
                "default via 192.0.2.254 dev eth0",
                "9 10.96.0.0/12",
                "9 10.244.0.0/16",
                "192.0.2.0/24 dev eth0 scope 253",
            ];
            assert_eq!(table("-4"), v4);
            let v6 = table("-6").join("\n");
            for part in
                ["9 fd00:244::/48", "2001:db8::/64 dev eth0", "default via 2001:db8::fe dev eth0"]
            {
                assert!(v6.contains(part), "{v6}");
            }
            let other = if backend == "nft" { "legacy" } else { "nft" };
            assert_eq!(ours("", other), "", "only where kube-proxy is");

            translator.make(&Nat::default()).await;
            assert_eq!(rules("", backend), before);
            assert!(!run(&format!("iptables-{backend}-save")).contains("KUBE-EIP"));
            assert_eq!(run("ipset list -name"), "");
            assert_eq!((policy("-4"), table("-4"), table("-6")), (vec![], vec![], vec![]));
            translator.stop().await;
        });
    }
}

#[test]
fn both_10_244_0_4_and_10_244_0_48_are_programmed() {
    alone(async || {
        let mut translator = Translator::start();
        translator.make(&nat(&[("192.0.2.1", "10.244.0.48")])).await;
        translator.make(&nat(&[("192.0.2.1", "10.244.0.48"), ("192.0.2.10", "10.244.0.4")])).await;
        let ours = ours("", "nft");
        for (eip, vmi) in [("192.0.2.1", "10.244.0.48"), ("192.0.2.10", "10.244.0.4")] {
            assert!(
                ours.contains(&format!("-d {eip}/32 -j DNAT --to-destination {vmi}\n")),
                "{ours}"
            );
        }
        translator.stop().await;
    });
}

#[test]
fn whatever_is_taken_away_comes_back_and_the_rules_of_others_stay() {
    for backend in BACKENDS {
        alone(async || {
            prepare(backend);
            let mut translator = Translator::start();
            translator.make(&both()).await;
            until("whole", || is_whole(backend)).await;
            let before = foreign(backend);
            let iptables = format!("iptables-{backend}");
            let jump = "-m set --match-set kube-eip-eip dst -j KUBE-EIP-PREROUTING";
            let stray =
                "-m set --match-set kube-eip-eip dst -m conntrack ! --ctstate UNTRACKED -j DROP";
            let losses = [
                vec![format!("{iptables} -t nat -F KUBE-EIP-PREROUTING")],
                vec![format!("{iptables} -t nat -D PREROUTING {jump}")],
                vec![format!("{iptables} -t nat -I POSTROUTING -s 198.51.100.1 -j RETURN")],
                vec![format!(
                    "{iptables} -D FORWARD -m set --match-set kube-eip-vmi src -j ACCEPT"
                )],
                vec!["ipset flush kube-eip-eip".to_owned()],
                vec![
                    format!("{iptables} -t nat -F"),
                    format!("{iptables} -D INPUT {stray}"),
                    "ipset destroy kube-eip-eip".to_owned(),
                ],
                vec!["ip rule del from 10.244.0.4 pref 1001".to_owned()],
                vec!["ip route flush table 190".to_owned()],
            ];
            for loss in losses {
                for command in &loss {
                    // A set that a repair has taken into use meanwhile is refused, and need not be made again.
                    match command.starts_with("ipset destroy") {
                        true => drop(attempt(command)),
                        false => drop(run(command)),
                    }
                }
                let took = until(&format!("{backend}: repaired after {loss:?}"), || {
                    let start = "-A POSTROUTING ";
                    let first = rules("", backend).into_iter().find(|rule| rule.starts_with(start));
                    is_whole(backend) && first.is_some_and(|rule| is_ours(&rule))
                })
                .await;
                println!("{backend}: {loss:?}: {took:?}");
                assert!(took < Duration::from_secs(2), "{backend}: {loss:?}: {took:?}");
                let whole_table = loss[0].ends_with("-F");
                if whole_table {
                    feed(
                        &format!("iptables-{backend}-restore --noflush"),
                        FOREIGN.split("*nat").nth(1).map(|n| format!("*nat{n}")).unwrap().as_str(),
                    );
                    until("whole", || is_whole(backend)).await;
                } else {
                    let inserted = |rule: &&String| !rule.contains("198.51.100.1");
                    let left: Vec<String> =
                        foreign(backend).iter().filter(inserted).cloned().collect();
                    assert_eq!(left, before, "{backend} after {loss:?}");
                }
            }
            if backend == "nft" {
                run("nft flush ruleset");
                until("repaired after a flush of everything", || is_whole(backend)).await;
            }
            translator.stop().await;
        });
    }
}

#[test]
fn a_thousand_addresses_are_programmed_and_changed_whole() {
    alone(async || {
        prepare("nft");
        let pairs: Vec<(String, String)> = (0..1000)
            .map(|n| {
                (
                    format!("198.18.{}.{}", n / 250, n % 250 + 1),
                    format!("10.244.{}.{}", n / 250, n % 250 + 1),
                )
            })
            .collect();
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(e, v)| (e.as_str(), v.as_str())).collect();
        let mut translator = Translator::start();
        let start = Instant::now();
        translator.make(&nat(&pairs)).await;
        println!("from nothing: {:?}", start.elapsed());
        let start = Instant::now();
        translator.make(&nat(&pairs[1..])).await;
        println!("one less: {:?}", start.elapsed());
        let led = rules("", "nft").iter().filter(|rule| rule.contains("-j DNAT --to-d")).count();
        assert_eq!(
            (led, policy("-4").len(), set("kube-eip-eip").len()),
            (1000, 999, 999),
            "one is a Service's"
        );
        translator.stop().await;
    });
}
