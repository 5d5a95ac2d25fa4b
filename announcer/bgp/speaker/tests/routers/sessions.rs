//! How sessions come about and end: passwords, ports, who connects, how far, and what is said at the end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use berth_bgp::config::Distance;
use berth_bgp::{Cause, Event, Parameters, Role, Session, Stop};
use berth_bgp_speaker::{Door, Find, Key, Target, spawn};
use lab_routers::{Bird, Program};
use tokio::io::AsyncReadExt;

use crate::speaker::{
    PATIENCE, ROUTER, Speaker, block_on, hosts, own, pair, parameters, speak, speak_finding, target,
};

each!(
    the_right_password_is_one_and_a_wrong_one_is_no_answer,
    a_password_is_asked_for_anew_before_each_attempt,
    a_peer_that_is_of_another_as_refuses_and_says_so,
    a_change_of_routes_touches_no_session,
);

fn the_right_password_is_one_and_a_wrong_one_is_no_answer(program: &'static dyn Program) {
    let pair = pair(program, |neighbor| neighbor.password = Some("secret".to_owned()));
    pair.node.within(|| {
        block_on(async {
            let mut signed = target(ROUTER);
            let short = Parameters { connect_retry: Duration::from_secs(1), ..parameters() };
            // One that is wrong, and none where the router wants one.
            for key in [Key::new(b"wrong"), None] {
                signed.key = key;
                let speaker =
                    speak(signed.clone(), short.clone(), hosts("198.51.100.1", 1), false).await;
                speaker.until_told("no answer: wrong password, or filtered?").await;
                assert!(!pair.router.session().is_up);
            }
            signed.key = Key::new(b"secret");
            let speaker = speak(signed, parameters(), hosts("198.51.100.1", 1), false).await;
            speaker.until_up().await;
            pair.router.until_has([1, 0]);
        });
    });
}

fn a_peer_that_is_of_another_as_refuses_and_says_so(program: &'static dyn Program) {
    let pair = pair(program, |_| {});
    pair.node.within(|| {
        block_on(async {
            let wrong = Parameters { local_as: 64999, ..parameters() };
            let speaker = speak(target(ROUTER), wrong, hosts("198.51.100.1", 1), false).await;
            speaker.until_told("Bad Peer AS").await;
        });
    });
}

/// metallb#2454: what is announced has nothing to do with who is spoken to.
fn a_change_of_routes_touches_no_session(program: &'static dyn Program) {
    let pair = pair(program, |_| {});
    pair.node.within(|| {
        block_on(async {
            let mut speaker =
                speak(target(ROUTER), parameters(), hosts("10.0.0.0", 1), false).await;
            speaker.until_up().await;
            pair.router.until_has([1, 0]);
            speaker.events();
            for count in [40, 3, 0, 17] {
                speaker.handle.set_routes(hosts("10.0.0.0", count)).await.unwrap();
                pair.router.until_has([count as usize, 0]);
            }
            assert_eq!(speaker.events(), []);
            assert!(pair.router.session().is_up);
        });
    });
}

fn a_password_is_asked_for_anew_before_each_attempt(program: &'static dyn Program) {
    let pair = pair(program, |neighbor| neighbor.password = Some("later".to_owned()));
    pair.node.within(|| {
        block_on(async {
            let key = Arc::new(Mutex::new(Key::new(b"before")));
            let keys = key.clone();
            let find: Find = Arc::new(move || {
                let key = keys.lock().unwrap().clone();
                Box::pin(std::future::ready(Ok(Target { key, ..target(ROUTER) })))
            });
            let short = Parameters { connect_retry: Duration::from_secs(1), ..parameters() };
            let speaker = speak_finding(find, short, hosts("198.51.100.1", 1)).await;
            speaker.until_told("no answer: wrong password, or filtered?").await;
            *key.lock().unwrap() = Key::new(b"later");
            speaker.until_up().await;
            pair.router.until_has([1, 0]);
        });
    });
}

#[test]
fn the_peer_may_connect_to_any_port_with_a_password_and_from_no_farther_than_it_is() {
    let pair = pair(&Bird, |neighbor| {
        neighbor.connects = true;
        neighbor.password = Some("secret".to_owned());
        let more = ["neighbor port 1790;", "ttl security on;", "connect delay time 1;"];
        neighbor.more = more.map(str::to_owned).into();
    });
    pair.node.within(|| {
        block_on(async {
            let door = Door::open(1790).unwrap();
            let mut target = target(ROUTER);
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
            pair.router.until_has([1, 0]);
        });
    });
}

#[test]
fn both_connect_at_once_and_one_session_stays() {
    let pair = pair(&Bird, |neighbor| {
        neighbor.connects = true;
        let more = ["neighbor port 1790;", "connect delay time 1;", "connect retry time 1;"];
        neighbor.more = more.map(str::to_owned).into();
    });
    pair.node.within(|| {
        block_on(async {
            let door = Door::open(1790).unwrap();
            let target = target(ROUTER);
            let (_admission, incoming) = door.admit(target.remote.ip(), None).unwrap();
            let mut session = Session::new(Instant::now(), parameters(), 7);
            session.set_routes(hosts("198.51.100.1", 1));
            let (handle, news) = spawn(target, session, Arc::new(own), incoming);
            handle.start(None).await.unwrap();
            let mut speaker = Speaker { handle, news };
            speaker.until_up().await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            pair.router.until_has([1, 0]);
            let events = speaker.events();
            assert!(!events.iter().any(|event| matches!(event, Event::Down(_))), "{events:?}");
        });
    });
}

#[test]
fn each_side_is_told_why_the_other_ends() {
    let pair = pair(&Bird, |_| {});
    let router = &pair.router;
    pair.node.within(|| {
        block_on(async {
            let mut speaker =
                speak(target(ROUTER), parameters(), hosts("198.51.100.1", 1), false).await;
            speaker.until_up().await;
            speaker.handle.stop(Stop::Shutdown("node goes".to_owned())).await.unwrap();
            router.until("the end", || (!router.session().is_up).then_some(()));
            assert!(router.log().contains("node goes"), "{}", router.log());
            assert_eq!(router.counts(), Some([0, 0]));
            speaker.handle.start(None).await.unwrap();
            speaker.until_up().await;
            router.says("disable node \"the router goes\"");
            let begun = Instant::now();
            let ended = loop {
                match speaker.news.recv().await.unwrap().event {
                    Event::Down(Cause::Received(why)) => break why,
                    other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
                }
            };
            assert!(ended.to_string().contains("the router goes"), "{ended}");
        });
    });
}
