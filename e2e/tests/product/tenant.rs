//! Somebody with edit rights in one namespace writes at random what the API takes, and much that it does not. Nothing of
//! anybody else changes its owner, loses a packet or a claim; nor does a node, or the LAN's router.
//!
//! `BERTH_SEED` repeats a run; `BERTH_SOAK=1` makes 10,000 edits, and goes on more slowly for an hour, or for
//! `BERTH_TENANT_SECONDS`.

mod edits;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Mac, Net, mac, node_host, router};
use berth_e2e::get::get;
use berth_e2e::lab::Lab;
use berth_e2e::membership;
use berth_e2e::pauses;
use berth_e2e::place::Place;
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::wire::{Record, disputed};
use berth_e2e::world::{World, env, eventually, ingress, kubectl};
use kube::api::ListParams;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use self::edits::Tenant;
use crate::claims::{PORT, second_address};
use crate::is_soak;
use crate::scene::{ASK, CLIENT};
use crate::shown::GAP;

const NODES: usize = 2;
const EDITS: usize = 250;
const LONG: usize = 10_000;
/// After so many edits what it shows is looked at.
const LOOK: usize = 5;
/// How long it goes on in the long form, and its pause between edits after so many.
const HOUR: Duration = Duration::from_secs(3600);
const LEISURE: Duration = Duration::from_millis(50);
/// The pause between edits at first.
const PAUSE: Duration = Duration::from_millis(30);
/// Most addresses that it may hold.
const QUOTA: usize = 8;
const POOL: &str = "10.0.64.1-10.0.64.60,fd00:10::4001-fd00:10::4030";
const EVERY: Duration = Duration::from_millis(20);
/// How long an announcer publishes nobody of a namespace that took a port of another, at first and at most.
const FIRST: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_secs(300);

/// Who may not be harmed: a Service each, of the global pool, of its own pool, and at an address that the tenant may share.
const OTHERS: [&str; 3] = ["alice", "bob", SHARES];
const SHARES: &str = "carol";
/// What carol's Deployment is called, and so what her pods answer.
const SHOP: &str = "shop";

/// A client of the lab's API server for another user than the administrator.
pub(crate) async fn client_as(lab: &Lab, change: impl Fn(&mut AuthInfo)) -> Result<Client> {
    let mut kubeconfig = Kubeconfig::read_from(lab.kubeconfig())?;
    for user in &mut kubeconfig.auth_infos {
        change(user.auth_info.as_mut().context("a user without credentials")?);
    }
    let options = KubeConfigOptions::default();
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await?)?)
}

/// What is somebody else's, and has to stay as it is.
#[derive(Debug, PartialEq, Eq)]
struct Theirs {
    /// By address, who holds the claim on it.
    claims: BTreeMap<String, String>,
    /// By Service, what its status shows.
    shown: BTreeMap<String, Vec<IpAddr>>,
}

async fn theirs(world: &World) -> Result<Theirs> {
    let mut claims = BTreeMap::new();
    for (address, claim) in world.claims().await? {
        let parent = claim.spec.context("a claim without a spec")?.parent_ref;
        let holder = format!("{}/{}", parent.namespace.unwrap_or_default(), parent.name);
        if !holder.starts_with("mallory/") {
            claims.insert(address, holder);
        }
    }
    let mut shown = BTreeMap::new();
    for namespace in OTHERS {
        for service in world.services(namespace).list(&ListParams::default()).await?.items {
            let name = service.metadata.name.clone().unwrap_or_default();
            shown.insert(format!("{namespace}/{name}"), ingress(&service));
        }
    }
    Ok(Theirs { claims, shown })
}

/// No status of the tenant's shows an address that a claim gives to another: kube-proxy would lead there what is that one's.
async fn shows_nothing_of_others(world: &World) -> Result<()> {
    // The claims first: what is shown later and was another's before is so still.
    let claims = world.claims().await?;
    for service in world.services("mallory").list(&ListParams::default()).await?.items {
        let uid = service.metadata.uid.clone().unwrap_or_default();
        for address in ingress(&service) {
            let Some(claim) = claims.get(&address.to_string()) else { continue };
            let holders = format!("{:?}", claim.metadata.annotations);
            ensure!(
                holders.contains(&uid),
                "{:?} shows {address}, which is {holders}\n{}",
                service.metadata.name,
                world.logs()
            );
        }
    }
    Ok(())
}

/// Takes off what the tenant holds its objects by, so that they can be deleted.
fn let_go(world: &World) -> Result<()> {
    for kind in ["services", "eipbindings"] {
        let list = ["get", kind, "-n", "mallory", "-o", "name"];
        for name in kubectl(&world.lab, &list)?.lines() {
            let patch = r#"{"metadata":{"finalizers":null}}"#;
            let patched =
                kubectl(&world.lab, &["patch", name, "-n", "mallory", "--type=merge", "-p", patch]);
            // One that was on its way may be gone by then.
            patched.map(drop).unwrap_or_default();
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_writes_at_random_changes_nothing_of_anybody_else() -> Result<()> {
    let mut world = World::without_berth(NODES + 1, env([("berth_claims", "required")])).await?;
    let second = second_address(&world)?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    let pools = json!({
        "range-global": POOL, "range-alice": "10.0.65.1-10.0.65.9", "quota-mallory": QUOTA.to_string(),
        "range-carol": "10.0.65.11-10.0.65.19", "allow-share-carol": "true",
        "share-with-carol": "mallory", "share-with-mallory": "carol",
        // What it gives back is soon another's.
        "reuse-delay": "1s",
    });
    world.pools(pools).await?;
    world.start_ccm().await?;
    kubectl(&world.lab, &["create", "namespace", "mallory"])?;
    world.deploy("mallory", "hello", 1)?;
    let mut addresses = Vec::new();
    for namespace in OTHERS {
        kubectl(&world.lab, &["create", "namespace", namespace])?;
        let name = if namespace == SHARES { SHOP } else { "hello" };
        world.deploy(namespace, name, 1)?;
        let service = json!({
            "metadata": { "name": "web", "namespace": namespace },
            "spec": {
                "type": "LoadBalancer", "selector": { "app": name },
                "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        });
        world.create(service).await?;
        let shown = || async {
            let service = world.services(namespace).get("web").await?;
            let shown = ingress(&service).first().copied();
            Ok(shown.filter(|address| world.curl(*address).is_ok()))
        };
        addresses
            .push(eventually("it is answered", 20, shown).await.with_context(|| world.logs())?);
    }
    eventually("all nodes take part", 30, || async {
        Ok(membership::is_settled(&world, NODES).await?.then_some(()))
    })
    .await?;
    let gateway = IpAddr::V4(router().v4);
    let before = theirs(&world).await?;
    ensure!(before.claims.len() == OTHERS.len(), "{before:?}");

    let (wire, start) = (world.lab.watch()?, Instant::now());
    let outside = world.lab.outside();
    let mut probes = vec![(
        second,
        Probe::start(&outside, (second, PORT).into(), EVERY, Manner::NewConnections)?,
    )];
    let (shared, alone) = addresses.split_last().context("no address")?;
    for address in alone {
        let probe = Probe::start(&outside, (*address, 80).into(), EVERY, Manner::NewConnections)?;
        probes.push((*address, probe));
    }
    let asked = [second, gateway].into_iter().chain(addresses.iter().copied());
    let askers = asked.map(|address| world.lab.ask(address, ASK)).collect::<Result<Vec<_>>>()?;

    let nodes = (0..=NODES).map(|node| format!("10.0.0.{}", node_host(node)));
    let targets = [second, gateway].into_iter().chain(addresses.iter().copied());
    let targets: Vec<String> = targets.map(|address| address.to_string()).chain(nodes).collect();
    let mut tenant = Tenant::of(&world, targets).await?;
    let (edits, lasts) = if is_soak() { (LONG, long()?) } else { (EDITS, Duration::ZERO) };
    let resident = resident(&world)?;
    let mut drawn = Drawn::default();
    for number in 0.. {
        if number >= edits {
            if start.elapsed() >= lasts {
                break;
            }
            tokio::time::sleep(LEISURE).await;
        }
        tokio::time::sleep(PAUSE).await;
        tenant.edit().await?;
        if number % LOOK == LOOK - 1 {
            shows_nothing_of_others(&world).await?;
            drawn.look(&outside, *shared);
        }
        if number % 250 == 249 {
            grown_little(&world, &resident, number)?;
            let now = theirs(&world).await?;
            ensure!(
                now == before,
                "after {number} edits {now:?}, not {before:?}\n{}",
                world.logs()
            );
        }
    }
    println!("{:?} in {:.0?}, {drawn:?}", tenant.answers, start.elapsed());
    drawn.judge(start.elapsed()).with_context(|| world.logs())?;
    ensure!(tenant.answers.get("taken").is_some_and(|taken| *taken > 20), "{:?}", tenant.answers);
    tenant.keep_all().await?;
    // What is still under way shows within a few seconds.
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        shows_nothing_of_others(&world).await?;
    }

    let now = theirs(&world).await?;
    ensure!(now == before, "{now:?}, not {before:?}\n{}", world.logs());
    let claims = world.claims().await?.len();
    ensure!(claims <= before.claims.len() + QUOTA, "{claims} claims\n{}", world.logs());
    ensure!(world.holders(second)? == ["node1"], "{}", world.logs());
    for (address, probe) in probes {
        let report = probe.finish()?;
        let told = || format!("{address}: {report:?}\n{}", world.logs());
        report.answered_within(CLIENT).with_context(told)?;
    }
    askers.into_iter().try_for_each(|asker| asker.finish().map(drop))?;
    let record = wire.finish()?;
    judge(&world, &record, &addresses, start)?;
    let macs: Vec<Mac> = (0..=NODES).map(|node| mac(Net::Lan, node_host(node))).collect();
    let spoke = record.0.iter().any(|s| s.address == gateway && macs.contains(&s.mac));
    ensure!(!spoke, "a node answers for the router\n{}", world.logs());
    let others = record.0.iter().any(|s| s.address == second && s.mac != macs[1]);
    ensure!(!others, "another answers for the address of node1\n{}", world.logs());

    // It is rid of everything: nothing is left of it.
    let all = ["delete", "services,eipbindings", "--all", "-n", "mallory", "--wait=false"];
    kubectl(&world.lab, &all)?;
    let_go(&world)?;
    eventually("no claim of it is left", 60, || async {
        Ok((world.claims().await?.len() == before.claims.len()).then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    world.lab.down()
}

/// What became of requests to the address that is shared, at the port of who had it first.
#[derive(Debug, Default)]
struct Drawn {
    looks: u32,
    /// How many nobody answered, or a pod of another.
    astray: u32,
}

impl Drawn {
    fn look(&mut self, outside: &Place, address: IpAddr) {
        let answer = get(outside, SocketAddr::new(address, 80), "/", Duration::from_secs(1));
        self.looks += 1;
        self.astray += u32::from(!answer.is_ok_and(|body| body.starts_with(SHOP)));
    }

    /// Each time that the tenant takes the port it draws what comes for so long, and it waits twice as long for the next.
    fn judge(&self, took: Duration) -> Result<()> {
        let (mut times, mut pause) = (1, FIRST);
        let mut waited = pause;
        while waited < took {
            times += 1;
            pause = (pause * 2).min(LAST);
            waited += pause;
        }
        let (share, most) = (
            f64::from(self.astray) / f64::from(self.looks),
            (GAP * times).as_secs_f64() / took.as_secs_f64(),
        );
        ensure!(self.looks > 0 && share <= most, "{self:?}: {share:.3}, not {most:.3}");
        Ok(())
    }
}

fn long() -> Result<Duration> {
    match std::env::var("BERTH_TENANT_SECONDS") {
        Ok(seconds) => Ok(Duration::from_secs(seconds.parse().context("BERTH_TENANT_SECONDS")?)),
        Err(_) => Ok(HOUR),
    }
}

/// By program, how much memory it has resident, in bytes.
fn resident(world: &World) -> Result<BTreeMap<String, u64>> {
    let announcers = world.announcers().map(|(node, process)| (node.to_owned(), process));
    let all = announcers.chain([("berth-ccm".to_owned(), world.ccm()?)]);
    all.map(|(name, process)| Ok((name, process.resident_bytes()?))).collect()
}

/// No program has more than half as much again as at first.
fn grown_little(world: &World, first: &BTreeMap<String, u64>, edits: usize) -> Result<()> {
    let now = resident(world)?;
    let grown = now.iter().find(|(name, bytes)| **bytes * 2 > first[*name] * 3);
    ensure!(grown.is_none(), "after {edits} edits {now:?}, not {first:?} bytes\n{}", world.logs());
    Ok(())
}

/// Nobody took an address, and no two answered for one.
fn judge(world: &World, record: &Record, addresses: &[IpAddr], since: Instant) -> Result<()> {
    let pauses = pauses::so_far();
    for address in addresses {
        let moves = record.moves(*address, since);
        let unexcused: Vec<_> = moves.iter().filter(|moved| !moved.is_excused(&pauses)).collect();
        ensure!(unexcused.is_empty(), "{address}: {unexcused:?}\n{}", world.logs());
        let said = record.since(*address, since);
        ensure!(!said.is_empty() && !disputed(&said), "{address}\n{}", world.logs());
    }
    Ok(())
}
