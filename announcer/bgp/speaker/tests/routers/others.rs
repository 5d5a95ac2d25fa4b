//! One peer that sends whatever it likes: the others go on as if it were not there.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use berth_bgp::{Event, Parameters, State, Status};
use lab_routers::Bird;

use crate::speaker::{Pair, ROUTER, block_on, hosts, pair, parameters, speak, target};

/// A message of this kind.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// Of AS 65001, hold time 90, with 4-octet AS numbers.
fn open() -> Vec<u8> {
    message(1, &[4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 9, 8, 2, 6, 65, 4, 0, 0, 0xfd, 0xe9])
}

/// A route of 10.0.0.0/24, as anybody might send it.
fn update() -> Vec<u8> {
    let attributes = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 192, 0, 2, 9];
    message(2, &[&[0, 0, 0, 20][..], &attributes, &[24, 10, 0, 0]].concat())
}

/// Takes what comes to a second address of the router's side, and lets `talk` do what it likes with each connection until
/// that ends. Nothing is there any more once the test is over: the thread goes with the process.
fn stranger(talk: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> &'static str {
    let listener = TcpListener::bind("127.0.0.1:1179").unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = talk(&mut stream.unwrap());
        }
    });
    "127.0.0.1:1179"
}

/// While a stranger does that, BIRD keeps its session, and learns each change. What became of the stranger's.
fn others_go_on(
    pair: &Pair,
    told: u32,
    talk: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static,
) -> (Status, bool) {
    pair.node.within(|| {
        block_on(async {
            let quick = Parameters { connect_retry: Duration::from_secs(1), ..parameters() };
            let odd = speak(target(stranger(talk)), quick, hosts("10.1.0.0", told), false).await;
            let mut speaker =
                speak(target(ROUTER), parameters(), hosts("10.0.0.0", 1), false).await;
            speaker.until_up().await;
            speaker.events();
            for count in 2..30 {
                speaker.handle.set_routes(hosts("10.0.0.0", count)).await.unwrap();
                let told = tokio::time::timeout(Duration::from_secs(2), speaker.handle.told());
                told.await.expect("each is told within two seconds").unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            pair.router.until_has([29, 0]);
            let events = speaker.events();
            assert!(!events.iter().any(|event| matches!(event, Event::Down(_))), "{events:?}");
            // Its own task answers, too.
            let status = odd.handle.status().await.unwrap();
            let all = tokio::time::timeout(Duration::from_millis(200), odd.handle.told()).await;
            (status, all.is_ok())
        })
    })
}

#[test]
fn garbage_of_one_peer_is_refused_and_the_others_go_on() {
    let pair = pair(&Bird, |_| {});
    let count = AtomicU64::new(1);
    let (status, _) = others_go_on(&pair, 50, move |stream| {
        // Another kind each time, from a sequence that is the same in each run.
        let mut state = count.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut garbage = vec![0; 1 << 16];
        for octet in &mut garbage {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *octet = state.to_be_bytes()[0];
        }
        stream.write_all(&garbage)
    });
    assert!(status.state != State::Established && status.last.is_some(), "{status:?}");
}

#[test]
fn a_flood_of_one_peer_is_read_in_turn_and_the_others_go_on() {
    let pair = pair(&Bird, |_| {});
    let (status, _) = others_go_on(&pair, 50, |stream| {
        stream.write_all(&[open(), message(4, &[])].concat())?;
        let flood = update().repeat(1000);
        loop {
            stream.write_all(&flood)?;
        }
    });
    assert_eq!(status.state, State::Established, "{status:?}");
}

#[test]
fn a_peer_that_reads_nothing_holds_nobody_up() {
    let pair = pair(&Bird, |_| {});
    for buffers in ["rmem", "wmem"] {
        let small = format!("net.ipv4.tcp_{buffers}=4096 16384 65536");
        let set = pair.node.within(|| Command::new("sysctl").args(["-qw", &small]).status());
        assert!(set.unwrap().success());
    }
    // More than fits into buffers of TCP that nobody empties.
    let (status, all) = others_go_on(&pair, 100_000, |stream| {
        stream.write_all(&[open(), message(4, &[])].concat())?;
        loop {
            thread::sleep(Duration::from_secs(30));
            stream.write_all(&message(4, &[]))?;
        }
    });
    assert!(status.state == State::Established && !all, "{status:?}");
}
