//! What the status of a Service shows, kube-proxy leads to it: nobody keeps an address there that is another's by now, nor
//! takes a port of another there. Judged by the API server, and by whose pod answers a client.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::membership;
use berth_e2e::place::Place;
use berth_e2e::world::{
    ADDRESSES, HOST, World, curl, curl_port, env, eventually, ingress, kubectl,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

pub(crate) const NODES: usize = 2;
const POOL: &str = "10.0.64.1-10.0.64.9";
/// What the tenant holds its Services by.
const KEEP: &str = "mallory.example/keep";
/// How often kube-proxy changes its rules at most (`--iptables-min-sync-period`).
pub(crate) const PROXY: Duration = Duration::from_secs(1);
/// A colliding port is out of the status this soon, but for pauses of the machine.
pub(crate) const GAP: Duration = Duration::from_secs(2);

pub(crate) async fn up(election: &[(&str, &str)]) -> Result<World> {
    up_on(NODES, election).await
}

/// With announcers on so many nodes.
pub(crate) async fn up_on(nodes: usize, election: &[(&str, &str)]) -> Result<World> {
    let mut environment = env([("berth_claims", "required")]);
    environment.extend(election.iter().map(|(key, value)| ((*key).into(), (*value).into())));
    let mut world = World::without_berth(nodes + 1, environment).await?;
    for node in 0..nodes {
        world.start_announcer(node).await?;
    }
    world.pools(json!({ "range-global": POOL, "reuse-delay": "1s" })).await?;
    world.start_ccm().await?;
    for (namespace, app) in [("alice", "hello"), ("mallory", "evil")] {
        kubectl(&world.lab, &["create", "namespace", namespace])?;
        world.deploy(namespace, app, 1)?;
    }
    Ok(world)
}

/// A Service before the pods of its namespace, which asks for an address or for none.
pub(crate) async fn expose(
    world: &World,
    name: (&str, &str),
    port: u16,
    address: Option<IpAddr>,
) -> Result<()> {
    let app = if name.0 == "alice" { "hello" } else { "evil" };
    let annotations = address.map(|address| json!({ ADDRESSES: address.to_string() }));
    let service = json!({
        "metadata": { "namespace": name.0, "name": name.1, "annotations": annotations },
        "spec": {
            "type": "LoadBalancer", "selector": { "app": app },
            "ports": [{ "port": port, "targetPort": 8080 }],
        },
    });
    world.create(service).await.map(drop)
}

pub(crate) async fn get(world: &World, name: (&str, &str)) -> Result<Service> {
    Ok(world.services(name.0).get(name.1).await?)
}

pub(crate) async fn patch(world: &World, name: (&str, &str), patch: Value) -> Result<Service> {
    let parameters = PatchParams::default();
    Ok(world.services(name.0).patch(name.1, &parameters, &Patch::Merge(patch)).await?)
}

/// The address that a Service shows.
pub(crate) async fn shown(world: &World, name: (&str, &str)) -> Result<IpAddr> {
    let what = format!("an address of {name:?}");
    let found =
        eventually(&what, 30, || async { Ok(ingress(&get(world, name).await?).first().copied()) });
    found.await.with_context(|| world.logs())
}

/// Waits until a Service that is there still shows the address no more; says how long it took. Meanwhile no claim gave it to
/// another.
pub(crate) async fn gone(
    world: &World,
    name: (&str, &str),
    address: IpAddr,
    seconds: u64,
) -> Result<Duration> {
    let start = Instant::now();
    let what = format!("{address} is out of the status of {name:?}");
    let out = eventually(&what, seconds, || async {
        let claims = world.claims().await?;
        let service = get(world, name).await?;
        if !ingress(&service).contains(&address) {
            return Ok(Some(()));
        }
        let uid = service.metadata.uid.unwrap_or_default();
        let claim = claims.get(&address.to_string());
        let holders = claim.map(|claim| format!("{:?}", claim.annotations())).unwrap_or_default();
        ensure!(claim.is_none() || holders.contains(&uid), "it is another's: {holders}");
        Ok(None)
    });
    out.await.with_context(|| world.logs())?;
    Ok(start.elapsed())
}

/// Holds a Service by a finalizer of the tenant, takes away what an announcer wrote into it, and deletes it.
async fn delete_and_keep(world: &World, name: (&str, &str)) -> Result<()> {
    let mut finalizers = get(world, name).await?.finalizers().to_vec();
    finalizers.push(KEEP.to_owned());
    patch(world, name, json!({ "metadata": { "finalizers": finalizers } })).await?;
    patch(world, name, json!({ "metadata": { "annotations": { HOST: null } } })).await?;
    world.services(name.0).delete(name.1, &DeleteParams::default()).await?;
    Ok(())
}

/// A Lease by which another announcer would decide on a Service, held for ever.
async fn hold_lease(world: &World, name: (&str, &str)) -> Result<()> {
    let now = MicroTime(Timestamp::now());
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": format!("kubevip-{}", name.1) },
        "spec": {
            "holderIdentity": "stock", "leaseDurationSeconds": 86_400, "renewTime": now,
            "acquireTime": now,
        },
    });
    // Written over what the announcer holds, which makes a deleted one again at once.
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), name.0);
    let (own, parameters) = (format!("kubevip-{}", name.1), PatchParams::apply("stock").force());
    leases.patch(&own, &parameters, &Patch::Apply(lease)).await?;
    Ok(())
}

pub(crate) async fn told(
    world: &World,
    name: (&str, &str),
    reason: &str,
    word: &str,
) -> Result<()> {
    let events: Api<Event> = Api::namespaced(world.client.clone(), name.0);
    let what = format!("an Event {reason} with {word} about {name:?}");
    let found = eventually(&what, 15, || async {
        let found = events.list(&ListParams::default()).await?.into_iter().any(|event| {
            event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name.1)
                && event.reason.as_deref() == Some(reason)
                && event.note.as_deref().unwrap_or_default().contains(word)
        });
        Ok(found.then_some(()))
    });
    found.await.with_context(|| world.logs())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_keeps_no_address_that_is_anothers_whatever_its_author_writes() -> Result<()> {
    let mut world = up(&[]).await?;
    eventually("all nodes take part", 30, || async {
        Ok(membership::is_settled(&world, NODES).await?.then_some(()))
    })
    .await?;
    let deleted = ("mallory", "deleted");
    expose(&world, deleted, 80, None).await?;
    let address = shown(&world, deleted).await?;
    delete_and_keep(&world, deleted).await?;
    println!("deleted and kept: out after {:.1?}", gone(&world, deleted, address, 15).await?);
    expose(&world, ("alice", "web"), 80, Some(address)).await?;
    ensure!(shown(&world, ("alice", "web")).await? == address);
    eventually("the pod of alice answers", 10, || async {
        Ok(world.curl(address).ok().filter(|body| body.contains("hello")))
    })
    .await?;

    // Its own Lease freezes nothing, whether it moves away or is deleted.
    for name in [("mallory", "moved"), ("mallory", "frozen")] {
        expose(&world, name, 80, None).await?;
        let address = shown(&world, name).await?;
        hold_lease(&world, name).await?;
        if name.1 == "moved" {
            let annotations = json!({ ADDRESSES: "10.0.64.9", HOST: null });
            patch(&world, name, json!({ "metadata": { "annotations": annotations } })).await?;
        } else {
            delete_and_keep(&world, name).await?;
        }
        println!(
            "{} under a Lease: out after {:.1?}",
            name.1,
            gone(&world, name, address, 20).await?
        );
    }

    // With no announcer that clears it, as with one of kube-vip, nobody else is given what it shows.
    let stale = ("mallory", "stale");
    expose(&world, stale, 80, None).await?;
    let address = shown(&world, stale).await?;
    world.announcers().try_for_each(|(_, announcer)| announcer.kill())?;
    delete_and_keep(&world, stale).await?;
    eventually("its claim is given back", 20, || async {
        Ok((!world.claims().await?.contains_key(&address.to_string())).then_some(()))
    })
    .await?;
    let pin = ("alice", "pin");
    expose(&world, pin, 80, Some(address)).await?;
    told(&world, pin, "AddressResting", "mallory/stale").await?;
    for n in 0..3 {
        expose(&world, ("alice", &format!("pool{n}")), 80, None).await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let claims = world.claims().await?;
    ensure!(!claims.contains_key(&address.to_string()), "{claims:?}\n{}", world.logs());
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    gone(&world, stale, address, 30).await?;
    ensure!(shown(&world, pin).await? == address, "berth-ccm is woken");
    eventually("the pod of alice answers", 10, || async {
        Ok(world.curl(address).ok().filter(|body| body.contains("hello")))
    })
    .await?;
    let address = shares(&world).await?;
    joins_from_nowhere(&world, address).await?;
    takes_a_port(&world, address).await?;
    world.lab.down()
}

/// A client that asks as fast as it can, and when it was last answered by whom else.
pub(crate) struct Client {
    ends: Arc<AtomicBool>,
    asks: std::thread::JoinHandle<Vec<(Instant, String)>>,
}

impl Client {
    pub(crate) fn of(place: Place, address: IpAddr) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let done = ends.clone();
        let asks = std::thread::spawn(move || {
            let mut answers = Vec::new();
            while !done.load(Ordering::Relaxed) {
                // When it came: who asks before an edit, and asks again, may be answered after it.
                let body = curl(&place, address).ok();
                answers.extend(body.map(|body| (Instant::now(), body)));
            }
            answers
        });
        Self { ends, asks }
    }

    pub(crate) fn answers(self) -> Result<Vec<(Instant, String)>> {
        self.ends.store(true, Ordering::Relaxed);
        self.asks.join().map_err(|_| anyhow::anyhow!("the client has panicked"))
    }
}

/// Alice and mallory share addresses, and alice has one.
pub(crate) async fn shares(world: &World) -> Result<IpAddr> {
    world
        .pools(json!({
            "range-global": POOL, "reuse-delay": "1s", "allow-share-global": "true",
            "share-with-alice": "mallory", "share-with-mallory": "alice",
        }))
        .await?;
    let (shop, address) = (("alice", "shop"), "10.0.64.8".parse()?);
    expose(world, shop, 80, Some(address)).await?;
    ensure!(shown(world, shop).await? == address);
    eventually("the pod of alice answers", 10, || async {
        Ok(world.curl(address).ok().filter(|body| body.contains("hello")))
    })
    .await?;
    Ok(address)
}

/// Who shares an address and takes the port of the other has the address no longer, until its ports are others again.
async fn takes_a_port(world: &World, address: IpAddr) -> Result<()> {
    let own = ("mallory", "own");
    expose(world, own, 81, Some(address)).await?;
    ensure!(shown(world, own).await? == address, "they share it");
    eventually("the pod of mallory answers at its own port", 10, || async {
        let body = curl_port(&world.lab.outside(), address, 81).ok();
        Ok(body.filter(|body| body.contains("evil")))
    })
    .await?;
    let client = Client::of(world.lab.outside(), address);
    let mut edits = Vec::new();
    let judged = toggles(world, address, &mut edits).await;
    let answers = client.answers()?;
    let others: Vec<_> = answers.iter().filter(|(_, body)| body.contains("evil")).collect();
    let since = |at: &Instant| edits.iter().rev().find(|edit| *edit <= at).map(|edit| *at - *edit);
    let drawn = others.iter().filter_map(|(at, _)| since(at)).max().unwrap_or_default();
    println!(
        "a port taken: of {} answers {} were the other's, the last {drawn:.0?} after the edit",
        answers.len(),
        others.len()
    );
    judged?;
    ensure!(drawn <= GAP * 2, "{drawn:?}\n{}", world.logs());
    // It asks to be left alone: that is no leave to have what is another's.
    let own = ("mallory", "own");
    let edit = json!({ "metadata": { "annotations": { "kube-vip.io/ignore": "true" } } });
    patch(world, own, edit).await?;
    patch(world, own, ports(80)).await?;
    gone(world, own, address, 10).await?;
    Ok(())
}

/// Who joins an address and names an interface that no node has, or says that its endpoints are on a node without an announcer, is
/// told so, and keeps the address from nobody: neither where it is, nor when another node is to have it.
async fn joins_from_nowhere(world: &World, address: IpAddr) -> Result<()> {
    let (shop, far) = (("alice", "shop"), ("mallory", "far"));
    let service = json!({
        "metadata": { "namespace": far.0, "name": far.1, "annotations": {
            ADDRESSES: address.to_string(), "kube-vip.io/serviceInterface": "nowhere9",
        } },
        "spec": {
            "type": "LoadBalancer", "selector": { "app": "evil" },
            "ports": [{ "port": 82, "targetPort": 8080 }],
        },
    });
    world.create(service).await?;
    told(world, far, "InterfaceMissing", "nowhere9").await?;
    let served = async || -> Result<()> {
        ensure!(ingress(&get(world, shop).await?) == [address], "{}", world.logs());
        ensure!(world.curl(address)?.contains("hello"), "{}", world.logs());
        ensure!(ingress(&get(world, far).await?).is_empty(), "{}", world.logs());
        Ok(())
    };
    served().await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": far.0, "name": "by-hand", "labels": { "kubernetes.io/service-name": far.1 },
        },
        "ports": [{ "port": 8080 }],
        "endpoints": [{ "addresses": ["10.244.0.200"], "nodeName": "ghost" }],
    });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "ghost" } });
    for (name, object) in [("ghost.json", node), ("by-hand.json", slice)] {
        let file = world.lab.dir().join(name);
        std::fs::write(&file, object.to_string())?;
        kubectl(&world.lab, &["create", "-f", &file.display().to_string()])?;
    }
    let there = json!({
        "metadata": { "annotations": { "kube-vip.io/serviceInterface": null } },
        "spec": { "selector": null, "externalTrafficPolicy": "Local" },
    });
    patch(world, far, there).await?;
    told(world, far, "NotServedTogether", "alice/shop").await?;
    served().await?;
    moves(world, address).await?;
    served().await
}

/// Has the node that has the address hand it over.
pub(crate) async fn moves(world: &World, address: IpAddr) -> Result<()> {
    let before = world.holders(address)?;
    let [node] = &before[..] else { anyhow::bail!("{before:?} have {address}") };
    kubectl(&world.lab, &["annotate", "node", node, "berth.dev/drain=true"])?;
    eventually("another node has the address", 20, || async {
        let now = world.holders(address)?;
        Ok((now.len() == 1 && now != before).then_some(()))
    })
    .await
    .with_context(|| world.logs())
}

pub(crate) fn ports(port: u16) -> Value {
    json!({ "spec": { "ports": [{ "port": port, "targetPort": 8080 }] } })
}

/// Takes the port of the other and gives it back, again and again; when it took it.
async fn toggles(world: &World, address: IpAddr, edits: &mut Vec<Instant>) -> Result<()> {
    let (shop, own) = (("alice", "shop"), ("mallory", "own"));
    let mut longest = Duration::ZERO;
    // Who has done so before is served again after a while; that it grows, `rotation` tells.
    for pause in [0, 10] {
        ensure!(shown(world, own).await? == address, "with other ports it has it again");
        let after = edits.last().map(Instant::elapsed);
        let waited = after.is_none_or(|after| after >= Duration::from_secs(pause));
        ensure!(waited, "after {after:.1?}\n{}", world.logs());
        // kube-proxy takes in what has changed once a second: at once, if nothing has for that long.
        tokio::time::sleep(PROXY * 2).await;
        edits.push(Instant::now());
        patch(world, own, ports(80)).await?;
        longest = longest.max(gone(world, own, address, 10).await?);
        told(world, own, "AddressInUse", "alice/shop").await?;
        ensure!(ingress(&get(world, shop).await?) == [address], "the other one keeps it");
        tokio::time::sleep(PROXY).await;
        patch(world, own, ports(81)).await?;
    }
    println!("a port taken: out of the status after {longest:.0?} at most");
    ensure!(longest <= GAP, "{longest:?}\n{}", world.logs());
    Ok(())
}

/// By Leases of single Services: the tenant holds the one that would decide.
#[tokio::test(flavor = "multi_thread")]
async fn by_lease_a_tenants_own_lease_keeps_no_address_in_its_status() -> Result<()> {
    let world = up(&[("svc_election", "true")]).await?;
    let address = shares(&world).await?;
    takes_a_port(&world, address).await?;
    for name in [("mallory", "deleted"), ("mallory", "frozen")] {
        expose(&world, name, 80, None).await?;
        let address = shown(&world, name).await?;
        if name.1 == "frozen" {
            hold_lease(&world, name).await?;
        }
        delete_and_keep(&world, name).await?;
        println!("{} by Lease: out after {:.1?}", name.1, gone(&world, name, address, 20).await?);
    }
    world.lab.down()
}
