//! An owner by Lease, and the fence behind it.

use std::time::{Duration, Instant};

use berth_announcer::kernel::{Binding, Kernel, Lifetime};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::process::Child;

use crate::life::get;
use crate::namespace::{address, attempt, kernel, run};
use crate::{ADDRESS, Election, Peer, SOON, Scene, Test, real, signal_to};

pub(crate) fn tests() -> Vec<(String, Test)> {
    tests![
        a_stopped_owner_by_lease_is_silenced_and_goes_on_as_loser,
        with_the_weaker_fence_a_stopped_owner_by_lease_is_silenced_too,
        without_a_fence_a_stopped_owner_by_lease_goes_on_answering,
        a_killed_owner_by_lease_leaves_a_fence_that_its_next_life_takes_over,
        who_goes_by_the_lease_for_want_of_a_key_is_fenced_too,
        a_fence_that_is_taken_away_by_lease_is_put_back,
    ]
}

/// How long others wait for a Lease that nobody renews: `vip_leaseduration` of the scene.
const LEASE: Duration = Duration::from_secs(3);

/// How long an answer is waited for, and a busy machine besides.
const MOMENT: Duration = Duration::from_millis(500);

/// The address is bound for ever: its lifetime in the kernel silences nobody.
async fn bind_for_ever() {
    let mut kernel = kernel();
    let index = kernel.look().await.unwrap().interfaces["eth0"].index;
    let binding = Binding { index, address: ADDRESS.parse().unwrap() };
    kernel.bind(binding, Lifetime::Forever).await.unwrap();
}

fn filters() -> usize {
    run("tc filter show dev eth0 egress").matches("berth-fence").count()
}

impl Scene {
    fn by_lease(&self, fence: &str) -> Child {
        let mut command = self.command(real(), Election::Lease, None, &self.log);
        command.env("berth_fence", fence).spawn().expect("an announcer")
    }

    /// Another node renews the Lease, or gives it back.
    fn hold(&self, holder: Option<&str>, renewed: u32) {
        let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/plndr-svcs-lock";
        let spec = json!({
            "holderIdentity": holder, "leaseDurationSeconds": LEASE.as_secs(),
            "leaseTransitions": renewed,
        });
        self.api.put(path, json!({ "spec": spec }));
    }
}

async fn a_stopped_owner_by_lease_is_silenced_and_goes_on_as_loser() {
    silenced("bpf").await;
}

async fn with_the_weaker_fence_a_stopped_owner_by_lease_is_silenced_too() {
    silenced("nft-timeout").await;
}

async fn silenced(fence: &str) {
    let scene = Scene::new().await;
    let announcer = scene.by_lease(fence);
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    let (begun, kind) = (Instant::now(), format!("berth_announcer_fence{{kind=\"{fence}\"}} 1"));
    while !get("127.0.0.1:2112", "/metrics").await.contains(&kind) {
        assert!(begun.elapsed() < SOON, "no {fence} fence");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal_to(&announcer, Signal::SIGSTOP);
    let stopped = Instant::now();
    bind_for_ever().await;
    peer.until(false, "it is silenced", &scene.log).await;
    let silent = stopped.elapsed();
    assert!(silent < LEASE + MOMENT, "silent after {silent:.1?}");
    assert!(address("eth0", ADDRESS).is_some(), "it is bound all the same");
    for second in 0..6 {
        scene.hold(Some("node-b"), second);
        if second == 2 {
            signal_to(&announcer, Signal::SIGCONT);
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            assert!(!peer.is_answered().await, "second {second}: another node has the Lease");
        }
    }
    assert!(address("eth0", ADDRESS).is_none(), "it has found out");
    scene.hold(None, 6);
    peer.until(true, "it serves again", &scene.log).await;
    scene.leaves(announcer).await;
    assert_eq!(filters(), 0);
    println!("stopped by Lease, {fence}: silent after {silent:.1?}");
}

/// What the tests above look at is seen where nothing silences it.
async fn without_a_fence_a_stopped_owner_by_lease_goes_on_answering() {
    let scene = Scene::new().await;
    let announcer = scene.by_lease("unfenced");
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    signal_to(&announcer, Signal::SIGSTOP);
    bind_for_ever().await;
    tokio::time::sleep(LEASE + MOMENT).await;
    assert!(peer.is_answered().await, "its Lease is over");
    signal_to(&announcer, Signal::SIGCONT);
    scene.leaves(announcer).await;
}

async fn a_killed_owner_by_lease_leaves_a_fence_that_its_next_life_takes_over() {
    let scene = Scene::new().await;
    let mut announcer = scene.start(real(), Election::Lease, None);
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    announcer.kill().await.unwrap();
    bind_for_ever().await;
    peer.until(false, "it is silenced", &scene.log).await;
    let next = scene.start(real(), Election::Lease, None);
    peer.until(true, "the next life serves", &scene.log).await;
    assert_eq!(filters(), 1);
    scene.leaves(next).await;
    assert_eq!(filters(), 0);
}

async fn who_goes_by_the_lease_for_want_of_a_key_is_fenced_too() {
    let scene = Scene::new().await;
    let mut command = scene.command(real(), Election::Lease, None, &scene.log);
    // Where there is neither a Secret nor a view.
    command.env_remove("berth_election").env("cp_namespace", "elsewhere");
    let announcer = command.spawn().expect("an announcer");
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    assert_eq!(filters(), 1);
    signal_to(&announcer, Signal::SIGSTOP);
    bind_for_ever().await;
    peer.until(false, "it is silenced", &scene.log).await;
    signal_to(&announcer, Signal::SIGCONT);
    peer.until(true, "it serves again", &scene.log).await;
    scene.leaves(announcer).await;
    assert_eq!(filters(), 0);
}

async fn a_fence_that_is_taken_away_by_lease_is_put_back() {
    let scene = Scene::new().await;
    let announcer = scene.by_lease("bpf");
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    run("tc qdisc del dev eth0 clsact");
    let begun = Instant::now();
    while attempt("tc filter show dev eth0 egress").stdout.is_empty() {
        assert!(begun.elapsed() < SOON, "it is not put back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.elapsed() < MOMENT, "{:?}", begun.elapsed());
    assert!(peer.is_answered().await);
    scene.leaves(announcer).await;
}
