//! kubeadm itself, kubelets and containers: a control plane comes, changes, and comes back from nothing at the address that
//! Berth's static pod keeps, which kubectl and kubeadm know alone. Judged by kubeadm, a client, the machines' interfaces, and
//! every frame on the LAN that claims the address.

#[path = "kubeadm/gaps.rs"]
mod gaps;
#[path = "kubeadm/keepalived.rs"]
mod keepalived;
#[path = "kubeadm/kube_vip.rs"]
mod kube_vip;
#[path = "kubeadm/scene.rs"]
mod scene;

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::fault::Leftovers;
use berth_e2e::wire::{Watch, disputed};
use gaps::Gaps;
use scene::{ADDRESS, ADDRESSES, PORT, Scene, Seen, mac_of};
use serde_json::Value;

/// Set to `1`: more than the first node and one that joins.
const LONG: &str = "BERTH_CONTROL_PLANE";

fn is_long() -> bool {
    std::env::var_os(LONG).is_some_and(|value| value == "1")
}

/// No node binds or claims the address before its own API server is ready.
fn in_order(seen: &Seen, i: usize, wire: &Watch, since: Instant) -> Result<()> {
    let ready = seen.ready.with_context(|| format!("machine {i} was never ready"))?;
    if let Some(bound) = seen.bound {
        is_after(ready, bound).with_context(|| format!("machine {i} had the address"))?;
    }
    let claimed = wire.heard(ADDRESS, since).into_iter().find(|said| said.mac == mac_of(i));
    claimed.map_or(Ok(()), |said| {
        is_after(ready, said.at).with_context(|| format!("machine {i} claimed the address"))
    })
}

/// Or as good as: it became ready between two looks.
fn is_after(ready: Instant, at: Instant) -> Result<()> {
    let early = ready.saturating_duration_since(at);
    ensure!(early < Duration::from_secs(1), "{early:.1?} before its API server was ready");
    Ok(())
}

/// What kubeadm has written is there, and nobody else has.
fn files_are_kubeadms(scene: &Scene, i: usize, is_first: bool) -> Result<()> {
    let folder = scene.machine(i).file("kubernetes")?;
    for name in ["admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"] {
        let file = folder.join(name);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        ensure!(text.contains("server: https://"), "{} of machine {i}: {text:?}", file.display());
    }
    let has_more = folder.join("super-admin.conf").exists();
    ensure!(has_more == is_first, "super-admin.conf of machine {i}: {has_more}");
    Ok(())
}

/// The address is in no Node's status, and on no machine before those that are its own.
fn is_no_nodes(scene: &Scene) -> Result<()> {
    for node in scene.lab.nodes() {
        let said = node.exec(["ip", "-json", "-4", "address", "show", "dev", "eth0"])?;
        let said: Value = serde_json::from_str(&said)?;
        let first = &said[0]["addr_info"][0]["local"];
        ensure!(*first == node.addresses().lan.v4.to_string(), "{}: {said}", node.name());
    }
    let list: Value = serde_json::from_str(&scene.kubectl(0, &["get", "nodes", "-o=json"])?)?;
    for node in list["items"].as_array().context("no items")? {
        let text = node["status"]["addresses"].to_string();
        ensure!(!ADDRESSES.split(',').any(|address| text.contains(address)), "{text}");
    }
    Ok(())
}

async fn joins(scene: &Scene, i: usize, wire: &Watch, members: &[usize]) -> Result<()> {
    let before = scene.owner(members, 10).await?;
    scene.place_pod(i)?;
    let begun = Instant::now();
    let seen = tokio::task::block_in_place(|| scene.join(i))?;
    in_order(&seen, i, wire, begun)?;
    let all = [members, &[i]].concat();
    scene.settled(&all, 60).await?;
    ensure!(scene.owner(&all, 10).await? == before, "to join moves the address");
    files_are_kubeadms(scene, i, false)?;
    scene.ready(&all, 120).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeadm_makes_renews_and_restarts_a_control_plane_at_our_address() -> Result<()> {
    let scene = Scene::up(if is_long() { 4 } else { 2 }, PORT).await?;
    let (wire, begun) = (scene.lab.watch()?, Instant::now());

    scene.place_pod(0)?;
    let seen = tokio::task::block_in_place(|| scene.init())?;
    in_order(&seen, 0, &wire, begun)?;
    scene.owner(&[0], 60).await?;
    files_are_kubeadms(&scene, 0, true)?;
    scene.settled(&[0], 60).await?;
    // kubeadm gives rights to admin.conf when the API server is there.
    let said = scene.machine(0).log_of("berth-control-plane")?;
    if said.contains("going by super-admin.conf until it may") {
        scene.says(0, "going by it from now on", 30).await?;
    }
    joins(&scene, 1, &wire, &[0]).await?;
    is_no_nodes(&scene)?;
    if is_long() {
        goes_on(&scene, &wire).await?;
    }
    let record = wire.finish()?;
    ensure!(!disputed(&record.since(ADDRESS, begun)), "two answer\n{}", scene.logs());
    scene.lab.down()
}

/// A third node, and a worker; one that has the address leaves and comes back, and is unplugged; power is lost with three nodes
/// and with two.
async fn goes_on(scene: &Scene, wire: &Watch) -> Result<()> {
    joins(scene, 2, wire, &[0, 1]).await?;
    tokio::task::block_in_place(|| scene.join_as_worker(WORKER))?;
    let all = [0, 1, 2];
    scene.ready(&with_worker(&all), 120).await?;

    let leaves = scene.owner(&all, 10).await?;
    let stay: Vec<usize> = all.into_iter().filter(|i| *i != leaves).collect();
    let client = Gaps::start(&scene.lab, SocketAddr::new(ADDRESS, PORT))?;
    tokio::task::block_in_place(|| scene.reset(leaves, stay[0]))?;
    scene.owner(&stay, 10).await?;
    scene.ready(&with_worker(&stay), 60).await?;
    println!("reset of the owner: away for {:.1?} at most", client.finish()?);
    let folder = scene.machine(leaves).file("kubernetes")?;
    for name in ["admin.conf", "super-admin.conf", "kubelet.conf"] {
        ensure!(!folder.join(name).exists(), "{name} is left on machine {leaves}");
    }
    joins(scene, leaves, wire, &stay).await?;
    scene.ready(&with_worker(&all), 60).await?;

    let unplugged = scene.owner(&all, 10).await?;
    let others: Vec<usize> = all.into_iter().filter(|i| *i != unplugged).collect();
    scene.lab.unplug(unplugged, Net::Lan)?;
    scene.owner(&others, 60).await.context("its cable is pulled")?;
    scene.lab.plug(unplugged, Net::Lan)?;
    scene.settled(&all, 120).await?;
    scene.ready(&with_worker(&all), 60).await?;
    is_no_nodes(scene)?;

    goes_out(scene, &all).await.context("power is lost with three nodes")?;
    tokio::task::block_in_place(|| scene.reset(2, 0))?;
    scene.ready(&with_worker(&[0, 1]), 60).await?;
    goes_out(scene, &[0, 1]).await.context("power is lost with two nodes")?;

    // Of two, one is off: etcd has no majority, and no API server writes. It comes back by itself with the other one.
    scene.lab.crash(1)?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    tokio::task::block_in_place(|| scene.lab.reboot(1, Leftovers::Flush))?;
    let begun = Instant::now();
    scene.owner(&[0, 1], 180).await?;
    println!("one of two was off: answered {:.1?} after it is back", begun.elapsed());
    scene.ready(&with_worker(&[0, 1]), 180).await
}

/// All of it at once, the worker as well.
async fn goes_out(scene: &Scene, members: &[usize]) -> Result<()> {
    let begun = Instant::now();
    tokio::task::block_in_place(|| scene.power_cycle(&with_worker(members)))?;
    scene.owner(members, 180).await?;
    println!("{} from nothing: answered after {:.1?}", members.len(), begun.elapsed());
    scene.ready(&with_worker(members), 180).await?;
    println!("{} from nothing: Ready after {:.1?}", members.len(), begun.elapsed());
    is_no_nodes(scene)
}

/// A machine that is no part of the control plane.
const WORKER: usize = 3;

fn with_worker(members: &[usize]) -> Vec<usize> {
    [members, &[WORKER]].concat()
}
