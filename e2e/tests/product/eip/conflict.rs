//! Another host on the LAN has an elastic IP before it is first used. Judged by every frame on the LAN that claims it, by
//! captures of what machines send, and by what both ends see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{client, mac_text};
use berth_e2e::guest::Guest;
use berth_e2e::pauses;
use berth_e2e::vm::{Eips, Vm, holds, install_kubevirt, reason};
use berth_e2e::world::{POOL, World, env, eventually};
use serde_json::{Value, json};

use super::streams::{Listener, connect, exchange};
use crate::conflict::{
    ASK, FIRST, SECOND, SOON, event, leave_there, settle_there, stranger, was_left_alone,
};

/// Announcers on two nodes, the CCM, and a machine `vm` on the first of them.
struct Scene {
    world: World,
    eips: Eips,
    vm: Vm,
    guest: Guest,
}

async fn up() -> Result<Scene> {
    let mut world = World::without_berth(3, env([])).await?;
    install_kubevirt(&world.lab)?;
    world.pools(json!({ "range-global": POOL })).await?;
    world.start_ccm().await?;
    for node in 0..2 {
        world.start_announcer(node).await?;
    }
    let node = world.lab.node(0);
    let pods = node.addresses();
    let v4 = Ipv4Addr::from(u32::from(pods.pods4.network()) + 200);
    let v6 = Ipv6Addr::from(u128::from(pods.pods6.network()) + 200);
    let own = [IpAddr::from(v4), IpAddr::from(v6)];
    let mut guest = Guest::new(&world.lab, "vm", own)?;
    guest.start(&world.lab, node.name())?;
    let vm = Vm::create(&world.client, "default", "vm").await?;
    vm.start(node.name(), &own).await?;
    let eips = Eips::of(&world.client, "default");
    Ok(Scene { world, eips, vm, guest })
}

impl Scene {
    /// Waits until the node says that it holds these addresses.
    async fn is_held(&self, node: usize, addresses: &[&str]) -> Result<Value> {
        let (node, wanted) = (self.world.lab.node(node).name(), json!(addresses));
        let is_held = |status: &Value| {
            status["eips"] == wanted && status["holder"]["node"] == node && holds(status, "Ready")
        };
        let held = self.eips.shows("web", &format!("{wanted} held by {node}"), is_held).await;
        held.with_context(|| self.world.logs())
    }

    /// The client and the machine reach each other, and each sees the machine under this address alone.
    fn is_reached_at(&self, eip: IpAddr, client: IpAddr) -> Result<()> {
        let outside = self.world.lab.outside();
        let listener = Listener::open(self.guest.place(), 8000)?;
        let mut stream = connect(&outside, SocketAddr::new(eip, 8000))?;
        exchange(&mut stream, &mut listener.accept()?.0)?;
        let listener = Listener::open(&outside, 8001)?;
        let mut stream = connect(self.guest.place(), SocketAddr::new(client, 8001))?;
        let (mut served, peer) = listener.accept()?;
        ensure!(peer.ip() == eip, "the machine is seen as {peer}");
        exchange(&mut stream, &mut served)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elastic_ip_that_another_host_has_is_exchanged_and_a_migration_is_not_held_up()
-> Result<()> {
    let scene = up().await?;
    let Scene { world, eips, vm, guest } = &scene;
    let taken: [IpAddr; 2] = [FIRST[0].parse()?, FIRST[1].parse()?];
    taken.iter().try_for_each(|address| settle_there(world, *address))?;
    let wire = world.lab.watch()?;
    let askers = taken.iter().map(|a| world.lab.ask(*a, ASK)).collect::<Result<Vec<_>>>()?;
    eips.create("web", json!({ "vmi": "vm", "families": ["IPv4", "IPv6"] })).await?;
    scene.is_held(0, &SECOND).await?;
    for address in FIRST {
        let stranger = mac_text(stranger());
        event(world, "web", "AddressConflict", &[address, &stranger, "eth0"]).await?;
        event(world, "web", "AddressSetAside", &[address, &stranger]).await?;
    }
    for (eip, client) in SECOND.into_iter().zip(client().both()) {
        scene.is_reached_at(eip.parse()?, client)?;
    }
    taken.iter().try_for_each(|address| was_left_alone(world, &wire, *address))?;
    // Nobody else is given it.
    world.expose("svc", json!({})).await?;
    let claims = || async { Ok(world.claims().await?.contains_key("10.0.64.3").then_some(())) };
    eventually("the third address is claimed", 10, claims).await?;
    ensure!(!world.claims().await?.contains_key(FIRST[0]));

    // What is in use is asked for by no node that comes to have it.
    let probes = world.lab.capture("probes", "arp and arp[14:4] = 0")?;
    for (from, to) in [(0, 1), (1, 0)] {
        let name = |node: usize| world.lab.node(node).name();
        vm.migrate(name(from), name(to), &guest.addresses()).await?;
        scene.is_held(to, &SECOND).await?;
    }
    let probes = probes.finish()?;
    ensure!(!probes.contains(&format!("who-has {}", SECOND[0])), "{probes}");
    askers.into_iter().try_for_each(|asker| asker.finish())?;
    scene.world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elastic_ip_that_was_asked_for_is_neither_answered_for_nor_translated_while_another_host_has_it()
-> Result<()> {
    let scene = up().await?;
    let Scene { world, eips, vm: _, guest } = &scene;
    let address: IpAddr = "10.0.64.9".parse()?;
    settle_there(world, address)?;
    let (wire, asker) = (world.lab.watch()?, world.lab.ask(address, ASK)?);
    let sent = world.lab.capture("sent", "tcp and src host 10.0.64.9")?;
    let asked_for = Instant::now();
    eips.create("web", json!({ "vmi": "vm", "eip": "10.0.64.9" })).await?;
    let conflict = json!([{ "eip": "10.0.64.9", "mac": mac_text(stranger()) }]);
    let status = eips
        .shows("web", "told by both", |status| {
            status["conflicts"] == conflict && reason(status, "Allocated") == "AddressConflict"
        })
        .await
        .with_context(|| world.logs())?;
    pauses::within("told after", asked_for.elapsed(), SOON, asked_for)?;
    for kind in ["Bound", "Announced"] {
        ensure!(reason(&status, kind) == "AddressConflict" && !holds(&status, kind), "{status:#}");
    }
    ensure!(status["holder"].is_null() && !holds(&status, "Ready"), "{status:#}");
    event(world, "web", "AddressConflict", &["10.0.64.9", &mac_text(stranger())]).await?;
    // Long enough to be asked for a second time, while the machine calls the client.
    let third_party = SocketAddr::new(client().both()[0], 8001);
    for _ in 0..7 {
        let call = || std::net::TcpStream::connect_timeout(&third_party, Duration::from_secs(1));
        let _ = guest.place().in_network(call)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let status = eips.status("web").await?;
    ensure!(
        status["eips"] == json!(["10.0.64.9"]) && status["conflicts"] == conflict,
        "{status:#}"
    );
    let sent = sent.finish()?;
    ensure!(sent.is_empty(), "in the name of another host: {sent}");
    let rules = world.lab.node(0).exec(["iptables-nft-save"])?;
    ensure!(!rules.contains("10.0.64.9"), "{rules}");
    was_left_alone(world, &wire, address)?;
    asker.finish()?;

    leave_there(world, address)?;
    let status = scene.is_held(0, &["10.0.64.9"]).await?;
    ensure!(status["conflicts"].is_null() && holds(&status, "Bound"), "{status:#}");
    eventually("no word of it any more", 10, || async {
        let status = eips.status("web").await?;
        Ok((reason(&status, "Allocated") == "AddressAllocated").then_some(()))
    })
    .await?;
    scene.is_reached_at(address, client().both()[0])?;
    wire.finish()?;
    scene.world.lab.down()
}
