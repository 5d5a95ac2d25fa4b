//! What a running announcer shows of itself, and to a second one.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::namespace::{attempt, run};
use crate::{ADDRESS, Election, Peer, SOON, Scene, real, signal_to};

/// Asks for a page; gives the whole answer.
pub(crate) async fn get(server: &str, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(server).await else {
        return "nobody listens".to_owned();
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// The records of a dump; none if it is not one yet.
pub(crate) fn records(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// The record of the scene's one address.
fn record(text: &str) -> Value {
    let records: Vec<Value> =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut of_address = records.into_iter().filter(|record| record["address"] == ADDRESS);
    of_address.next().unwrap_or_else(|| panic!("no {ADDRESS} in {text}"))
}

/// What is known of each address is there for whoever is on the node, as a page and in the log.
pub(crate) async fn vips_are_dumped() {
    for election in [Election::Membership, Election::Lease] {
        let scene = Scene::new().await;
        let announcer = scene.start(real(), election, None);
        Peer::new().await.until(true, "it serves", &scene.log).await;
        let answer = get("127.0.0.1:2112", "/debug/vips").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let known = record(body);
        assert_eq!(known["claimants"][0], "service/shop/web", "{known}");
        assert_eq!(known["bound_on"], json!([known["interface"]]), "{known}");
        assert_eq!(known["ownership"], "owns", "{known}");
        let elsewhere = get("192.0.2.250:2114", "/debug/vips").await;
        assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
        assert!(get("127.0.0.1:2114", "/readyz").await.starts_with("HTTP/1.1 200"));

        signal_to(&announcer, Signal::SIGUSR1);
        let log = told(&scene.log, "SIGUSR1").await;
        let (_, text) = log.rsplit_once("vips=").unwrap();
        assert_eq!(record(text.trim())["ownership"], "owns", "{text}");
        scene.leaves(announcer).await;
    }
}

/// The line of the log that has this word.
async fn told(log: &Path, word: &str) -> String {
    let start = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap();
        if let Some(line) = text.lines().find(|line| line.contains(word)) {
            return line.to_owned();
        }
        assert!(start.elapsed() < SOON, "no {word} in:\n{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything of this network namespace that an announcer may change, but for clocks and counters.
fn network() -> String {
    let mut all = String::new();
    for command in
        ["ip addr", "ip route show table all", "ip rule", "tc filter show dev eth0 egress"]
    {
        let shown = String::from_utf8(attempt(command).stdout).unwrap();
        all.extend(
            shown.lines().filter(|line| !line.contains("valid_lft")).map(|l| format!("{l}\n")),
        );
    }
    all + &run("nft -s list ruleset")
}

/// A second one of the same name ends at once, names the first, and has touched nothing.
pub(crate) async fn a_second_is_refused() {
    let scene = Scene::new().await;
    let first = scene.start(real(), Election::Membership, None);
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    let before = network();
    let pid = first.id().unwrap();

    let log = scene.folder.join("second");
    let mut second = scene.start_with_log(real(), Election::Membership, None, &log);
    let status = tokio::time::timeout(SOON, second.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(1));
    let said = std::fs::read_to_string(&log).unwrap();
    let named = format!("`@berth-announcer` is taken by the process {pid}: berth-announcer ");
    assert!(said.contains(&named) && said.contains("instance svc"), "{said}");
    assert_eq!(network(), before);
    assert!(peer.is_answered().await, "the first goes on");
    scene.leaves(first).await;
}

/// Without the API server a member goes on. Its readiness names each watch after a while, its liveness none; when the
/// server is back, no change in the cluster is needed to be ready again.
pub(crate) async fn an_absent_api_is_named() {
    const LASTING: Duration = Duration::from_secs(90);
    let scene = Scene::new().await;
    let announcer = scene.start(real(), Election::Membership, None);
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    let port = scene.server.port();
    run("nft add table inet away");
    run("nft add chain inet away input { type filter hook input priority 0 ; }");
    run(&format!("nft add rule inet away input tcp dport {port} reject with tcp reset"));
    let away = Instant::now();
    let ready = async |wanted: &str| {
        loop {
            let answer = get("127.0.0.1:2112", "/readyz").await;
            assert!(get("127.0.0.1:2112", "/healthz").await.starts_with("HTTP/1.1 200"));
            if answer.starts_with(&format!("HTTP/1.1 {wanted}")) {
                return answer;
            }
            assert!(away.elapsed() < LASTING, "{answer}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let answer = ready("503").await;
    assert!(away.elapsed() > Duration::from_secs(50), "a restart of the server is no news");
    assert!(peer.is_answered().await, "it goes on");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let answer = [answer, get("127.0.0.1:2112", "/readyz").await].concat();
    for watch in ["services", "endpointslices", "leases", "nodes", "membership view"] {
        let line = format!("{watch} watch: nothing heard from the API server for 6");
        assert!(answer.contains(&line), "{line} is not in {answer}");
    }
    run("nft delete table inet away");
    ready("200").await;
    scene.leaves(announcer).await;
}
