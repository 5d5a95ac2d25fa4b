//! What somebody takes away from an owner or puts beside it, and what an earlier life has left. Judged by `ip`, `nft` and
//! `tc` on the node, and by every frame on the LAN that claims an address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::fault::Leftovers;
use berth_e2e::node::Node;
use berth_e2e::pauses;

use berth_e2e::world::{addresses_of, env, eventually};

use crate::scene::{Held, PATIENCE, Scene};

/// What is taken away is back within this time.
const MENDED: Duration = Duration::from_secs(2);

fn single(address: &IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// Waits until it is as it should be, which it has to be in time.
async fn repaired(what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    eventually(what, 10, || async { Ok(is()?.then_some(())) }).await?;
    pauses::within(&format!("{what}: repaired in"), start.elapsed(), MENDED, start)
}

/// Rules that are not ours, as their own tools show them: byte by byte what they were.
fn foreign(node: &Node) -> Result<[String; 4]> {
    Ok([
        node.exec(["nft", "list", "table", "inet", "foreign"])?,
        node.exec(["nft", "list", "table", "ip", "foreign"])?,
        node.exec(["iptables-legacy", "-t", "filter", "-S"])?,
        node.exec(["tc", "filter", "show", "dev", "eth0", "ingress"])?,
    ])
}

const FOREIGN: &str = "
table inet foreign {
  set s { type ipv4_addr; elements = { 192.0.2.9 }; }
  chain c {
    type filter hook input priority 150;
    ip saddr @s drop
  }
}
table ip foreign {
  chain berth {
    type filter hook prerouting priority -150;
    ip saddr 192.0.2.9 drop
  }
}
";

fn fence_of(node: &Node) -> Result<String> {
    node.exec(["tc", "filter", "show", "dev", "eth0", "egress"])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_from_an_owner_comes_back_and_foreign_rules_stay_as_they_are() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let (held, start) = (scene.held()?, Instant::now());
    let nodes: Vec<&Node> = (0..3).map(|node| scene.world.lab.node(node)).collect();
    for node in &nodes {
        node.place()?.exec_with_input(["nft", "-f", "-"], FOREIGN)?;
        // Two backends on one host: the legacy tables beside those of nft that kube-proxy writes.
        node.exec(["iptables-legacy", "-A", "INPUT", "-s", "192.0.2.9", "-j", "DROP"])?;
    }
    let all_foreign = || nodes.iter().map(|node| foreign(node)).collect::<Result<Vec<_>>>();
    let before = all_foreign()?;
    // Another one, where the machine stood still for so long that a lease ran out.
    let owner = || anyhow::Ok(nodes[scene.kept_by(&held)?]);
    let bound = || {
        let has = addresses_of(owner()?)?;
        Ok(scene.addresses.iter().all(|address| has.contains(address)))
    };
    let table = || {
        let shown = owner()?.place()?.output(["nft", "list", "table", "inet", "berth"])?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        Ok(shown.contains("@services4")
            && scene.addresses.iter().all(|a| shown.contains(&a.to_string())))
    };
    let fenced = || Ok(fence_of(owner()?)?.matches("berth-fence").count() == 1);
    ensure!(bound()? && table()? && fenced()?, "{}", scene.world.logs());

    for address in &scene.addresses {
        take_away(&scene, &held, &["ip", "address", "del", &single(address), "dev", "eth0"])?;
    }
    repaired("addresses deleted by hand", bound).await?;
    take_away(&scene, &held, &["nft", "delete", "table", "inet", "berth"])?;
    repaired("our table deleted", table).await?;
    take_away(&scene, &held, &["tc", "filter", "del", "dev", "eth0", "egress"])?;
    repaired("the fence's filter deleted", fenced).await?;
    take_away(&scene, &held, &["tc", "qdisc", "del", "dev", "eth0", "clsact"])?;
    repaired("the fence's qdisc deleted", fenced).await?;
    ensure!(all_foreign()? == before, "foreign rules changed: {before:?} {:?}", all_foreign()?);

    // This one takes the foreign tables of nft, too.
    take_away(&scene, &held, &["nft", "flush", "ruleset"])?;
    repaired("nft flush ruleset", table).await?;
    for (node, before) in nodes.iter().zip(&before) {
        ensure!(foreign_legacy(node)? == before[2], "legacy rules changed");
    }
    ensure!(bound()? && fenced()?, "{}", scene.world.logs());
    tokio::time::sleep(PATIENCE).await;
    scene.one_at_a_time(&scene.wire.so_far(), start)?;
    scene.moved_times(0, start)?;
    scene.down()
}

/// Does to the owner what only the owner has; to the next one, where it is another by then.
fn take_away(scene: &Scene, held: &Held, command: &[&str]) -> Result<()> {
    let owner = scene.kept_by(held)?;
    match scene.world.lab.node(owner).exec(command.iter().copied()) {
        Ok(_) => Ok(()),
        Err(error) => {
            let next = scene.kept_by(held)?;
            ensure!(next != owner, "{error:#}\n{}", scene.world.logs());
            scene.world.lab.node(next).exec(command.iter().copied()).map(drop)
        }
    }
}

fn foreign_legacy(node: &Node) -> Result<String> {
    node.exec(["iptables-legacy", "-t", "filter", "-S"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_an_address_on_another_node_or_interface_answers_nobody() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let (held, start) = (scene.held()?, Instant::now());
    let other = (0..3).find(|node| *node != held.owner).unwrap_or_default();
    let lab = &scene.world.lab;
    let has = |node: usize, interface: &str, address: &IpAddr| {
        let argv = ["ip", "-oneline", "address", "show", "dev", interface];
        anyhow::Ok(lab.node(node).exec(argv)?.contains(&format!(" {address}/")))
    };
    let copy = |address: &IpAddr, device: &str| {
        // `replace`: it has it already, where a lease of the owner ran out in a pause of the machine.
        let argv = ["ip", "address", "replace", &single(address), "dev", device, "nodad"];
        lab.node(other).exec(argv).with_context(|| scene.world.logs())
    };
    for address in &scene.addresses {
        // Somebody else's, on the very LAN and on an interface that had no address before.
        copy(address, "eth0")?;
    }
    lab.node(other).exec(["ip", "link", "add", "x0", "link", "eth0", "type", "macvlan"])?;
    lab.node(other).exec(["ip", "link", "set", "x0", "up"])?;
    for address in &scene.addresses {
        copy(address, "x0")?;
    }
    let fenced = || {
        let shown = lab.node(other).exec(["tc", "filter", "show", "dev", "x0", "egress"])?;
        Ok(shown.contains("berth-fence"))
    };
    repaired("a foreign copy on an interface of its own", fenced).await?;
    let quiet_since = Instant::now();
    tokio::time::sleep(PATIENCE).await;
    let record = scene.wire.so_far();
    scene.one_at_a_time(&record, quiet_since)?;
    for address in &scene.addresses {
        let machines: BTreeSet<_> =
            record.since(*address, quiet_since).iter().map(|said| said.mac).collect();
        let moves = record.moves(*address, quiet_since).len();
        ensure!(
            (1..=1 + moves).contains(&machines.len()),
            "{address}: answered for by {machines:x?}\n{}",
            scene.world.logs()
        );
        // The interface is the LAN's, where a node that owns it has its own.
        let at_rest = scene.kept_by(&held)? == held.owner;
        let stays = has(other, "x0", address)? && (!at_rest || has(other, "eth0", address)?);
        ensure!(stays, "it was not ours to remove");
    }
    scene.moved_times(0, start)?;
    scene.kept_by(&held)?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_with_what_it_had_answers_for_none_of_it() -> Result<()> {
    let mut scene = Scene::up(3, env([])).await?;
    let (owner, start) = (scene.owner()?, Instant::now());
    scene.world.lab.crash(owner)?;
    let held = scene.replaced("crashed", owner, start).await?;
    // The kernel is there, with the addresses, the table and the fence of a process that is not.
    scene.world.lab.plug(owner, Net::Lan)?;
    let back = Instant::now();
    tokio::time::sleep(PATIENCE).await;
    scene.world.lab.reboot(owner, Leftovers::Keep)?;
    let node = scene.world.lab.node(owner);
    let left = addresses_of(node)?;
    ensure!(scene.addresses.iter().all(|a| left.contains(a)), "nothing was left: {left:?}");
    ensure!(fence_of(node)?.contains("berth-fence"), "no fence was left");
    ensure!(node.exec(["nft", "list", "tables"])?.contains("inet berth"), "no table was left");
    scene.world.start_announcer(owner).await?;
    scene.settled().await?;
    scene.bound_only_on(&held).await?;
    let node = scene.world.lab.node(owner);
    let fences = fence_of(node)?.matches("berth-fence").count();
    ensure!(fences == 1, "{fences} fences\n{}", fence_of(node)?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.kept_by(&held)?;
    scene.one_at_a_time(&scene.wire.so_far(), start)?;
    scene.moved_times(0, back)?;
    scene.down()
}
