//! Routers of more than one make in the lab: each leads to every node that serves, and spreads connections over them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::get::get;
use berth_e2e::lan_router::{LanRouter, called};
use berth_e2e::world::{World, eventually};
use lab_routers::{Bird, Frr, Program};
use serde_json::{Value, json};

use crate::bgp::{POOL, by_bgp};

mod chosen;

/// So many connections that none of three nodes is left out by chance but once in 10^10.
const CONNECTIONS: usize = 60;

/// Counts what begins a connection, by the address that it is for.
const COUNTS: &str = "table inet counts {
  set asked4 { type ipv4_addr; flags dynamic; counter; }
  set asked6 { type ipv6_addr; flags dynamic; counter; }
  chain begun {
    type filter hook prerouting priority raw; policy accept;
    iifname eth0 tcp dport 80 tcp flags & (syn | ack) == syn update @asked4 { ip daddr }
    iifname eth0 tcp dport 80 tcp flags & (syn | ack) == syn update @asked6 { ip6 daddr }
  }
}";

/// How many connections to an address have begun at each node since the last look.
fn asked(world: &World, address: IpAddr) -> Result<BTreeMap<String, u64>> {
    let set = if address.is_ipv4() { "asked4" } else { "asked6" };
    let mut asked = BTreeMap::new();
    for node in world.lab.nodes() {
        let said = node.exec(["nft", "-j", "list", "set", "inet", "counts", set])?;
        node.exec(["nft", "flush", "set", "inet", "counts", set])?;
        let said: Value = serde_json::from_str(&said)?;
        let sets = said["nftables"].as_array().into_iter().flatten();
        let elements = sets.filter_map(|entry| entry["set"]["elem"].as_array()).flatten();
        let ours = elements.filter(|entry| entry["elem"]["val"] == json!(address.to_string()));
        let packets = ours.filter_map(|entry| entry["elem"]["counter"]["packets"].as_u64());
        asked.insert(node.name().to_owned(), packets.sum());
    }
    Ok(asked)
}

/// Waits until the router has exactly these nodes as ways to each address, each by its own address of the LAN.
async fn leads_to(
    world: &World,
    lan: &LanRouter,
    addresses: &[IpAddr],
    nodes: &[usize],
) -> Result<()> {
    let expected = |address: &IpAddr| -> BTreeMap<String, IpAddr> {
        let of = |node: &usize| {
            let node = world.lab.node(*node);
            let own = node.addresses().lan;
            let own = if address.is_ipv4() { IpAddr::from(own.v4) } else { own.v6.into() };
            (called(node.name()), own)
        };
        nodes.iter().map(of).collect()
    };
    let known = || async {
        for address in addresses {
            if lan.paths(*address)? != expected(address) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    };
    let seen = || addresses.iter().map(|address| lan.paths(*address)).collect::<Vec<_>>();
    let found = eventually(&format!("ways to {nodes:?} and no other"), 20, known).await;
    found.with_context(|| format!("{:?}\n{}", seen(), lan.log()))
}

/// How many ways the kernel of the router's host has.
fn ways(world: &World, address: IpAddr) -> Result<usize> {
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    let address = address.to_string();
    let said = world.lab.router().exec(["ip", family, "-json", "route", "show", &address])?;
    let routes: Vec<Value> = serde_json::from_str(&said)?;
    Ok(routes.iter().map(|route| route["nexthops"].as_array().map_or(1, Vec::len)).sum())
}

async fn spreads(world: &World, program: &'static dyn Program, addresses: &[IpAddr]) -> Result<()> {
    let lan = LanRouter::start(&world.lab, program, 65000, |_| {})?;
    let client = world.lab.outside();
    leads_to(world, &lan, addresses, &[0, 1, 2]).await?;
    for address in addresses {
        eventually("three ways in the kernel", 10, || async {
            Ok((ways(world, *address)? == 3).then_some(()))
        })
        .await?;
        let ask =
            |_: usize| get(&client, SocketAddr::new(*address, 80), "/", Duration::from_secs(5));
        // What has come before is not of these.
        eventually("an answer", 10, || async { Ok(ask(0).ok()) }).await?;
        asked(world, *address)?;
        (0..CONNECTIONS).try_for_each(|number| ask(number).map(drop))?;
        let asked = asked(world, *address)?;
        let sum: u64 = asked.values().sum();
        println!("{}: {CONNECTIONS} connections to {address}: {asked:?}", program.name());
        ensure!(asked.values().all(|count| *count > 0), "{}: {asked:?}", program.name());
        ensure!(sum >= CONNECTIONS as u64, "{asked:?}");
    }
    lan.kill()
}

/// kube-vip#1519: since 1.0.3 one node alone announced, and the routers had nothing to spread over.
#[tokio::test(flavor = "multi_thread")]
async fn bird_and_frr_spread_connections_over_all_three_nodes() -> Result<()> {
    let peers = format!("{}:65001/mpbgp_nexthop=auto_sourceip", router().v4);
    let mut world = World::up(2, by_bgp(&peers)).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    // The pods are on the third.
    world.start_announcer(2).await?;
    world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    for node in world.lab.nodes() {
        node.place()?.exec_with_input(["nft", "-f", "-"], COUNTS)?;
    }
    // Addresses are shown once a router has been told.
    let first = LanRouter::start(&world.lab, &Bird, 65000, |_| {})?;
    let addresses = world.published("web", 2).await.with_context(|| first.log())?;
    first.kill()?;
    for program in [&Bird as &'static dyn Program, &Frr] {
        spreads(&world, program, &addresses).await.with_context(|| world.logs())?;
        // What BIRD, which is protocol 12, has given to the kernel stays there.
        for family in ["-4", "-6"] {
            world.lab.router().exec(["ip", family, "route", "flush", "proto", "12"])?;
        }
    }
    Ok(())
}
