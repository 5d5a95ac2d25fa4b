use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use berth_announcer::dataplane::unserved;
use berth_announcer::instance::Instance;
use berth_announcer::kernel::{Guard, Guarded, Port};
use serde_json::Value;

use crate::kept::Kept;
use crate::namespace::{alone, attempt, run};
use crate::rounds::until;

fn port(address: &str, port: u16) -> Port {
    Port { address: address.parse().unwrap(), protocol: 6, port }
}

fn connect(to: &str) -> Result<(), ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    let connected = TcpStream::connect_timeout(&to, Duration::from_millis(300));
    connected.map(drop).map_err(|error| error.kind())
}

fn start() -> Kept {
    Kept::start("unserved")
}

/// Wants this guarded, and waits until they are.
async fn guard(kept: &mut Kept, guarded: &Guarded) {
    kept.dataplane.unserved.want(guarded.clone());
    kept.tells(&Guard::Holds(guarded.clone()).into()).await;
}

/// What the kernel has of the table, as `nft` tells it; nothing while it is written.
fn listing(closes: bool) -> Option<Guarded> {
    let listed = attempt("nft -j list table inet berth").stdout;
    let listed: Value = serde_json::from_slice(&listed).ok()?;
    let items = listed["nftables"].as_array()?;
    assert!(items.iter().any(|item| item["chain"]["hook"] == "input"), "{listed}");
    let elements = |name: &str| -> Vec<Vec<String>> {
        let sets = items.iter().map(|item| &item["set"]).filter(|set| set["name"] == name);
        let all = sets.flat_map(|set| set["elem"].as_array().into_iter().flatten());
        all.map(|element| {
            let shown = element.get("elem").map_or(element, |element| &element["val"]);
            let text = |part: &Value| part.as_str().map_or(part.to_string(), str::to_owned);
            shown["concat"]
                .as_array()
                .map_or(vec![text(shown)], |all| all.iter().map(text).collect())
        })
        .collect()
    };
    let both = |name: &str| [elements(&format!("{name}4")), elements(&format!("{name}6"))].concat();
    let address = |text: &String| text.parse::<IpAddr>().unwrap();
    let ports: BTreeSet<Port> = both("services")
        .iter()
        .map(|parts| {
            let protocol = match &*parts[1] {
                "tcp" => 6,
                "udp" => 17,
                "sctp" => 132,
                number => number.parse().unwrap(),
            };
            Port { address: address(&parts[0]), protocol, port: parts[2].parse().unwrap() }
        })
        .collect();
    let closed: BTreeSet<IpAddr> = both("closed").iter().map(|parts| address(&parts[0])).collect();
    let own: BTreeSet<IpAddr> = ports.iter().filter(|_| closes).map(|port| port.address).collect();
    if closed != own {
        return None;
    }
    let mut doubted: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    for parts in both("doubted") {
        doubted.entry(address(&parts[0])).or_default();
    }
    for parts in both("leads") {
        doubted.get_mut(&address(&parts[0]))?.insert(address(&parts[1]));
    }
    Some(Guarded { ports, doubted })
}

/// The kernel's number of the table, which is another one if it is written anew.
fn handle() -> Option<u64> {
    let listed: Value = serde_json::from_slice(&attempt("nft -j list tables").stdout).unwrap();
    let tables = listed["nftables"].as_array().into_iter().flatten();
    tables.map(|item| &item["table"]).find(|table| table["name"] == "berth")?["handle"].as_u64()
}

#[test]
fn what_is_not_served_yet_is_dropped_and_not_refused() {
    alone(async || {
        run("ip addr add 192.0.2.1/32 dev eth0");
        run("ip addr add 2001:db8::1/128 dev eth0 nodad");
        let (v4, v6) = ("192.0.2.1:80", "[2001:db8::1]:80");
        assert_eq!(connect(v4), Err(ErrorKind::ConnectionRefused));
        let mut kept = start();
        let ports: BTreeSet<Port> = [port("192.0.2.1", 80), port("2001:db8::1", 80)].into();
        guard(&mut kept, &ports.into()).await;
        assert_eq!(connect(v4), Err(ErrorKind::TimedOut));
        assert_eq!(connect(v6), Err(ErrorKind::TimedOut));
        assert_eq!(
            connect("192.0.2.1:81"),
            Err(ErrorKind::ConnectionRefused),
            "no port of a Service"
        );
        assert_eq!(connect("192.0.2.250:80"), Err(ErrorKind::ConnectionRefused), "not our address");
        kept.stop().await;
        unserved::remove("berth").await.unwrap();
        assert_eq!(connect(v4), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn what_is_served_passes_in_the_middle_of_it() {
    alone(async || {
        run("ip addr add 192.0.2.1/32 dev eth0");
        let listener = TcpListener::bind("192.0.2.250:8080").unwrap();
        let mut kept = start();
        let ports: BTreeSet<Port> = [port("192.0.2.1", 80)].into();
        guard(&mut kept, &ports.into()).await;
        assert_eq!(connect("192.0.2.1:80"), Err(ErrorKind::TimedOut));
        // As kube-proxy does: the destination is rewritten before the input hook.
        run("nft add table ip proxy");
        run("nft add chain ip proxy output { type nat hook output priority -100 ; }");
        run(
            "nft add rule ip proxy output ip daddr 192.0.2.1 tcp dport 80 dnat to 192.0.2.250:8080",
        );
        assert_eq!(connect("192.0.2.1:80"), Ok(()));
        drop(listener);
    });
}

#[test]
fn a_retransmitted_syn_finds_the_rule_that_came_meanwhile() {
    alone(async || {
        run("ip addr add 192.0.2.1/32 dev eth0");
        let _listener = TcpListener::bind("192.0.2.250:8080").unwrap();
        let mut kept = start();
        let ports: BTreeSet<Port> = [port("192.0.2.1", 80)].into();
        guard(&mut kept, &ports.into()).await;
        // The hook is there before, as kube-proxy's is: so the first SYN is tracked and passes it without a rule.
        run("nft add table ip proxy");
        run("nft add chain ip proxy output { type nat hook output priority -100 ; }");
        let client = tokio::net::TcpStream::connect("192.0.2.1:80");
        let mut client = Box::pin(tokio::time::timeout(Duration::from_secs(10), client));
        tokio::select! {
            biased;
            early = &mut client => panic!("nothing serves it yet: {early:?}"),
            () = tokio::task::yield_now() => {}
        }
        run(
            "nft add rule ip proxy output ip daddr 192.0.2.1 tcp dport 80 dnat to 192.0.2.250:8080",
        );
        client.await.expect("in time").expect("connected by a later SYN");
    });
}

#[test]
fn each_change_and_each_loss_ends_in_the_table_that_is_wanted() {
    for closes in [false, true] {
        alone(async || each_change_and_each_loss(closes).await);
    }
}

async fn each_change_and_each_loss(closes: bool) {
    let mut kept = Kept::with(&Instance::services(), "unserved", closes);
    kept.tells(&Guard::Holds(BTreeSet::new().into()).into()).await;
    let ports: BTreeSet<Port> = (1..=1600).map(|n| port("192.0.2.1", n)).collect();
    let mut guarded = Guarded::from(ports);
    guard(&mut kept, &guarded).await;
    assert_eq!(listing(closes), Some(guarded.clone()));
    let written = handle();
    let ports = &mut guarded.ports;
    ports.remove(&port("192.0.2.1", 7));
    ports.insert(port("2001:db8::1", 443));
    ports.insert(Port { protocol: 17, ..port("192.0.2.1", 53) });
    ports.insert(Port { protocol: 132, ..port("192.0.2.1", 9) });
    guard(&mut kept, &guarded).await;
    assert_eq!(listing(closes), Some(guarded.clone()));
    if closes {
        each_change_of_what_is_doubted(&mut kept, &mut guarded).await;
    }
    assert_eq!(handle(), written, "a small change writes the table anew");
    run("nft flush ruleset");
    until("guarded again", || listing(closes) == Some(guarded.clone())).await;
}

async fn each_change_of_what_is_doubted(kept: &mut Kept, guarded: &mut Guarded) {
    let to = |all: &[&str]| all.iter().map(|to| to.parse().unwrap()).collect::<BTreeSet<_>>();
    for (v4, v6) in [(&["10.0.0.1", "10.0.0.2"][..], &[][..]), (&["10.0.0.2"], &["fd00::1"])] {
        for (address, leads) in [("192.0.2.1", v4), ("2001:db8::1", v6)] {
            guarded.doubted.insert(address.parse().unwrap(), to(leads));
        }
        guard(kept, guarded).await;
        assert_eq!(listing(true).as_ref(), Some(&*guarded));
    }
    guarded.doubted.pop_first();
    guard(kept, guarded).await;
    assert_eq!(listing(true).as_ref(), Some(&*guarded));
    // What a program that has died knew of endpoints does not last.
    let listed: Value =
        serde_json::from_slice(&attempt("nft -j list set inet berth doubted6").stdout).unwrap();
    let set = listed["nftables"].as_array().into_iter().flatten().find_map(|item| item.get("set"));
    let ends = set.map(|set| &set["elem"][0]["elem"]["expires"]).and_then(Value::as_u64);
    assert!(ends.is_some_and(|seconds| seconds <= 120), "{listed}");
}

#[test]
fn ports_of_the_host_are_closed_behind_what_is_guarded_and_nowhere_else() {
    alone(async || {
        run("ip addr add 192.0.2.1/32 dev eth0");
        run("ip addr add 2001:db8::1/128 dev eth0 nodad");
        let _listener = TcpListener::bind("[::]:22").unwrap();
        let (v4, v6, own) = ("192.0.2.1:22", "[2001:db8::1]:22", "192.0.2.250:22");
        for closes in [false, true] {
            let mut kept = Kept::with(&Instance::services(), "unserved", closes);
            let ports: BTreeSet<Port> = [port("192.0.2.1", 80), port("2001:db8::1", 80)].into();
            guard(&mut kept, &ports.into()).await;
            let answer = if closes { Err(ErrorKind::TimedOut) } else { Ok(()) };
            assert_eq!((connect(v4), connect(v6)), (answer, answer), "{closes}");
            assert_eq!(connect(own), Ok(()));
            for address in ["192.0.2.1", "2001:db8::1"] {
                assert!(
                    attempt(&format!("ping -c 1 -W 5 {address}")).status.success(),
                    "{address}"
                );
            }
            guard(&mut kept, &BTreeSet::from([port("2001:db8::1", 80)]).into()).await;
            assert_eq!((connect(v4), connect(v6)), (Ok(()), answer), "{closes}");
            kept.stop().await;
        }
    });
}

#[test]
fn the_rules_of_others_stay_as_they_are_to_the_byte() {
    alone(async || {
        run("nft add table inet other");
        run(
            "nft add chain inet other input { type filter hook input priority 0 ; policy accept ; }",
        );
        run("nft add rule inet other input tcp dport 22 accept");
        let before = run("nft list ruleset");
        let mut kept = start();
        let ports: BTreeSet<Port> = [port("192.0.2.1", 80)].into();
        guard(&mut kept, &ports.into()).await;
        assert_ne!(run("nft list ruleset"), before);
        kept.stop().await;
        unserved::remove("berth").await.unwrap();
        assert_eq!(run("nft list ruleset"), before);
        unserved::remove("berth").await.expect("removing what is not there");
        assert!(!attempt("nft list table inet berth").status.success());
    });
}
