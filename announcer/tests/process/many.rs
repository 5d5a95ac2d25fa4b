//! Services with all the ports that are guarded: what that costs, and who is told that he has too many.

use std::fs;

use serde_json::{Value, json};

use crate::field::{CLOSES, pause, replace};
use crate::life::get;
use crate::namespace::{attempt, run};
use crate::{ADDRESS, Peer, Scene, Test};

/// The ports of a Service, and the Services of a namespace that have room.
const WIDE: u32 = 1024;
const FIT: u32 = 32;

pub(crate) fn tests() -> Vec<(String, Test)> {
    tests![the_ports_of_a_namespace_are_guarded_up_to_a_bound_for_little_memory]
}

impl Scene {
    /// The most that this process has had in memory, and what it has, in MiB.
    fn memory(pid: u32) -> [u64; 2] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        ["VmHWM:", "VmRSS:"].map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
        })
    }

    fn wide(&self, namespace: &str, number: u32) {
        let ports: Vec<Value> =
            (1..=WIDE).map(|port| json!({ "name": format!("p{port}"), "port": port })).collect();
        let [high, low] = [number / 200, number % 200 + 2];
        self.api.put(
            &format!("/api/v1/namespaces/{namespace}/services/wide-{number}"),
            json!({
                "metadata": {
                    "uid": format!("{namespace}-{number}"),
                    "creationTimestamp": format!("2026-01-01T{:02}:{:02}:00Z", number / 60, number % 60),
                    "annotations": {
                        "kube-vip.io/loadbalancerIPs": format!("198.51.{high}.{low}"),
                        "kube-vip.io/allow-reconcile-without-endpoints": "true",
                    },
                },
                "spec": { "type": "LoadBalancer", "ports": ports },
            }),
        );
    }

    /// Of which Services the Events say this.
    async fn told(&self, reason: &str) -> Vec<String> {
        let page = get(&self.server.to_string(), "/apis/events.k8s.io/v1/events").await;
        let events: Value = serde_json::from_str(page.split_once("\r\n\r\n").unwrap().1).unwrap();
        let events = events["items"].as_array().into_iter().flatten();
        let of_reason = events.filter(|event| event["reason"] == reason);
        of_reason.map(|event| event["regarding"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// How many ports the guard has, as `nft` tells it.
fn guarded() -> usize {
    let listed = attempt("nft -j list set inet berth services4").stdout;
    String::from_utf8_lossy(&listed).matches("concat").count()
}

async fn the_ports_of_a_namespace_are_guarded_up_to_a_bound_for_little_memory() {
    let scene = Scene::new().await;
    // Before the table was read and written without it, `nft` took 55 MiB.
    let path =
        replace(&scene, "nft", &format!("ulimit -d 8192\nexec {} \"$@\"", run("which nft").trim()));
    let announcer = scene.settings(&[("PATH", &path), CLOSES]);
    let mut peer = Peer::new().await;
    peer.until(true, "one port", &scene.log).await;
    let few = Scene::memory(announcer.id().unwrap());
    for number in 0..=FIT {
        scene.wide("wide", number);
    }
    let all = (FIT * WIDE + 1) as usize;
    scene
        .until("all are guarded", async || {
            pause(500).await;
            guarded() == all
        })
        .await;
    let youngest = format!("wide-{FIT}");
    scene
        .until("who has too many is told", async || {
            scene.told("TooManyGuarded").await == [&*youngest]
        })
        .await;
    let many = Scene::memory(announcer.id().unwrap());
    // All of it is written anew.
    run("nft flush chain inet berth misled");
    let is_whole = || run("nft list chain inet berth misled").contains("drop");
    scene.until("the chain is back", async || is_whole() && guarded() == all).await;
    pause(1000).await;
    let anew = Scene::memory(announcer.id().unwrap());
    println!(
        "most MiB, and now: with one port {few:?}, with {all} {many:?}, written anew {anew:?}"
    );
    peer.until(true, "the others are served", &scene.log).await;
    let served =
        run("nft list set inet berth services4").contains(&format!("{ADDRESS} . tcp . 80"));
    assert!(served, "and guarded");
    scene.leaves(announcer).await;
}
