//! How sessions come about and end: passwords, ports, who connects, how far, and what is said at the end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use berth_bgp::config::Distance;
use berth_bgp::{Cause, Event, Family, Parameters, Role, Session, Stop};
use berth_bgp_speaker::{Door, Find, Key, Target, router_on, spawn, spawn_finding};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::router::Router;
use crate::speaker::{Speaker, block_on, hosts, own, parameters, speak, target};

fn protocol(more: &str) -> String {
    format!(
        "
protocol bgp node {{
  local 192.0.2.1 as 65001;
  neighbor 192.0.2.11 as 65000;
  ipv4 {{ import all; export none; }};
  {more}
}}
"
    )
}

#[test]
fn the_right_password_is_one_and_a_wrong_one_is_no_answer() {
    let router = Router::with(&protocol("password \"secret\"; passive on;"));
    router.node.within(|| {
        block_on(async {
            let mut signed = target("192.0.2.1:179");
            signed.key = Key::new(b"wrong");
            let short = Parameters { connect_retry: Duration::from_secs(1), ..parameters() };
            let speaker = speak(signed.clone(), short, hosts("198.51.100.1", 1), false).await;
            let begun = Instant::now();
            while speaker.last_cause().await.is_empty() && begun.elapsed() < Duration::from_secs(10)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(speaker.last_cause().await, "no answer: wrong password, or filtered?");
            drop(speaker);
            signed.key = Key::new(b"secret");
            let speaker = speak(signed, parameters(), hosts("198.51.100.1", 1), false).await;
            speaker.until_up().await;
            router.until("show route count", |_| router.count("node") == 1);
        });
    });
}

#[test]
fn a_password_is_asked_for_anew_before_each_attempt() {
    let router = Router::with(&protocol("password \"later\"; passive on;"));
    router.node.within(|| {
        block_on(async {
            let key = Arc::new(Mutex::new(Key::new(b"before")));
            let (remote, keys) = (target("192.0.2.1:179"), key.clone());
            let find: Find = Arc::new(move || {
                let key = keys.lock().unwrap().clone();
                Box::pin(std::future::ready(Ok(Target { key, ..remote.clone() })))
            });
            let short = Parameters { connect_retry: Duration::from_secs(1), ..parameters() };
            let mut session = Session::new(Instant::now(), short, 7);
            session.set_routes(hosts("198.51.100.1", 1));
            let (remote, nobody) = (target("192.0.2.1:179"), mpsc::channel(1).1);
            let (handle, news) = spawn_finding(remote, find, session, Arc::new(own), nobody);
            handle.start(None).await.unwrap();
            let (speaker, begun) = (Speaker { handle, news }, Instant::now());
            while speaker.last_cause().await.is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(15), "it is a wrong one");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            *key.lock().unwrap() = Key::new(b"later");
            speaker.until_up().await;
        });
    });
}

#[test]
fn the_router_on_a_link_is_found_by_its_advertisements_and_has_both_families_by_the_link() {
    let router = Router::with(
        "
protocol radv { interface \"eth0\" { max ra interval 600; }; }
protocol bgp node {
  local fe80::1 as 65001;
  neighbor fe80::11%eth0 as 65000;
  passive on;
  ipv4 { import all; export none; extended next hop on; };
  ipv6 { import all; export none; };
}
",
    );
    router.node.within(|| {
        block_on(async {
            let found = router_on("eth0", 179).await.unwrap();
            assert_eq!(found.ip().to_string(), "fe80::1");
            let unnumbered = Target {
                remote: found,
                interface: Some("eth0".to_owned()),
                ..target("192.0.2.1:179")
            };
            let parameters = Parameters { families: Family::ALL.into(), ..parameters() };
            let speaker = speak(unnumbered, parameters, hosts("198.51.100.1", 1), false).await;
            speaker.until_up().await;
            let said = router.until("show route all", |_| router.count("node") == 1);
            let hop = said.lines().find(|line| line.contains("BGP.next_hop: "));
            assert!(hop.is_some_and(|hop| hop.ends_with("fe80::11")), "{said}");
            let absent = router_on("lo", 179).await.unwrap_err().to_string();
            assert!(absent.starts_with("asking for the router on the link of lo: "), "{absent}");
            let unknown = router_on("eth7", 179).await.unwrap_err().to_string();
            assert!(unknown.starts_with("interface eth7: "), "{unknown}");
        });
    });
}

#[test]
fn the_peer_may_connect_to_any_port_with_a_password_and_from_no_farther_than_it_is() {
    let more = "neighbor port 1790; password \"secret\"; ttl security on; connect delay time 1;";
    let router = Router::with(&protocol(more));
    router.node.within(|| {
        block_on(async {
            let door = Door::open(1790).unwrap();
            let mut target = target("192.0.2.1:179");
            (target.key, target.distance) = (Key::new(b"secret"), Distance::Secured(1));
            let (_admission, incoming) =
                door.admit(target.remote.ip(), target.key.as_ref()).unwrap();
            // Whoever is no peer is hung up on.
            let mut stranger = tokio::net::TcpStream::connect("192.0.2.11:1790").await.unwrap();
            assert_eq!(stranger.read(&mut [0; 100]).await.unwrap(), 0);
            let passive = Parameters { role: Role::Passive, ..parameters() };
            let mut session = Session::new(Instant::now(), passive, 7);
            session.set_routes(hosts("198.51.100.1", 1));
            let (handle, news) = spawn(target, session, Arc::new(own), incoming);
            handle.start(None).await.unwrap();
            let speaker = Speaker { handle, news };
            speaker.until_up().await;
            router.until("show route count", |_| router.count("node") == 1);
        });
    });
}

#[test]
fn both_connect_at_once_and_one_session_stays() {
    let router =
        Router::with(&protocol("neighbor port 1790; connect delay time 1; connect retry time 1;"));
    router.node.within(|| {
        block_on(async {
            let door = Door::open(1790).unwrap();
            let target = target("192.0.2.1:179");
            let (_admission, incoming) = door.admit(target.remote.ip(), None).unwrap();
            let mut session = Session::new(Instant::now(), parameters(), 7);
            session.set_routes(hosts("198.51.100.1", 1));
            let (handle, news) = spawn(target, session, Arc::new(own), incoming);
            handle.start(None).await.unwrap();
            let mut speaker = Speaker { handle, news };
            speaker.until_up().await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            router.until("show route count", |_| router.count("node") == 1);
            let mut events = Vec::new();
            while let Ok(news) = speaker.news.try_recv() {
                events.push(news.event);
            }
            assert!(!events.iter().any(|event| matches!(event, Event::Down(_))), "{events:?}");
        });
    });
}

#[test]
fn each_side_is_told_why_the_other_ends() {
    let router = Router::with(&protocol("passive on;"));
    router.node.within(|| {
        block_on(async {
            let mut speaker =
                speak(target("192.0.2.1:179"), parameters(), hosts("198.51.100.1", 1), false).await;
            speaker.until_up().await;
            speaker.handle.stop(Stop::Shutdown("node goes".to_owned())).await.unwrap();
            let said =
                router.until("show protocols all node", |said| !said.contains("Established"));
            assert!(
                said.contains("Received: ") || router.log().contains("node goes"),
                "{said}\n{}",
                router.log()
            );
            assert!(router.log().contains("node goes"), "{}", router.log());
            assert_eq!(router.count("node"), 0);
            speaker.handle.start(None).await.unwrap();
            speaker.until_up().await;
            router.says("disable node \"the router goes\"");
            let begun = Instant::now();
            let ended = loop {
                match speaker.news.recv().await.unwrap().event {
                    Event::Down(Cause::Received(why)) => break why,
                    other => assert!(begun.elapsed() < Duration::from_secs(10), "{other:?}"),
                }
            };
            assert!(ended.to_string().contains("the router goes"), "{ended}");
        });
    });
}

#[test]
fn a_peer_that_is_of_another_as_refuses_and_says_so() {
    let router = Router::with(&protocol("passive on;"));
    router.node.within(|| {
        block_on(async {
            let wrong = Parameters { local_as: 64999, ..parameters() };
            let speaker =
                speak(target("192.0.2.1:179"), wrong, hosts("198.51.100.1", 1), false).await;
            let begun = Instant::now();
            while !speaker.last_cause().await.contains("Bad Peer AS") {
                assert!(
                    begun.elapsed() < Duration::from_secs(10),
                    "{}",
                    speaker.last_cause().await
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    });
}
