//! Another host on the LAN has an address of a pool, before Berth uses it or after. Judged by every frame on the LAN that
//! claims an address, by the versions of the Service that a watch shows, and by the client's connections.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Mac, Net, ROUTER_HOST, mac, mac_text, node_host};
use berth_e2e::membership;
use berth_e2e::pauses;
use berth_e2e::wire::{Said, Sighting, Watch};
use berth_e2e::world::{ADDRESSES, World, annotated, by_lease, env, eventually, ingress};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

const CONFLICT: &str = "berth.dev/conflict";
const CONDITION: &str = "berth.dev/AddressConflict";

/// How often the client asks who has an address.
pub(crate) const ASK: Duration = Duration::from_millis(10);

/// The first addresses of the pool, and those after them.
pub(crate) const FIRST: [&str; 2] = ["10.0.64.1", "fd00:10::4001"];
pub(crate) const SECOND: [&str; 2] = ["10.0.64.2", "fd00:10::4002"];

/// What a Service is told at the latest (fault 16).
pub(crate) const SOON: Duration = Duration::from_secs(1);

fn addresses(texts: [&str; 2]) -> Result<Vec<IpAddr>> {
    texts.iter().map(|text| Ok(text.parse()?)).collect()
}

/// The router of the lab is the host that nobody has told the cluster about.
pub(crate) fn stranger() -> Mac {
    mac(Net::Lan, ROUTER_HOST)
}

pub(crate) fn settle_there(world: &World, address: IpAddr) -> Result<()> {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let text = format!("{address}/{length}");
    // Without detection: it would hear that an owner of Berth has it, and give way.
    let extra = if address.is_ipv4() { &[][..] } else { &["nodad"] };
    let add = ["ip", "address", "add", &text, "dev", "eth0"];
    world.lab.router().exec(add.iter().chain(extra))?;
    Ok(())
}

pub(crate) fn leave_there(world: &World, address: IpAddr) -> Result<()> {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let text = format!("{address}/{length}");
    world.lab.router().exec(["ip", "address", "delete", &text, "dev", "eth0"])?;
    Ok(())
}

/// Every version of a Service that a watch has shown, and when.
struct Versions(Arc<Mutex<Vec<(Instant, Service)>>>);

impl Versions {
    async fn of(world: &World, name: &str) -> Result<Self> {
        let parameters = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut stream = world.services("default").watch(&parameters, "0").await?.boxed();
        let seen: Arc<Mutex<Vec<(Instant, Service)>>> = Arc::default();
        let into = seen.clone();
        tokio::spawn(async move {
            while let Some(Ok(event)) = stream.next().await {
                if let WatchEvent::Added(service) | WatchEvent::Modified(service) = event {
                    into.lock().unwrap_or_else(|e| e.into_inner()).push((Instant::now(), service));
                }
            }
        });
        Ok(Self(seen))
    }

    /// The first version that passes, and when it was shown.
    fn first(&self, passes: impl Fn(&Service) -> bool) -> Option<(Instant, Service)> {
        let seen = self.0.lock().unwrap_or_else(|e| e.into_inner());
        seen.iter().find(|(_, service)| passes(service)).cloned()
    }
}

/// The message of the condition, while it holds.
fn condition(service: &Service) -> Option<String> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    let ours = conditions.iter().find(|shown| shown.type_ == CONDITION)?;
    (ours.status == "True" && ours.reason == "AddressConflict").then(|| ours.message.clone())
}

/// Waits for an Event about an object of namespace `default` with this reason, and these words in its note.
pub(crate) async fn event(world: &World, name: &str, reason: &str, words: &[&str]) -> Result<()> {
    let api: Api<Event> = Api::namespaced(world.client.clone(), "default");
    eventually(&format!("an Event {reason} about {name}"), 5, || async {
        let found = api.list(&ListParams::default()).await?.into_iter().any(|event| {
            let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
            let note = event.note.as_deref().unwrap_or_default();
            about == Some(name)
                && event.reason.as_deref() == Some(reason)
                && words.iter().all(|word| note.contains(word))
        });
        Ok(found.then_some(()))
    })
    .await
}

/// What nodes of Berth said about an address.
fn said_by_nodes(wire: &Watch, address: IpAddr, nodes: usize) -> Vec<Sighting> {
    let macs: Vec<Mac> = (0..nodes).map(|node| mac(Net::Lan, node_host(node))).collect();
    let record = wire.so_far().0.into_iter();
    record.filter(|s| s.address == address && macs.contains(&s.mac)).collect()
}

/// That no node had an address or spoke for it, while somebody asked for it.
pub(crate) fn was_left_alone(world: &World, wire: &Watch, address: IpAddr) -> Result<()> {
    ensure!(world.holders(address)?.is_empty(), "{address} is bound\n{}", world.logs());
    let ours = said_by_nodes(wire, address, 3);
    ensure!(ours.is_empty(), "claimed {address}: {ours:?}\n{}", world.logs());
    let theirs = wire.so_far().0.iter().filter(|s| s.address == address).count();
    ensure!(theirs > 10, "the other host was not asked: {theirs} answers");
    Ok(())
}

async fn is_told_and_gets_the_next(world: &World) -> Result<()> {
    let (taken, next) = (addresses(FIRST)?, addresses(SECOND)?);
    taken.iter().try_for_each(|address| settle_there(world, *address))?;
    let wire = world.lab.watch()?;
    let askers = taken.iter().map(|a| world.lab.ask(*a, ASK)).collect::<Result<Vec<_>>>()?;
    let versions = Versions::of(world, "web").await?;
    world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    let published = world.published("web", 2).await.with_context(|| world.logs())?;
    ensure!(published == next, "{published:?}\n{}", world.logs());

    let given = versions.first(|service| annotated(service) == taken);
    let (given, _) = given.context("it was never given the first addresses")?;
    let told = versions.first(|service| condition(service).is_some());
    let (told, service) = told.context("no condition")?;
    let took = told.duration_since(given);
    pauses::within("told after", took, SOON, given)?;
    let message = condition(&service).unwrap_or_default();
    let stranger = mac_text(stranger());
    ensure!(
        message.contains(&stranger) && message.contains("eth0") && message.contains("node"),
        "{message}"
    );
    let written = &service.annotations()[CONFLICT];
    ensure!(written.contains(&format!("={stranger}")), "{written}");
    for address in FIRST {
        let named = versions.first(|service| {
            service.annotations().get(CONFLICT).is_some_and(|text| text.contains(address))
        });
        ensure!(named.is_some(), "{address} is in no annotation");
        event(world, "web", "AddressConflict", &[address, &stranger]).await?;
        event(world, "web", "AddressSetAside", &[address, &stranger]).await?;
    }
    for address in next {
        eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    }
    eventually("no word of it any more", 10, || async {
        let service = world.service("web").await?;
        let silent = condition(&service).is_none() && !service.annotations().contains_key(CONFLICT);
        Ok(silent.then_some(()))
    })
    .await?;
    taken.iter().try_for_each(|address| was_left_alone(world, &wire, *address))?;
    askers.into_iter().try_for_each(|asker| asker.finish())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_another_host_has_is_set_aside_and_the_next_one_given() -> Result<()> {
    let mut world = World::up(3, env([])).await?;
    is_told_and_gets_the_next(&world).await?;
    // Nobody else is given it either, nor by the CCM after a restart.
    world.expose("second", json!({})).await?;
    ensure!(world.published("second", 1).await? == ["10.0.64.3".parse::<IpAddr>()?]);
    world.ccm()?.terminate(Duration::from_secs(15))?;
    world.start_ccm().await?;
    world.expose("third", json!({})).await?;
    ensure!(world.published("third", 1).await? == ["10.0.64.4".parse::<IpAddr>()?]);
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_a_lease_decides() -> Result<()> {
    let world = World::up(3, by_lease()).await?;
    is_told_and_gets_the_next(&world).await?;
    world.lab.down()
}

/// Makes a Node with a Lease like those of announcers, which tells the hardware address of the other host.
async fn is_told_to_be_a_node(world: &World) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = serde_json::from_value(json!({ "metadata": { "name": "busy" } }))?;
    let node = nodes.create(&PostParams::default(), &node).await?;
    let lease = serde_json::from_value(json!({
        "metadata": {
            "name": "berth-announcer-busy", "labels": { "berth.dev/host": "" },
            "annotations": { "berth.dev/host-macs": mac_text(stranger()) },
            "ownerReferences": [node.owner_ref(&())],
        },
    }))?;
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
    leases.create(&PostParams::default(), &lease).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_asked_for_is_waited_for_until_the_other_host_is_gone() -> Result<()> {
    let world = World::up(3, env([])).await?;
    let address: IpAddr = "10.0.64.9".parse()?;
    settle_there(&world, address)?;
    let (wire, asker) = (world.lab.watch()?, world.lab.ask(address, ASK)?);
    world
        .create(json!({
            "metadata": { "name": "pinned", "annotations": { ADDRESSES: address.to_string() } },
            "spec": {
                "type": "LoadBalancer", "selector": { "app": "hello" },
                "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        }))
        .await?;
    eventually("the condition of the announcer and that of the CCM", 10, || async {
        let service = world.service("pinned").await?;
        let conditions = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let mut reasons = conditions.map(|shown| (shown.type_.as_str(), shown.reason.as_str()));
        let allocated = ("berth.dev/AddressAllocated", "AddressConflict");
        Ok((condition(&service).is_some() && reasons.any(|shown| shown == allocated)).then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    event(&world, "pinned", "AddressConflict", &["10.0.64.9", &mac_text(stranger())]).await?;
    // Everything else goes on.
    world.expose("web", json!({})).await?;
    let other = world.published("web", 1).await?[0];
    eventually("an answer", 10, || async { Ok(world.curl(other).ok()) }).await?;
    // Who is known for a node of the cluster is late to be silent, and nobody loses an address by that.
    is_told_to_be_a_node(&world).await?;
    let late: IpAddr = SECOND[0].parse()?;
    settle_there(&world, late)?;
    world.expose("late", json!({})).await?;
    eventually("the condition", 10, || async { Ok(condition(&world.service("late").await?)) })
        .await?;
    // Long enough to be asked for a second time.
    tokio::time::sleep(Duration::from_secs(7)).await;
    ensure!(annotated(&world.service("late").await?) == [late], "{}", world.logs());
    leave_there(&world, late)?;
    ensure!(world.published("late", 1).await? == [late]);
    let service = world.service("pinned").await?;
    ensure!(annotated(&service) == [address] && ingress(&service).is_empty(), "{service:?}");
    let ours = said_by_nodes(&wire, address, 3);
    ensure!(ours.is_empty(), "claimed: {ours:?}\n{}", world.logs());
    asker.finish()?;

    leave_there(&world, address)?;
    let published = world.published("pinned", 1).await.with_context(|| world.logs())?;
    ensure!(published == [address]);
    eventually("no word of it any more", 10, || async {
        let service = world.service("pinned").await?;
        let silent = condition(&service).is_none() && !service.annotations().contains_key(CONFLICT);
        Ok(silent.then_some(()))
    })
    .await?;
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    wire.finish()?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_comes_later_is_answered_once_and_gets_nothing() -> Result<()> {
    let world = World::up(3, env([])).await?;
    world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    let held = world.published("web", 2).await?;
    let owner = world.index_of(&world.host("web").await?)?;
    // The burst of announcements is over.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (before, lost) = (Instant::now(), membership::expired(&world, owner)?);
    let wire = world.lab.watch()?;
    let defended = "berth_announcer_conflicts_total{kind=\"defended\"} 2";
    for address in &held {
        settle_there(&world, *address)?;
    }
    // It asks for hosts that are not there, in the name of these addresses, as often as it can for some seconds.
    let start = Instant::now();
    let mut strangers = 0;
    while start.elapsed() < Duration::from_secs(4) {
        for (from, to) in [(held[0], "10.0.99.99"), (held[1], "fd00:10::dead")] {
            let from = from.to_string();
            let ping = ["ping", "-c", "1", "-W", "1", "-I", &from, to];
            let _ = world.lab.router().output(ping)?;
            strangers += 1;
        }
    }
    let host = world.host("web").await?;
    let stayed = world.index_of(&host)? == owner;
    // Who takes over says so, often enough to be heard.
    let excused = pauses::so_far().excuse(before, Instant::now())
        && membership::expired(&world, owner)? > lost;
    ensure!(stayed || excused, "it moved to {host}\n{}", world.logs());
    if stayed {
        let shown = membership::metrics(&world, owner)?;
        ensure!(shown.contains(defended), "{shown}\n{}", world.logs());
    }
    for address in &held {
        let said = said_by_nodes(&wire, *address, 3);
        let word = said.iter().filter(|s| s.said == Said::Announcement).count();
        let once = word == 1 && said.iter().all(|s| s.mac == mac(Net::Lan, node_host(owner)));
        let judged = once || word > 0 && excused;
        ensure!(judged, "{address}: {word} announcements: {said:?}\n{}", world.logs());
        let text = address.to_string();
        event(&world, "web", "AddressConflict", &[&text, &mac_text(stranger())]).await?;
    }
    ensure!(strangers > 2);
    for address in &held {
        leave_there(&world, *address)?;
    }
    ensure!(world.published("web", 2).await? == held);
    let service = world.service("web").await?;
    ensure!(!service.annotations().contains_key(CONFLICT), "it is held, and nothing is moved");
    for address in held {
        eventually("an answer", 30, || async { Ok(world.curl(address).ok()) }).await?;
    }
    wire.finish()?;
    world.lab.down()
}
