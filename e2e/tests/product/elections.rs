//! Membership and the Lease that stands in for it: one of both decides, whatever becomes of the key and of the right to it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::get::get;
use berth_e2e::membership;
use berth_e2e::pauses;
use berth_e2e::process::Process;
use berth_e2e::wire::Watch;
use berth_e2e::world::{World, annotated, env, eventually, kubectl, repository};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use super::conflict::event;
use crate::scene::{ASK, PATIENCE, TAKEOVER, never_together};
use crate::unannounced::{events, says as says_so};

/// What somebody does to a cluster.
type Deed = Box<dyn Fn(&World) -> Result<()>>;

const NODES: usize = 3;
const SECRET: [&str; 3] = ["-n", "kube-system", "berth-membership"];

/// What brings the Secret and the right to it.
fn grant(world: &World) -> Result<()> {
    let file = repository().join("manifests/announcer-rbac.yaml").display().to_string();
    kubectl(&world.lab, &["apply", "-n", "kube-system", "-f", &file]).map(drop)
}

fn delete(world: &World, kind: &str) -> Result<()> {
    let [flag, namespace, name] = SECRET;
    let name = if kind == "secret" { name } else { "berth-announcer" };
    kubectl(&world.lab, &["delete", flag, namespace, kind, name]).map(drop)
}

fn patch(world: &World, patch: &Value) -> Result<()> {
    let [flag, namespace, name] = SECRET;
    let text = patch.to_string();
    kubectl(&world.lab, &["patch", flag, namespace, "secret", name, "--type=merge", "-p", &text])
        .map(drop)
}

pub(crate) async fn says(process: &Process, words: &[&str]) -> Result<()> {
    eventually(&format!("{words:?} in the log"), 15, || async {
        let log = process.log_text();
        Ok(words.iter().all(|word| log.contains(word)).then_some(()))
    })
    .await
}

/// The owner, once all nodes take part: while voters change, another one may have made itself ready, silently.
async fn settled(world: &World, address: IpAddr) -> Result<String> {
    let owner = eventually("one owner by membership", 30, || async {
        let all = membership::is_settled(world, NODES).await?;
        let holders = world.holders(address)?;
        let alone = all && holders.len() == 1 && world.curl(address).is_ok();
        Ok(holders.into_iter().next().filter(|_| alone))
    });
    owner.await.with_context(|| world.logs())
}

/// Starts all announcers anew, one after the other, so that all have read the same Secret.
async fn start_anew(world: &mut World) -> Result<()> {
    for node in 0..NODES {
        let name = format!("node{node}");
        world.announcer(&name)?.terminate(Duration::from_secs(15))?;
        world.start_announcer(node).await?;
        says(world.announcer(&name)?, &["this node is a member"]).await?;
    }
    Ok(())
}

/// Who is ended hands over in less than the moment between two answers to one question: two that answer are told by one that
/// speaks between two words of the other.
fn one_at_a_time(world: &World, wire: &Watch, address: IpAddr, start: Instant) -> Result<()> {
    never_together(world, &wire.so_far(), address, start).map(drop)
}

/// Row 4 of what was tried from outside, and every other way into the Lease: no Secret, no right to it, an entry that is no
/// key. Only where there is no view either does a Lease decide, and no longer than until there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_decides_only_while_no_node_goes_by_membership() -> Result<()> {
    let mut world = World::without_berth(NODES + 1, env([])).await?;
    world.pools(json!({ "range-global": berth_e2e::world::POOL })).await?;
    world.start_ccm().await?;
    delete(&world, "secret")?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    world.deploy("default", "hello", 2)?;
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await?[0];
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    let (wire, asker, start) = (world.lab.watch()?, world.lab.ask(address, ASK)?, Instant::now());

    // The Secret comes late, and one node is started anew: the others give way and are started anew by whoever runs them.
    let owner = world.index_of(&world.host("web").await?)?;
    let other = (owner + 1) % NODES;
    grant(&world)?;
    world.announcer(&format!("node{other}"))?.terminate(Duration::from_secs(10))?;
    world.start_announcer(other).await?;
    says(world.announcer(&format!("node{other}"))?, &["this node is a member"]).await?;
    for node in (0..NODES).filter(|node| *node != other) {
        let name = format!("node{node}");
        let ended =
            eventually("it gives way", 30, || async { Ok(world.announcer(&name)?.ending()) })
                .await?;
        ensure!(ended == "code 1", "{name}: {ended}\n{}", world.logs());
        world.start_announcer(node).await?;
    }
    settled(&world, address).await?;
    one_at_a_time(&world, &wire, address, start)?;

    let key =
        kubectl(&world.lab, &["get", SECRET[0], SECRET[1], "secret", SECRET[2], "-o", "json"])?;
    let mut key: Value = serde_json::from_str(&key)?;
    key["metadata"] = json!({ "name": "berth-membership", "namespace": "kube-system" });
    let file = world.lab.dir().join("key.json");
    std::fs::write(&file, key.to_string())?;
    let file = file.display().to_string();
    let (kept, again) = (file.clone(), file);
    let restore = move |world: &World| kubectl(&world.lab, &["create", "-f", &kept]).map(drop);
    let entry =
        |value: Value| move |world: &World| patch(world, &json!({ "data": { "x": value } }));
    let slips: [(&str, Deed, Deed); 3] = [
        ("key of 5 octets", Box::new(entry(json!("aGVsbG8="))), Box::new(entry(Value::Null))),
        ("forbidden", Box::new(|world| delete(world, "rolebinding")), Box::new(grant)),
        ("not found", Box::new(|world| delete(world, "secret")), Box::new(restore)),
    ];
    for (slip, make, mend) in slips {
        let owner = settled(&world, address).await?;
        make(&world)?;
        let other = (world.index_of(&owner)? + 1) % NODES;
        let name = format!("node{other}");
        world.announcer(&name)?.terminate(Duration::from_secs(10))?;
        let begun = Instant::now();
        world.start_announcer(other).await?;
        let process = world.announcer(&name)?;
        says(process, &[slip, "nothing is served until that is mended"]).await?;
        tokio::time::sleep(PATIENCE).await;
        ensure!(!world.holders(address)?.contains(&name), "{slip}\n{}", world.logs());
        one_at_a_time(&world, &wire, address, begun)?;
        mend(&world)?;
        says(process, &["this node is a member"]).await?;
        ensure!(world.curl(address).is_ok(), "{slip}\n{}", world.logs());
    }
    // The Secret is another one since, whose key is for another cluster: who has read it is not heard by the others.
    start_anew(&mut world).await?;
    // Exchanged, it has a key that the others do not know; re-applied, it is empty and gets another key, and restored it is
    // another one again. So not all nodes take part meanwhile.
    settled(&world, address).await?;
    let settle = async |world: &mut World, deed: &Deed| {
        let holders = world.holders(address)?;
        ensure!(holders.len() == 1, "{holders:?} hold {address}\n{}", world.logs());
        let owner = &holders[0];
        deed(world)?;
        let other = (world.index_of(owner)? + 1) % NODES;
        world.announcer(&format!("node{other}"))?.terminate(Duration::from_secs(10))?;
        let begun = Instant::now();
        world.start_announcer(other).await?;
        says(world.announcer(&format!("node{other}"))?, &["this node is a member"]).await?;
        tokio::time::sleep(PATIENCE).await;
        ensure!(world.curl(address).is_ok(), "{}", world.logs());
        one_at_a_time(world, &wire, address, begun)
    };
    let restore: Deed = Box::new(move |world| {
        delete(world, "secret")?;
        kubectl(&world.lab, &["create", "-f", &again]).map(drop)
    });
    let next = json!("bmV4dCBuZXh0IG5leHQgbmV4dCBuZXh0IG5leHQgbmV4dCBuZXh0");
    let data =
        |data: Value| -> Deed { Box::new(move |world| patch(world, &json!({ "data": data }))) };
    let last = key["data"]["key"].clone();
    let changed: [Deed; 3] = [
        data(json!({ "next": next })),
        data(json!({ "key": next, "next": last })),
        data(json!({ "key": last, "next": null })),
    ];
    let replaced: [Deed; 2] =
        [Box::new(|world| delete(world, "secret").and_then(|()| grant(world))), restore];
    for deed in changed {
        settle(&mut world, &deed).await?;
    }
    settled(&world, address).await?;
    for deed in replaced {
        settle(&mut world, &deed).await?;
    }
    start_anew(&mut world).await?;
    settled(&world, address).await?;
    asker.finish()?;
    one_at_a_time(&world, &wire, address, start)?;
    world.lab.down()
}

/// What a stock announcer writes that renews a Lease.
async fn hold(
    world: &World,
    namespace: &str,
    name: &str,
    holder: &str,
    seconds: u32,
) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), namespace);
    // A renewal changes something.
    static WRITES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let writes = WRITES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let spec = json!({
        "holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": writes,
    });
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": name }, "spec": spec,
    });
    let manager = PatchParams::apply("stock").force();
    leases.patch(name, &manager, &Patch::Apply(&lease)).await?;
    Ok(())
}

async fn holder(world: &World, name: &str) -> Result<Option<String>> {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
    let spec = leases.get_opt(name).await?.and_then(|lease| lease.spec);
    Ok(spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
}

async fn held_by(world: &World, address: IpAddr, count: usize) -> Result<()> {
    eventually(&format!("{count} with {address}"), 30, || async {
        Ok((world.holders(address)?.len() == count).then_some(()))
    })
    .await
    .with_context(|| world.logs())
}

/// Membership begins when who goes by the Lease gives it up, holds it from then on, and gives way to a stranger that has it
/// nevertheless, as after a time in which no member reached the API server.
#[tokio::test(flavor = "multi_thread")]
async fn members_hold_the_lease_by_which_others_decide() -> Result<()> {
    const ALL: [&str; 2] = ["kube-system", "plndr-svcs-lock"];
    const STOCK: &str = "stock_1";
    let mut world = World::without_berth(NODES + 1, env([])).await?;
    world.pools(json!({ "range-global": berth_e2e::world::POOL })).await?;
    world.start_ccm().await?;
    hold(&world, ALL[0], ALL[1], STOCK, 3600).await?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
        let process = world.announcer(&format!("node{node}"))?;
        says(process, &["membership begins when it ends"]).await?;
        let (place, own) = (world.lab.node(node).place()?, ([127, 0, 0, 1], 2112).into());
        let ready = || async { Ok(get(&place, own, "/readyz", Duration::from_secs(2)).ok()) };
        eventually("ready, or a rollout would stop here", 10, ready).await?;
    }
    world.deploy("default", "hello", 2)?;
    for name in ["web", "other"] {
        world.expose(name, json!({})).await?;
    }
    ensure!(
        holder(&world, "berth-membership").await?.is_none(),
        "a view beside the Lease's holder"
    );

    // No node decides, and one of them says why nobody announces them; until somebody does.
    let exposed = Instant::now();
    for name in ["web", "other"] {
        says_so(&world, name, Some("LeftToLease"), 10).await.with_context(|| world.logs())?;
    }
    pauses::within("told that they are left", exposed.elapsed(), Duration::from_secs(5), exposed)?;
    for name in ["web", "other"] {
        event(&world, name, "LeftToLease", &[ALL[1], STOCK]).await?;
        ensure!(events(&world, name, "LeftToLease").await? == 1, "by each node\n{}", world.logs());
    }
    let address = annotated(&world.service("other").await?)[0];
    let ingress = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    let (services, parameters) = (world.services("default"), PatchParams::default());
    services.patch_status("other", &parameters, &Patch::Merge(ingress)).await?;
    says_so(&world, "other", None, 3).await.with_context(|| world.logs())?;
    says_so(&world, "web", Some("LeftToLease"), 1).await?;

    hold(&world, ALL[0], ALL[1], "", 1).await?;
    let (web, other) = (world.published("web", 1).await?[0], world.published("other", 1).await?[0]);
    settled(&world, web).await?;
    ensure!(holder(&world, ALL[1]).await?.as_deref() == Some("berth.dev/membership"));
    let (wire, start) = (world.lab.watch()?, Instant::now());
    let asker = world.lab.ask(web, ASK)?;

    // Whoever is to go by the Lease waits and says how to get there.
    world.start_announcer_with(NODES, env([("vip_leaderelection", "true")])).await?;
    let process = world.announcer(&format!("node{NODES}"))?;
    says(process, &["nothing is served by a Lease", "delete lease berth-membership"]).await?;

    // The Lease of one Service, then that of all, in the hands of a stranger who renews it.
    let left = async |since: Instant, addresses: &[IpAddr]| {
        for address in addresses {
            held_by(&world, *address, 0).await?;
        }
        pauses::within("left to a stranger after", since.elapsed(), TAKEOVER, since)
    };
    let begun = Instant::now();
    hold(&world, "default", "kubevip-web", STOCK, 3600).await?;
    left(begun, &[web]).await?;
    ensure!(world.holders(other)?.len() == 1, "{}", world.logs());
    event(&world, "web", "LeftToLease", &["default/kubevip-web", STOCK]).await?;
    hold(&world, "default", "kubevip-web", "", 1).await?;
    held_by(&world, web, 1).await?;
    let begun = Instant::now();
    hold(&world, ALL[0], ALL[1], STOCK, 5).await?;
    left(begun, &[web, other]).await?;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        hold(&world, ALL[0], ALL[1], STOCK, 5).await?;
        ensure!(world.holders(web)?.is_empty(), "beside the Lease's holder\n{}", world.logs());
    }
    // It has crashed: its Lease runs out.
    for address in [web, other] {
        held_by(&world, address, 1).await?;
    }
    eventually("the members hold the Lease again", 30, || async {
        Ok((holder(&world, ALL[1]).await?.as_deref() == Some("berth.dev/membership")).then_some(()))
    })
    .await?;
    asker.finish()?;
    one_at_a_time(&world, &wire, web, start)?;

    // It is never free while a member lives; the last one gives it back.
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), ALL[0]);
    let parameters = WatchParams::default().fields(&format!("metadata.name={}", ALL[1]));
    let version = leases.get(ALL[1]).await?.metadata.resource_version.unwrap_or_default();
    let mut events = leases.watch(&parameters, &version).await?.boxed();
    let holders = tokio::spawn(async move {
        let mut holders = Vec::new();
        while let Some(Ok(WatchEvent::Modified(lease))) = events.next().await {
            let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            holders.push(holder.clone());
            if holder.is_empty() {
                break;
            }
        }
        holders
    });
    for node in 0..NODES - 1 {
        world.announcer(&format!("node{node}"))?.terminate(Duration::from_secs(15))?;
    }
    eventually("the one that is left renews it", 20, || async {
        let lease = leases.get(ALL[1]).await?;
        let noted = lease.metadata.annotations.unwrap_or_default();
        Ok((!noted.contains_key("berth.dev/leaving")).then_some(()))
    })
    .await?;
    ensure!(!holders.is_finished(), "the Lease was free\n{}", world.logs());
    world.announcer(&format!("node{}", NODES - 1))?.terminate(Duration::from_secs(15))?;
    let holders = tokio::time::timeout(Duration::from_secs(10), holders).await??;
    ensure!(holders.last().is_some_and(String::is_empty), "{holders:?}\n{}", world.logs());
    world.lab.down()
}

/// Two hosts of one name are one voter, and one holder of any Lease, to everybody: the second one waits, until the first has
/// been gone for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_of_one_name_serves_nothing_and_says_whose_name_it_is() -> Result<()> {
    const FIRST: &str = "node0";
    let mut world = World::without_berth(3, env([])).await?;
    world.pools(json!({ "range-global": berth_e2e::world::POOL })).await?;
    world.start_ccm().await?;
    world.start_announcer(0).await?;
    world.deploy("default", "hello", 1)?;
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await?[0];
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    let (wire, asker, start) = (world.lab.watch()?, world.lab.ask(address, ASK)?, Instant::now());

    world.start_announcer_with(1, env([("vip_nodename", FIRST)])).await?;
    let own = world.lab.node(0).addresses().lan.v4.to_string();
    let words = [own.as_str(), "goes by the name of this node, node0", "vip_nodename"];
    says(world.announcer("node1")?, &words).await?;
    let ready = ["curl", "--silent", "http://127.0.0.1:2112/readyz"];
    let ready = world.lab.node(1).place()?.exec(ready)?;
    ensure!(words.iter().all(|word| ready.contains(word)), "{ready}");
    tokio::time::sleep(PATIENCE).await;
    ensure!(world.holders(address)? == [FIRST], "{}", world.logs());

    // Started anew it finds its own name.
    world.announcer(FIRST)?.kill()?;
    world.start_announcer(0).await?;
    says(world.announcer(FIRST)?, &["holding address="]).await?;
    ensure!(world.holders(address)? == [FIRST], "{}", world.logs());
    one_at_a_time(&world, &wire, address, start)?;

    world.announcer(FIRST)?.terminate(Duration::from_secs(15))?;
    eventually("the second has the name", 90, || async {
        Ok((world.holders(address)? == ["node1"]).then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    one_at_a_time(&world, &wire, address, start)?;
    asker.finish()?;
    world.lab.down()
}
