//! What whoever may edit one namespace gets by BGP, and what it does to others: addresses of routers, words of the operator's, aggregates,
//! addresses that rest, edits without end.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::world::{World, eventually, kubectl};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::{POOL, SOON, bound, by_bgp, configure};

/// A router that is no node's way out.
const REFLECTOR: &str = "10.0.200.200";

/// What `berth.dev/AddressAllocated` of a Service says.
fn allocated(service: &Service) -> Option<String> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|one| one.type_ == "berth.dev/AddressAllocated")?;
    Some(format!("{} {}: {}", condition.status, condition.reason, condition.message))
}

fn asking(name: &str, pin: &str) -> Value {
    let ports = json!([{ "port": 80, "targetPort": 8080 }]);
    let spec = json!({ "type": "LoadBalancer", "selector": { "app": "hello" }, "ports": ports });
    let pin = json!({ "kube-vip.io/loadbalancerIPs": pin });
    json!({ "metadata": { "name": name, "annotations": pin }, "spec": spec })
}

async fn world() -> Result<(World, Bird, String)> {
    let world = World::up(1, by_bgp(&format!("{}:65001", router().v4))).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    let bird = Bird::start(&world.lab, 65000, "")?;
    let name = protocol(world.lab.node(0).name());
    Ok((world, bird, name))
}

/// Whoever had the address of a router would end all sessions with it: a node takes for its own what it has bound.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_the_address_of_a_router_that_nodes_speak_to() -> Result<()> {
    let (world, bird, _) = world().await?;
    let document =
        |peer: &str| format!("peers: [{{name: rr, address: {peer}, asn: 65001, multihop: 5}}]");
    configure(&world, &document(REFLECTOR)).await?;
    let is_refused = |name: &'static str, pin: &'static str| {
        let world = &world;
        async move {
            world.create(asking(name, pin)).await?;
            let refused = eventually("that it is refused", 5, || async {
                let told = allocated(&world.service(name).await?);
                Ok(told.filter(|told| told.starts_with("False AddressReserved")))
            });
            let told = refused.await.with_context(|| format!("{pin}: {}", world.logs()))?;
            ensure!(bound(world, 0, &[pin.parse()?])?.is_empty(), "{told}");
            world.delete(name).await
        }
    };
    let lease = format!("lease/berth-announcer-{}", world.lab.node(0).name());
    let path = "jsonpath={.metadata.annotations.berth\\.dev/bgp-addresses}";
    eventually("that the node tells whose it is", SOON, || async {
        let told = kubectl(&world.lab, &["-n", "kube-system", "get", &lease, "-o", path])?;
        Ok(told.contains(REFLECTOR).then_some(()))
    })
    .await?;
    is_refused("reflector", REFLECTOR).await?;

    // One that somebody has when it becomes a router's.
    let other = "10.0.200.201";
    world.create(asking("before", other)).await?;
    eventually("that it is bound", 20, || async {
        Ok((!bound(&world, 0, &[other.parse()?])?.is_empty()).then_some(()))
    })
    .await?;
    configure(&world, &document(other)).await?;
    eventually("that the router's address is bound no more", 20, || async {
        Ok(bound(&world, 0, &[other.parse()?])?.is_empty().then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    drop(bird);
    world.lab.down()
}

/// `no-export` of a rule keeps routes from leaking, and GRACEFUL_SHUTDOWN of a drain keeps connections.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_asks_for_takes_no_word_of_the_operator_s_away() -> Result<()> {
    let (world, bird, name) = world().await?;
    let document = "policy: [{communities: [no-export, \"65010:7\", \"65010:1:1\"]}]\n\
                    services: [{namespaces: [default], communities: [\"65000:*\", \"65000:*:*\"]}]\n";
    configure(&world, document).await?;
    let each = |number: u32| format!("65000:{number},65000:1:{number}");
    let all: Vec<String> = (1..=100).map(each).collect();
    let mut object = asking("many", "");
    object["metadata"]["annotations"] = json!({ "berth.dev/bgp-communities": all.join(",") });
    world.create(object).await?;
    let address = world.published("many", 1).await.with_context(|| world.logs())?[0];
    let says = |text: &'static str| {
        let (bird, name) = (&bird, &name);
        eventually(text, SOON, move || async move {
            let said = bird.says(&format!("show route {address}/32 protocol {name} all"))?;
            ensure!(!said.contains("(65000,100)") || said.contains(text), "{text}: {said}");
            Ok(said.contains(text).then_some(()))
        })
    };
    for text in ["(65535,65281)", "(65010,7)", "(65010, 1, 1)"] {
        says(text).await?;
    }
    kubectl(&world.lab, &["annotate", "node", world.lab.node(0).name(), "berth.dev/drain=true"])?;
    says("(65535,0)").await?;
    drop(bird);
    world.lab.down()
}

/// What went by BGP rests, and counts as long for whoever gave it back: also where berth-ccm begins anew meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_back_without_end_takes_no_more_than_its_quota_from_others() -> Result<()> {
    let (mut world, bird, _) = world().await?;
    give_back(&world, 3).await?;
    // Asked for beyond that it is refused each time.
    for number in 3..6 {
        let name = format!("w{number}");
        world.expose(&name, json!({})).await?;
        world.delete(&name).await?;
    }
    let text = "jsonpath={.metadata.annotations.berth\\.dev/resting}";
    let lease = ["-n", "kube-system", "get", "lease", "kube-vip-cloud-controller", "-o", text];
    eventually("that the Lease has what rests", 15, || async {
        let said = kubectl(&world.lab, &lease)?;
        Ok((1..=3).all(|last| said.contains(&format!("10.99.0.{last}\""))).then_some(()))
    })
    .await?;
    begins_anew(&mut world).await?;
    drop(bird);
    world.lab.down()
}

/// Has so many addresses of a pool of four given back, by a namespace that may have three, and waits until they rest.
async fn give_back(world: &World, count: usize) -> Result<()> {
    let pools = json!({ "range-global": "10.99.0.1-10.99.0.4", "quota-default": "3" });
    world.pools(pools).await?;
    kubectl(&world.lab, &["create", "namespace", "other"])?;
    for number in 0..count {
        let name = format!("w{number}");
        world.expose(&name, json!({})).await?;
        world.published(&name, 1).await?;
        world.delete(&name).await?;
    }
    world.expose("late", json!({})).await?;
    is_refused(world, "late").await
}

async fn is_refused(world: &World, name: &str) -> Result<()> {
    let told = || async { Ok::<_, anyhow::Error>(allocated(&world.service(name).await?)) };
    let refused = eventually("that the quota is used up by what rests", 10, || async {
        let is_so = |told: &String| {
            told.starts_with("False QuotaExceeded") && told.contains("rest after their release")
        };
        Ok(told().await?.filter(is_so).map(drop))
    });
    match refused.await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(format!("{:?}", told().await?))),
    }
}

/// Kills berth-ccm and starts the next one: what rests is given to nobody, and counts as before.
async fn begins_anew(world: &mut World) -> Result<()> {
    world.ccm()?.kill()?;
    world.start_ccm().await?;
    let mut object = asking("first", "");
    object["metadata"] = json!({ "name": "first", "namespace": "other" });
    world.create(object).await?;
    let given = eventually("an address for somebody else", 60, || async {
        let shown = world.services("other").get("first").await?;
        let annotations = shown.metadata.annotations.unwrap_or_default();
        Ok(annotations.get("kube-vip.io/loadbalancerIPs").cloned())
    });
    let given = given.await?;
    ensure!(given == "10.99.0.4", "{given} rests: {}", world.logs());
    is_refused(world, "late").await
}

/// No session ends for edits, nobody is flooded with Events, and the last word is what counts.
#[tokio::test(flavor = "multi_thread")]
async fn edits_without_end_end_no_session_and_are_told_once() -> Result<()> {
    let (world, bird, name) = world().await?;
    configure(&world, "services: [{namespaces: [default], communities: [\"65000:*\"]}]").await?;
    world.expose("web", json!({})).await?;
    let address: IpAddr = world.published("web", 1).await?[0];
    let (begun, mut number) = (Instant::now(), 0_u32);
    while begun.elapsed() < Duration::from_secs(5) {
        number += 1;
        let communities = match number % 2 {
            0 => format!("65000:{number}"),
            _ => format!("none-{number}"),
        };
        let notes = json!({ "berth.dev/bgp-communities": communities, "berth.dev/bgp-peers": format!("x{number}") });
        world.patch("web", json!({ "metadata": { "annotations": notes } })).await?;
    }
    let last = json!({ "berth.dev/bgp-communities": "65000:7", "berth.dev/bgp-peers": null });
    world.patch("web", json!({ "metadata": { "annotations": last } })).await?;
    eventually("the last word", SOON, || async {
        let said = bird.says(&format!("show route {address}/32 protocol {name} all"))?;
        Ok(said.contains("BGP.community: (65000,7)\n").then_some(()))
    })
    .await?;
    let numbers = world.lab.node(0).exec(["curl", "-s", "http://127.0.0.1:2112/metrics"])?;
    let mut lost = numbers.lines().filter(|line| line.contains("bgp_sessions_lost_total{"));
    ensure!(lost.all(|line| line.ends_with(" 0")), "{numbers}");
    let events = kubectl(&world.lab, &["get", "events", "-o", "name"])?;
    ensure!(number > 50 && events.lines().count() < 50, "{} Events", events.lines().count());
    drop(bird);
    world.lab.down()
}
