//! Membership and the Lease that stands in for it: one of both decides, whatever becomes of the key and of the right to it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::membership;
use berth_e2e::process::Process;
use berth_e2e::wire::Watch;
use berth_e2e::world::{World, env, eventually, kubectl, repository};
use serde_json::{Value, json};

use crate::scene::{ASK, PATIENCE, disputed};

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

async fn says(process: &Process, words: &[&str]) -> Result<()> {
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

fn one_at_a_time(world: &World, wire: &Watch, address: IpAddr, start: Instant) -> Result<()> {
    let record = wire.so_far();
    let spans = record.spans(address);
    ensure!(!disputed(&record.since(address, start)), "{spans:?}\n{}", world.logs());
    Ok(())
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
    let restore = move |world: &World| kubectl(&world.lab, &["create", "-f", &file]).map(drop);
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
    asker.finish()?;
    one_at_a_time(&world, &wire, address, start)?;
    world.lab.down()
}
