//! From kube-vip to berth-announcer under traffic, as docs/migrating-from-kube-vip.md says. kube-vip's half is done by hand, as
//! 1.2.3 does it: its Lease, the status that it writes, and addresses that nobody has tagged, which stay when it is killed.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Net, mac, node_host};
use berth_e2e::lab::Lab;
use berth_e2e::membership;
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::wire::{Watch, disputed};
use berth_e2e::world::{ADDRESSES, HOST, POOL, World, env, eventually, repository};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::scene::CLIENT;

pub(crate) const NODES: usize = 3;
pub(crate) const VIPS: [&str; 2] = ["10.0.64.3", "fd00:10::4003"];
pub(crate) const LEASE: &str = "plndr-svcs-lock";
pub(crate) const EVERY: Duration = Duration::from_millis(20);

/// Members look at the Lease of another election, and have to agree on a view and on an owner once it is free.
pub(crate) const TAKEN: Duration = Duration::from_secs(5);

pub(crate) fn vips() -> impl Iterator<Item = IpAddr> {
    VIPS.into_iter().map(|vip| vip.parse().expect("an address"))
}

/// What the page does on a node about what is left there.
fn on_a_node() -> Result<Vec<String>> {
    let page = fs::read_to_string(repository().join("docs/migrating-from-kube-vip.md"))?;
    ensure!(page.contains("sh docs/moving/left-on-node.sh 192.0.2.10 2001:db8::10"), "no command");
    let script = fs::read_to_string(repository().join("docs/moving/left-on-node.sh"))?;
    let words = ["sh", "-c", &script, "left-on-node.sh"].map(ToOwned::to_owned);
    Ok(words.into_iter().chain(VIPS.map(ToOwned::to_owned)).collect())
}

/// Does it, and with the node's own address beside them, which somebody may have asked for.
fn clear(world: &World, node: usize) -> Result<()> {
    let node = world.lab.node(node);
    let shown = "ip -o -4 address show dev eth0 | awk '{print $4}' | grep -v /32";
    let before = node.exec(["sh", "-c", shown])?;
    let own = before.split('/').next().context("no address of its own")?.to_owned();
    let words = on_a_node()?;
    node.exec([&words[..], &[own]].concat())?;
    for what in ["0.0.0.0/0", "any", ""] {
        let output = node.place()?.output([&words[..], &[what.to_owned()]].concat())?;
        ensure!(!output.status.success(), "{what} is no address");
    }
    ensure!(node.exec(["sh", "-c", shown])? == before, "its own address");
    Ok(())
}

/// As kube-vip binds it: alone, for ever, and in the name of nobody.
pub(crate) fn bind(world: &World, node: usize, interface: &str) -> Result<()> {
    for vip in vips() {
        let single = format!("{vip}/{}", if vip.is_ipv4() { 32 } else { 128 });
        let mut command = vec!["ip", "address", "replace", &single, "dev", interface];
        command.extend(vip.is_ipv6().then_some("nodad"));
        world.lab.node(node).exec(command)?;
    }
    Ok(())
}

/// The addresses without our tag, which are preferred, on all interfaces of a node.
fn left(world: &World, node: usize) -> Result<usize> {
    let shown: Value =
        serde_json::from_str(&world.lab.node(node).exec(["ip", "-j", "address", "show"])?)?;
    let all = shown.as_array().into_iter().flatten();
    let addresses = all.flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    let is_left = |address: &&Value| {
        let is_vip = address["local"].as_str().is_some_and(|own| VIPS.contains(&own));
        is_vip && address["deprecated"] != true
    };
    Ok(addresses.filter(is_left).count())
}

/// kube-vip announces the Service `web` on node 0, and berth-ccm has taken over what it shows.
async fn by_kube_vip() -> Result<World> {
    let mut world = World::without_berth(NODES + 1, env([("berth_claims", "required")])).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    world.deploy("default", "hello", 2)?;
    let first = world.lab.node(0).name().to_owned();
    let web = json!({
        "metadata": {
            "name": "web", "labels": { "implementation": "kube-vip" },
            "annotations": { ADDRESSES: VIPS.join(","), HOST: first },
        },
        "spec": {
            "type": "LoadBalancer", "selector": { "app": "hello" },
            "ports": [{ "port": 80, "targetPort": 8080 }], "ipFamilyPolicy": "RequireDualStack",
        },
    });
    world.create(web).await?;
    let now = jiff::Timestamp::now();
    let lease = json!({
        "metadata": { "name": LEASE },
        "spec": {
            "holderIdentity": first, "leaseDurationSeconds": 3600, "leaseTransitions": 0,
            "acquireTime": format!("{now:.6}"), "renewTime": format!("{now:.6}"),
        },
    });
    leases(&world).create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    bind(&world, 0, "eth0")?;
    let shown: Vec<_> = VIPS.iter().map(|vip| json!({ "ip": vip })).collect();
    let merge = Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": shown } } }));
    world.services("default").patch_status("web", &PatchParams::default(), &merge).await?;
    world.start_ccm().await?;
    eventually("claims of what the status shows", 20, || async {
        Ok((world.claims().await?.len() == VIPS.len()).then_some(()))
    })
    .await?;
    for vip in vips() {
        eventually("an answer", 20, || async { Ok(world.curl(vip).ok()) }).await?;
    }
    Ok(world)
}

pub(crate) fn leases(world: &World) -> Api<Lease> {
    Api::namespaced(world.client.clone(), "kube-system")
}

/// Every member waits for the Lease by which others decide.
pub(crate) async fn all_wait(world: &World) -> Result<()> {
    let waits = ["curl", "--silent", "http://127.0.0.1:2112/readyz"];
    eventually("each waits", 30, || async {
        let mut nodes = (0..NODES).map(|node| world.lab.node(node).exec(waits).unwrap_or_default());
        Ok(nodes.all(|said| said.contains("membership: ")).then_some(()))
    })
    .await
    .with_context(|| world.logs())
}

/// One node has both addresses for Berth, no other one has any, and the Service names it.
pub(crate) async fn one_has_them(world: &World) -> Result<usize> {
    let tags = |node: &berth_e2e::node::Node| -> Result<usize> {
        let shown = node.exec(["ip", "-o", "address", "show", "dev", "eth0"])?;
        let is_ours = |line: &&str| {
            line.contains("deprecated") && VIPS.iter().any(|vip| line.contains(&format!(" {vip}/")))
        };
        Ok(shown.lines().filter(is_ours).count())
    };
    // While voters are found more than one node may have them, and those that lose let them go. Of one that has not lost
    // yet kube-vip's status may say the same.
    eventually("one node has both for Berth, and the Service names it", 30, || async {
        let host = world.index_of(&world.host("web").await?)?;
        let all = (0..NODES).map(|node| tags(world.lab.node(node)));
        let all = all.collect::<Result<Vec<_>>>()?;
        let alone = (0..NODES).all(|node| all[node] == if node == host { VIPS.len() } else { 0 });
        Ok((alone && membership::won(world, host)? >= VIPS.len() as u64).then_some(host))
    })
    .await
    .with_context(|| world.logs())
}

/// That nobody but this node spoke for an address since then, and no two in the same moment.
pub(crate) fn one_speaks(world: &World, wire: &Watch, node: usize, since: Instant) -> Result<()> {
    let record = wire.so_far();
    for vip in vips() {
        let said = record.since(vip, since);
        let own = mac(Net::Lan, node_host(node));
        let others = said.iter().any(|said| said.mac != own);
        ensure!(!others && !disputed(&said), "{:?}\n{}", record.spans(vip), world.logs());
    }
    Ok(())
}

/// Clients that ask at each address.
pub(crate) fn probes(lab: &Lab) -> Result<Vec<Probe>> {
    let outside = lab.outside();
    let probe =
        |vip| Probe::start(&outside, SocketAddr::new(vip, 80), EVERY, Manner::NewConnections);
    vips().map(probe).collect()
}

/// What clients saw of each address: no answer took longer than `limit`.
pub(crate) fn judged(what: &str, probes: Vec<Probe>, limit: Duration) -> Result<()> {
    for (vip, probe) in vips().zip(probes) {
        let report = probe.finish()?;
        let (ok, lost, gap) = (report.ok, report.failed.len(), report.longest_gap);
        println!("{what}, {vip}: {ok} answered, {lost} lost, longest gap {gap:.0?}");
        report.answered_within(limit).with_context(|| format!("{what}: {report:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kube_vip_announced_is_answered_by_berth_with_what_it_left_on_every_node() -> Result<()>
{
    let mut world = by_kube_vip().await?;
    let (wire, before, began) = (world.lab.watch()?, probes(&world.lab)?, Instant::now());

    // Beside it: members wait, and say nothing.
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    all_wait(&world).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    one_speaks(&world, &wire, 0, began)?;
    judged("beside kube-vip", before, CLIENT).with_context(|| world.logs())?;

    // On another node it crashed before, and what it had bound there is silent.
    bind(&world, 1, "eth0")?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = Instant::now();
    for _ in 0..20 {
        world.lab.outside().exec(["ip", "neigh", "flush", "all"])?;
        for vip in vips() {
            world.curl(vip).with_context(|| world.logs())?;
        }
    }
    one_speaks(&world, &wire, 0, since)?;

    // It is killed: what it had bound stays, and on another node it stayed on `lo`.
    let (during, killed) = (probes(&world.lab)?, Instant::now());
    bind(&world, 2, "lo")?;
    let free = json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 } });
    leases(&world).patch(LEASE, &PatchParams::default(), &Patch::Merge(free)).await?;
    let owner = one_has_them(&world).await?;
    println!("node {owner} has them {:.1?} after kube-vip's end", killed.elapsed());
    let named = world.lab.node(owner).name().to_owned();
    tokio::time::sleep(Duration::from_secs(1)).await;
    judged("from kube-vip's end", during, TAKEN).with_context(|| world.logs())?;
    let (after, since) = (probes(&world.lab)?, Instant::now());

    // What is left is cleared away, node by node.
    for node in 0..NODES {
        let there = left(&world, node)?;
        println!("node {node}: {there} left");
        // What it was to have itself it made its own; what is on `lo` nobody does.
        ensure!(
            if node == 2 { there == VIPS.len() } else { node != owner || there == 0 },
            "{there}"
        );
        clear(&world, node)?;
        ensure!(left(&world, node)? == 0, "it is cleared away");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    one_speaks(&world, &wire, owner, since)?;
    judged("while it is cleared away", after, CLIENT).with_context(|| world.logs())?;
    ensure!(world.holders(VIPS[0].parse()?)? == [named], "one has it");
    world.lab.down()
}
