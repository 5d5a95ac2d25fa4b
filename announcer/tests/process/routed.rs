//! The control plane's address by BGP: no Lease decides, and where its own API server is not ready a node asks those of others.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::control_plane::{SECOND, says};
use crate::namespace::address;
use crate::{ADDRESS, SOON, Scene, Test};

pub(crate) fn tests() -> Vec<(String, Test)> {
    tests![
        by_bgp_it_is_there_while_the_own_api_server_is_ready_or_no_other_one_is,
        beside_services_by_bgp_each_goes_by_its_own,
    ]
}

/// Waits until the address is bound where routers lead it, or is not bound any more.
async fn is_on_lo(bound: bool, what: &str, log: &Path) {
    has_on_lo(ADDRESS, bound, what, log).await;
}

/// The same of another address.
async fn has_on_lo(own: &str, bound: bool, what: &str, log: &Path) {
    let start = Instant::now();
    while address("lo", own).is_some() != bound {
        let log = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(start.elapsed() < SOON, "{what}: never bound {bound}:\n{}", log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The API server of another node at this address, which is ready or not.
async fn another(at: &str) -> Arc<AtomicBool> {
    let listener = TcpListener::bind(at).await.expect("another address of loopback");
    let is_ready = Arc::new(AtomicBool::new(true));
    let told = is_ready.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let code = if told.load(Ordering::Relaxed) { 200 } else { 500 };
            let _ = stream.read(&mut [0; 4096]).await;
            let answer =
                format!("HTTP/1.1 {code} -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    is_ready
}

/// An announcer of the control plane that speaks to a router, where none is.
fn by_bgp(scene: &Scene) -> Command {
    let mut command = scene.control_plane();
    command
        .env("bgp_enable", "true")
        .env("vip_arp", "false")
        .env("bgp_as", "65000")
        .env("bgp_peers", "192.0.2.9:65001");
    command
}

async fn by_bgp_it_is_there_while_the_own_api_server_is_ready_or_no_other_one_is() {
    let scene = Scene::new().await;
    let theirs = another(&format!("127.0.0.2:{}", scene.server.port())).await;
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": "127.0.0.2" }] });
    scene.api.put("/api/v1/nodes/node-b", json!({ "status": status }));
    scene.says("node-b", true, 1);
    scene.api.is_ready(false);
    let mut command = by_bgp(&scene);
    let mut announcer = command.spawn().expect("an announcer");
    says("/readyz: 500").await;
    tokio::time::sleep(2 * SECOND).await;
    assert!(address("lo", ADDRESS).is_none(), "a node that joins has nothing");
    scene.api.is_ready(true);
    is_on_lo(true, "its API server is ready", &scene.log).await;
    assert!(address("eth0", ADDRESS).is_none());
    assert_eq!(scene.holder(), None, "no Lease decides");

    // All are slow.
    scene.says("node-b", true, 2);
    theirs.store(false, Ordering::Relaxed);
    scene.api.is_ready(false);
    says("/readyz: 500").await;
    let begun = Instant::now();
    while begun.elapsed() < 3 * SECOND {
        assert!(address("lo", ADDRESS).is_some(), "no other one is known to be ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    theirs.store(true, Ordering::Relaxed);
    is_on_lo(false, "another one is ready", &scene.log).await;
    theirs.store(false, Ordering::Relaxed);
    is_on_lo(true, "no other one is any more", &scene.log).await;
    theirs.store(true, Ordering::Relaxed);
    is_on_lo(false, "it is again", &scene.log).await;
    scene.api.is_ready(true);
    is_on_lo(true, "its own is again", &scene.log).await;

    // What it leaves where it is killed the next one goes on with.
    announcer.kill().await.expect("it is killed");
    theirs.store(false, Ordering::Relaxed);
    scene.api.is_ready(false);
    let announcer = command.spawn().expect("an announcer");
    says("/readyz: 500").await;
    let begun = Instant::now();
    while begun.elapsed() < 3 * SECOND {
        assert!(address("lo", ADDRESS).is_some(), "routers may lead it here still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(announcer);
}

async fn beside_services_by_bgp_each_goes_by_its_own() {
    const OWN: &str = "192.0.2.100";
    let scene = Scene::new().await;
    let _theirs = another(&format!("127.0.0.2:{}", scene.server.port())).await;
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": "127.0.0.2" }] });
    scene.api.put("/api/v1/nodes/node-b", json!({ "status": status }));
    scene.says("node-b", true, 1);
    let mut command = by_bgp(&scene);
    command.env("svc_enable", "true").env("address", OWN);
    let announcer = command.spawn().expect("an announcer");
    has_on_lo(OWN, true, "its API server is ready", &scene.log).await;
    is_on_lo(true, "the Service has an endpoint", &scene.log).await;
    assert_eq!(scene.holder(), None, "no Lease decides");
    scene.says("node-b", true, 2);
    scene.api.is_ready(false);
    has_on_lo(OWN, false, "another one is ready", &scene.log).await;
    assert!(address("lo", ADDRESS).is_some(), "kube-proxy leads on");
    scene.leaves(announcer).await;
    assert!(address("lo", ADDRESS).is_none());
}
