//! The control plane's own address: by its Lease, and by the health of the API server of this node.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
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
        what_another_said_before_counts_for_nothing_and_what_it_says_again_does,
        who_is_ready_says_so_again_when_another_is_not_any_more,
        a_stopped_owner_of_it_is_silent_before_its_lease_is_over,
        a_lease_that_is_given_away_by_hand_is_left_alone_and_taken_when_it_is_over,
        what_is_no_view_ends_nobody_and_a_view_does,
        a_word_of_a_node_that_takes_nothing_moves_it_once,
        beside_an_announcer_of_services_it_has_a_name_of_its_own,
        an_address_of_the_node_itself_ends_it_with_the_reason,
        all_that_keeps_it_from_the_node_is_named_before_anything_is_touched,
        an_interface_that_comes_later_is_waited_for,
        which_node_has_it_stands_in_its_lease_and_others_say_so,
        an_api_server_at_loopback_alone_is_told_and_takes_nothing,
        it_is_never_before_an_address_of_the_node_that_comes_back,
        an_address_of_another_node_ends_it_with_the_reason_unless_that_may_have_it,
        a_name_is_waited_for_kept_through_failures_and_followed,
    ]
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/plndr-cp-lock";

const VIEW: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/berth-membership-cp";

/// What a node says of its API server.
fn word_of(node: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/berth-control-plane-{node}")
}

/// How long others have to find out the same of their API servers, where nothing else is set.
const SETTLING: Duration = Duration::from_secs(5);

/// `vip_leaseduration` of the scene.
const DURATION: Duration = Duration::from_secs(3);

/// For so long a name has to say that it has another address.
const AGREED: Duration = Duration::from_secs(60);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

impl Scene {
    pub(crate) fn control_plane(&self) -> Command {
        self.control_plane_by(real())
    }

    fn control_plane_by(&self, program: PathBuf) -> Command {
        let mut command = self.command(program, Election::Lease, None, &self.log);
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

    pub(crate) fn holder(&self) -> Option<String> {
        let lease = self.api.get(LEASE)?;
        lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    /// Has a node say whether its API server is healthy, for the so manieth time.
    pub(crate) fn says(&self, node: &str, is_healthy: bool, time: u32) {
        let word = if is_healthy { "healthy" } else { "unhealthy" };
        let object = json!({
            "metadata": {
                "labels": { "berth.dev/control-plane": "", "berth.dev/host": "" },
                "annotations": {
                    "berth.dev/api-server": word, "berth.dev/control-plane-addresses": ADDRESS,
                },
            },
            "spec": { "renewTime": format!("2026-01-01T00:00:{time:02}.000000Z") },
        });
        self.api.put(&word_of(node), object);
    }

    /// When this node has said last what it says of its API server.
    fn said(&self) -> Option<String> {
        let lease = self.api.get(&word_of("node-a"))?;
        lease["spec"]["renewTime"].as_str().map(str::to_owned)
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
pub(crate) async fn says(word: &str) {
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
    says("/readyz: 500 [-]etcd failed: reason withheld; it is waited for").await;
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
    says("/readyz: 500").await;
    let begun = Instant::now();
    while begun.elapsed() < DURATION + SECOND {
        peer.goes_on("all are slow: who has it keeps it").await;
    }
    assert_eq!(scene.holder().as_deref(), Some("node-a"));
    scene.leaves(announcer).await;
}

async fn what_another_said_before_counts_for_nothing_and_what_it_says_again_does() {
    let scene = Scene::new().await;
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    scene.says("node-b", true, 1);
    says("HTTP/1.1 200").await;
    scene.api.is_ready(false);
    says("/readyz: 500").await;
    let begun = Instant::now();
    while begun.elapsed() < SETTLING + DURATION + SECOND {
        peer.goes_on("node-b may hang since then").await;
    }
    assert_eq!(scene.holder().as_deref(), Some("node-a"));
    scene.says("node-b", true, 2);
    peer.until(false, "node-b is healthy still", &scene.log).await;
    assert_eq!(scene.holder(), None);
    scene.leaves(announcer).await;
}

async fn who_is_ready_says_so_again_when_another_is_not_any_more() {
    let scene = Scene::new().await;
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    scene.says("node-b", true, 1);
    tokio::time::sleep(2 * SECOND).await;
    let before = scene.said().expect("a word");
    scene.says("node-b", false, 2);
    let asked = Instant::now();
    while scene.said().as_ref() == Some(&before) {
        assert!(
            asked.elapsed() < SETTLING,
            "it is silent until it renews, which it does each 20 s"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("said again after {:.1?}", asked.elapsed());
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

async fn a_lease_that_is_given_away_by_hand_is_left_alone_and_taken_when_it_is_over() {
    let scene = Scene::new().await;
    let mut announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    scene.held_by(Some("nobody-of-this-name"), 9);
    peer.until(false, "the Lease is another's", &scene.log).await;
    assert_eq!(scene.holder().as_deref(), Some("nobody-of-this-name"));
    assert!(announcer.try_wait().unwrap().is_none(), "it goes on");
    peer.until(true, "nobody renews it", &scene.log).await;
    assert_eq!(scene.holder().as_deref(), Some("node-a"));
    scene.leaves(announcer).await;
}

async fn what_is_no_view_ends_nobody_and_a_view_does() {
    let scene = Scene::new().await;
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    let view = |text: &str| {
        let annotations = json!({ "berth.dev/view": text });
        scene.api.put(VIEW, json!({ "metadata": { "annotations": annotations } }));
    };
    view("x");
    says("annotation berth.dev/view holds no view").await;
    peer.goes_on("nobody can read that").await;
    scene.leaves(announcer).await;
    let mut announcer = scene.owner();
    peer.until(true, "it serves beside that", &scene.log).await;
    view(r#"{"epoch":1,"voters":["1"]}"#);
    let ended = tokio::time::timeout(SOON, announcer.wait()).await;
    ended.expect("members decide now").unwrap();
    assert!(!peer.is_answered().await, "it is handed over");
    assert_eq!(scene.holder(), None);
}

async fn a_word_of_a_node_that_takes_nothing_moves_it_once() {
    let scene = Scene::new().await;
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    scene.api.is_ready(false);
    says("/readyz: 500").await;
    tokio::time::sleep(SETTLING + SECOND).await;
    scene.says("node-b", true, 1);
    peer.until(false, "node-b says that it is healthy", &scene.log).await;
    peer.until(true, "and does not take it", &scene.log).await;
    for time in 2..5 {
        scene.says("node-b", true, time);
        tokio::time::sleep(SECOND).await;
        peer.goes_on("it says the same and takes nothing").await;
    }
    assert_eq!(scene.holder().as_deref(), Some("node-a"));
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

/// How an announcer ended, and what it said.
async fn ended(scene: &Scene, mut command: Command) -> String {
    let status = command.spawn().unwrap().wait().await.unwrap();
    let log = std::fs::read_to_string(&scene.log).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

async fn all_that_keeps_it_from_the_node_is_named_before_anything_is_touched() {
    let scene = Scene::new().await;
    run("ip addr del 2001:db8::250/64 dev eth0");
    let mut command = scene.control_plane();
    let addresses = "192.0.2.250,api.berth.invalid,2001:db8::100";
    command.env("address", addresses).env("vip_interface", "eth9");
    let log = ended(&scene, command).await;
    for told in [
        "4 problems in all",
        "address=api.berth.invalid: ",
        "vip_interface=\"eth9\": this node has no such interface; accepted is one of eth0",
        "address=192.0.2.250: it is an address of this node itself, on interface eth0",
        "address=2001:db8::100: this node has no IPv6 address of its own",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
    assert_eq!(scene.said(), None);
    assert_eq!(run("nft list ruleset"), "");
}

async fn an_interface_that_comes_later_is_waited_for() {
    let scene = Scene::new().await;
    let mut command = scene.control_plane();
    command.env("vip_interface", "late0");
    let announcer = command.spawn().expect("an announcer");
    let mut peer = Peer::new().await;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(scene.said(), None);
    run("ip link property add dev eth0 altname late0");
    peer.until(true, "its interface is there", &scene.log).await;
    scene.leaves(announcer).await;
}

const ANNOUNCED: &str = "/metadata/annotations/berth.dev~1control-plane-announced";

/// Waits until this is so.
async fn until(why: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < SOON, "{why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn which_node_has_it_stands_in_its_lease_and_others_say_so() {
    let scene = Scene::new().await;
    let says = |node: &str| scene.api.get(&word_of(node))?.pointer(ANNOUNCED).cloned();
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "its API server is ready", &scene.log).await;
    until("its word", async || says("node-a") == Some(ADDRESS.into())).await;
    let said_on = async |node: &str| {
        let dump = get("127.0.0.1:2115", "/debug/vips").await;
        dump.replace(' ', "").contains(&format!("\"said_to_be_on\":\"{node}\""))
    };
    until("it says so itself", async || said_on("node-a").await).await;
    scene.leaves(announcer).await;
    assert_eq!(says("node-a"), None, "its last word");
    scene.held_by(Some("node-b"), 1);
    scene.says("node-b", true, 2);
    let mut word = scene.api.get(&word_of("node-b")).unwrap();
    word["metadata"]["annotations"]["berth.dev/control-plane-announced"] = ADDRESS.into();
    scene.api.put(&word_of("node-b"), word);
    let mut command = scene.control_plane();
    let announcer = command.spawn().expect("an announcer");
    until("another one has it", async || said_on("node-b").await).await;
    let log = std::fs::read_to_string(&scene.log).unwrap();
    assert!(log.contains("the control plane's address is on node-b"), "{log}");
    scene.leaves(announcer).await;
}

async fn an_api_server_at_loopback_alone_is_told_and_takes_nothing() {
    let scene = Scene::new().await;
    scene.api.listen(std::net::TcpListener::bind("127.0.0.1:6443").unwrap());
    let mut command = scene.control_plane();
    command.env("kubernetes_addr", "http://127.0.0.1:6443");
    let announcer = command.spawn().expect("an announcer");
    says(&format!("nobody listens at {ADDRESS}:6443 on this node")).await;
    tokio::time::sleep(DURATION + SECOND).await;
    assert_eq!(scene.holder(), None);
    assert!(!run("ip -4 -o address show dev eth0").contains(ADDRESS));
    scene.leaves(announcer).await;
}

async fn it_is_never_before_an_address_of_the_node_that_comes_back() {
    let scene = Scene::new().await;
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "its API server is ready", &scene.log).await;
    let route = run("ip -4 route show default");
    run("ip -4 address flush dev eth0");
    says("no IPv4 address of its own any more").await;
    assert!(!run("ip -4 -o address show dev eth0").contains(ADDRESS));
    run("ip address add 192.0.2.250/24 dev eth0");
    if !route.trim().is_empty() {
        run(&format!("ip -4 route replace {}", route.trim()));
    }
    peer.until(true, "the node has its own address again", &scene.log).await;
    let all = run("ip -4 -o address show dev eth0");
    let first = all.lines().next().unwrap_or_default();
    assert!(first.contains("192.0.2.250") && all.contains(ADDRESS), "{all}");
    scene.leaves(announcer).await;
}

async fn an_address_of_another_node_ends_it_with_the_reason_unless_that_may_have_it() {
    let scene = Scene::new().await;
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": ADDRESS }] });
    scene.api.put("/api/v1/nodes/node-c", json!({ "status": status }));
    let log = ended(&scene, scene.control_plane()).await;
    let told = format!("address={ADDRESS}: it is an address of the node node-c");
    assert!(log.contains(&told), "{log}");
    assert_eq!(scene.holder(), None);
    assert!(run("ip -4 -o address show dev eth0").contains("192.0.2.250"));
    // Its kubelet took it for its own while it had it.
    scene.says("node-c", false, 1);
    let announcer = scene.owner();
    let mut peer = Peer::new().await;
    peer.until(true, "node-c may have it, and has it no more", &scene.log).await;
    let numbers = get("127.0.0.1:2122", "/metrics").await;
    assert!(numbers.contains("berth_announcer_api_server_healthy 1"), "{numbers}");
    scene.leaves(announcer).await;
    // It is in use: no kubelet says from now on who may start.
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": ADDRESS }] });
    scene.api.put("/api/v1/nodes/node-w", json!({ "status": status }));
    let announcer = scene.owner();
    peer.until(true, "node-w says that it has it", &scene.log).await;
    says("the Node node-w says that it has it").await;
    scene.leaves(announcer).await;
}

/// The program where this file is `/etc/hosts`.
fn with_hosts(scene: &Scene) -> (PathBuf, PathBuf) {
    let (program, hosts) = (scene.folder.join("program"), scene.folder.join("hosts"));
    std::fs::write(&hosts, "").unwrap();
    let inside =
        format!("mount --bind {} /etc/hosts && exec {} \"$@\"", hosts.display(), real().display());
    let script = format!("#!/bin/sh\nexec unshare --mount sh -c '{inside}' sh \"$@\"\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program, hosts)
}

async fn a_name_is_waited_for_kept_through_failures_and_followed() {
    const NAME: &str = "api.berth.test";
    let scene = Scene::new().await;
    let (program, hosts) = with_hosts(&scene);
    let mut command = scene.control_plane_by(program);
    let mut announcer = command.env("address", NAME).spawn().expect("an announcer");
    let mut peer = Peer::new().await;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(scene.said(), None, "nobody says which address it is");
    signal_to(&announcer, Signal::SIGTERM);
    let status = tokio::time::timeout(2 * SECOND, announcer.wait()).await;
    let log = std::fs::read_to_string(&scene.log).unwrap();
    assert_eq!(status.expect("a wait ends when it is told to").unwrap().code(), Some(0), "{log}");
    assert!(log.contains("waited for, 12s at most: address=api.berth.test"), "{log}");
    let mut announcer = command.spawn().expect("an announcer");
    let say = |address: &str| std::fs::write(&hosts, format!("{address} {NAME}\n")).unwrap();
    say(ADDRESS);
    peer.until(true, "the name has an address", &scene.log).await;
    std::fs::write(&hosts, "").unwrap();
    says("control plane's name").await;
    let begun = Instant::now();
    while begun.elapsed() < 20 * SECOND {
        peer.goes_on("nobody says that it has another").await;
    }
    say("192.0.2.7");
    let begun = Instant::now();
    while begun.elapsed() < AGREED - 10 * SECOND {
        peer.goes_on("that has not been said for long").await;
    }
    let status = tokio::time::timeout(SOON, announcer.wait()).await.expect("it ends").unwrap();
    let log = std::fs::read_to_string(&scene.log).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("api.berth.test has the address 192.0.2.7 now"), "{log}");
    assert!(address("eth0", ADDRESS).is_none(), "{log}");
    assert_eq!(scene.holder(), None, "{log}");
}
