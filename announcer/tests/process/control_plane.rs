//! The control plane's own address: by its Lease, and by the health of the API server of this node.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::life::get;
use crate::namespace::{address, run};
use crate::{ADDRESS, Election, Peer, SOON, Scene, Test, real, signal_to};

pub(crate) fn tests() -> Vec<(String, Test)> {
    tests![
        the_control_planes_address_is_taken_once_the_own_api_server_is_ready_and_given_back,
        who_comes_later_takes_nothing_and_then_what_is_free,
        an_owner_whose_api_server_is_not_ready_keeps_it_while_no_other_says_that_it_is,
        a_stopped_owner_of_it_is_silent_before_its_lease_is_over,
        beside_an_announcer_of_services_it_has_a_name_of_its_own,
        an_address_of_the_node_itself_ends_it_with_the_reason,
    ]
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/plndr-cp-lock";

/// `vip_leaseduration` of the scene.
const DURATION: Duration = Duration::from_secs(3);

const SECOND: Duration = Duration::from_secs(1);

impl Scene {
    fn control_plane(&self) -> Command {
        let mut command = self.command(real(), Election::Lease, None, &self.log);
        command
            .env_remove("berth_election")
            .env("cp_enable", "true")
            .env("address", ADDRESS)
            .env("prometheus_server", "127.0.0.1:2122")
            .env("health_check_port", "2115");
        command
    }

    fn owner(&self) -> Child {
        self.control_plane().spawn().expect("an announcer")
    }

    fn holder(&self) -> Option<String> {
        let lease = self.api.get(LEASE)?;
        lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    fn held_by(&self, holder: Option<&str>, renewed: u32) {
        let spec = json!({
            "holderIdentity": holder, "leaseDurationSeconds": DURATION.as_secs(),
            "leaseTransitions": renewed,
        });
        self.api.put(LEASE, json!({ "spec": spec }));
    }
}

impl Peer {
    /// It is answered; what is silent is so for longer than a busy machine takes for one answer.
    async fn goes_on(&mut self, why: &str) {
        for _ in 0..3 {
            if self.is_answered().await {
                return;
            }
        }
        panic!("nobody answers: {why}");
    }
}

/// Waits until its readiness says this.
async fn says(word: &str) {
    let start = Instant::now();
    loop {
        let answer = get("127.0.0.1:2115", "/readyz").await;
        if answer.contains(word) {
            return;
        }
        assert!(start.elapsed() < SOON, "no {word} in:\n{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn the_control_planes_address_is_taken_once_the_own_api_server_is_ready_and_given_back() {
    let scene = Scene::new().await;
    scene.api.is_ready(false);
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    says("not ready: /readyz: 500 [-]etcd failed").await;
    tokio::time::sleep(DURATION + SECOND).await;
    assert_eq!(scene.holder(), None, "a node that joins takes nothing");
    assert!(!peer.is_answered().await);
    scene.api.is_ready(true);
    peer.until(true, "it serves", &scene.log).await;
    assert_eq!(scene.holder().as_deref(), Some("node-a"));
    says("HTTP/1.1 200").await;
    let bound = address("eth0", ADDRESS).expect("it is bound");
    assert_eq!(bound["prefixlen"], 32, "{bound}");
    scene.leaves(announcer).await;
    assert_eq!(scene.holder(), None);
}

async fn who_comes_later_takes_nothing_and_then_what_is_free() {
    let scene = Scene::new().await;
    scene.held_by(Some("node-b"), 0);
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    for renewal in 1..5 {
        scene.held_by(Some("node-b"), renewal);
        let begun = Instant::now();
        while begun.elapsed() < SECOND {
            assert!(!peer.is_answered().await, "node-b has it");
        }
    }
    scene.held_by(None, 5);
    let free = Instant::now();
    peer.until(true, "it is free", &scene.log).await;
    println!("taken {:.1?} after it was given back", free.elapsed());
    assert_eq!(scene.holder().as_deref(), Some("node-a"));
    scene.leaves(announcer).await;
}

async fn an_owner_whose_api_server_is_not_ready_keeps_it_while_no_other_says_that_it_is() {
    let scene = Scene::new().await;
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    scene.api.is_ready(false);
    says("not ready: /readyz: 500").await;
    let begun = Instant::now();
    while begun.elapsed() < DURATION + SECOND {
        peer.goes_on("all are slow: who has it keeps it").await;
    }
    assert_eq!(scene.holder().as_deref(), Some("node-a"));
    scene.leaves(announcer).await;
}

async fn a_stopped_owner_of_it_is_silent_before_its_lease_is_over() {
    let scene = Scene::new().await;
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    signal_to(&announcer, Signal::SIGSTOP);
    let stopped = Instant::now();
    peer.until(false, "it is silenced", &scene.log).await;
    let silent = stopped.elapsed();
    assert!(silent < DURATION + Duration::from_millis(500), "{silent:.1?}");
    signal_to(&announcer, Signal::SIGCONT);
    peer.until(true, "it serves again", &scene.log).await;
    scene.leaves(announcer).await;
}

async fn beside_an_announcer_of_services_it_has_a_name_of_its_own() {
    let scene = Scene::new().await;
    let owner = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    let log = scene.folder.join("services");
    let services = scene.start_with_log(real(), Election::Membership, None, &log);
    let start = Instant::now();
    while !get("127.0.0.1:2114", "/readyz").await.starts_with("HTTP/1.1 200") {
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(start.elapsed() < SOON, "{}", log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let tables = run("nft list tables");
    assert!(
        tables.contains("berth-announcer/lock") && tables.contains("berth-announcer-cp/lock"),
        "{tables}"
    );
    peer.goes_on("one goes by members, and the other by its Lease").await;
    drop(services);
    assert_eq!(scene.holder().as_deref(), Some("node-a"));
    drop(owner);
}

async fn an_address_of_the_node_itself_ends_it_with_the_reason() {
    let scene = Scene::new().await;
    let mut command = scene.control_plane();
    command.env("address", "192.0.2.250");
    let status = command.spawn().unwrap().wait().await.unwrap();
    let log = std::fs::read_to_string(&scene.log).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains(
            "address=192.0.2.250: it is an address of this node itself, on interface eth0"
        ),
        "{log}"
    );
    assert!(run("ip -4 -o address show dev eth0").contains("192.0.2.250"), "it stays");
}
