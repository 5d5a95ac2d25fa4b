use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use berth_announcer::advertise::arp_nd::schedule::{Frame, Schedule};
use berth_announcer::advertise::arp_nd::socket::Sockets;
use berth_announcer::kernel::Kernel;
use berth_announcer::vip::Link;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::namespace::{alone, kernel, run};

/// Starts `tcpdump` on the other end of the cable and waits until it listens.
pub(crate) async fn tcpdump(
    filter: &str,
) -> (tokio::process::Child, BufReader<tokio::process::ChildStdout>) {
    let mut child = Command::new("tcpdump")
        .args(["-i", "peer0", "--immediate-mode", "-lnvve", filter])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("tcpdump");
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let listens = async {
        while !said.next_line().await.unwrap().expect("it listens").contains("listening on") {}
    };
    tokio::time::timeout(Duration::from_secs(10), listens).await.expect("tcpdump listens in time");
    let heard = BufReader::new(child.stdout.take().unwrap());
    (child, heard)
}

/// Waits until everything that is expected has been heard, in this order.
pub(crate) async fn hears(heard: &mut BufReader<tokio::process::ChildStdout>, expected: &[&str]) {
    let mut all = String::new();
    let (mut missing, mut from) = (expected.iter().peekable(), 0);
    while let Some(wanted) = missing.peek() {
        if let Some(found) = all[from..].find(**wanted) {
            from += found + wanted.len();
            missing.next();
            continue;
        }
        let read = tokio::time::timeout(Duration::from_secs(10), heard.read_line(&mut all)).await;
        assert!(matches!(read, Ok(Ok(1..))), "no {wanted:?} after {from} in:\n{all}");
    }
}

async fn link() -> Link {
    let host = kernel().look().await.unwrap();
    let eth0 = &host.interfaces["eth0"];
    Link { index: eth0.index, mac: eth0.mac.unwrap() }
}

fn first_frames(address: &str, link: Link) -> Vec<Frame> {
    let now = Instant::now();
    let mut schedule = Schedule::new(Duration::from_secs(60));
    let held: BTreeMap<IpAddr, Link> = [(address.parse().unwrap(), link)].into();
    schedule.keep(&held, now);
    schedule.poll(now).unwrap()
}

#[test]
fn the_lan_hears_gratuitous_arp_in_both_forms() {
    alone(async || {
        let (_tcpdump, mut heard) = tcpdump("arp").await;
        let (link, mut sockets) = (link().await, Sockets::default());
        for frame in first_frames("192.0.2.1", link) {
            sockets.send(&frame).unwrap();
        }
        let everyone = "> ff:ff:ff:ff:ff:ff";
        let forms = ["Request who-has 192.0.2.1 tell 192.0.2.1", "Reply 192.0.2.1 is-at"];
        hears(&mut heard, &[everyone, forms[0], everyone, forms[1]]).await;
    });
}

#[test]
fn the_lan_hears_an_unsolicited_advertisement_that_overrides() {
    alone(async || {
        let (_tcpdump, mut heard) = tcpdump("icmp6 and ip6[40] = 136").await;
        let (link, mut sockets) = (link().await, Sockets::default());
        for frame in first_frames("2001:db8::1", link) {
            sockets.send(&frame).unwrap();
        }
        let expected = [
            "> 33:33:00:00:00:01",
            "hlim 255",
            "2001:db8::1 > ff02::1: [icmp6 sum ok] ICMP6, neighbor advertisement",
            "tgt is 2001:db8::1, Flags [override]",
            "destination link-address option (2)",
        ];
        hears(&mut heard, &expected).await;
    });
}

#[test]
fn an_interface_that_was_down_is_used_again() {
    alone(async || {
        let (link, mut sockets) = (link().await, Sockets::default());
        let frames = first_frames("192.0.2.1", link);
        sockets.send(&frames[0]).unwrap();
        run("ip link set eth0 down");
        sockets.send(&frames[0]).expect_err("the network is down");
        run("ip link set eth0 up");
        sockets.send(&frames[0]).unwrap();
    });
}
