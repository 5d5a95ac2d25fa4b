//! Reports of kube-vip's users about `svc_election=true`, done to kube-vip and to Berth in its place: as kube-vip is set, and as
//! `manifests/` are.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::pauses;
use berth_e2e::place::sibling_program;
use berth_e2e::stock::Stock;
use berth_e2e::world::{ADDRESSES, Env, HOST, addresses_of, annotated, curl, env, eventually};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::halves::{Halves, NODES, Ours, Side};
use crate::seen::{Ears, seconds};
use crate::told::Told;

/// A Lease of five seconds that others look at once a second, and the time to act.
const BY_LEASE: Duration = Duration::from_secs(8);
/// Whoever is to let an address go has done so by then.
const SETTLED: Duration = Duration::from_secs(10);
/// An owner is without the API server for so long: three Leases.
const AWAY: Duration = Duration::from_secs(15);
/// So many Services, as the reporter had.
const MANY: usize = 150;

/// What is done, and who reported it.
pub(crate) const REPORTS: [&str; 5] = [
    "#590: a Service is deleted; its Leases 10 s later",
    "#577: six Services of one address, its announcer ends and begins; nodes that have it 10 s later",
    "#1775: `Local`, its only endpoint on one node, none, another, eight times in 10 s; nodes that have its address 10 s later",
    "#996: the owner loses the API server for 15 s; nodes that have the address 10 s later, and two answering",
    "#563: 150 Services, all of one node, which crashes; until others have all, how many answer then, requests held back",
];

/// One system, under the same five.
pub(crate) struct Sort {
    pub(crate) name: &'static str,
    side: Side,
    ours: Ours,
}

/// All of them.
pub(crate) const SORTS: [Sort; 3] = [
    Sort { name: "kube-vip", side: Side::Stock, ours: Ours::Membership },
    Sort { name: "Berth, `svc_election`", side: Side::Berth, ours: Ours::Leases },
    Sort { name: "Berth, membership", side: Side::Berth, ours: Ours::Membership },
];

/// What was seen, and of what is ours whether it is right.
type Seen = (String, Result<()>);

fn theirs() -> Env {
    env([("svc_election", "true")])
}

/// Writes down what was seen of a report.
fn note(told: &mut Told, report: usize, sort: usize, (figure, judged): Seen) {
    let Sort { name, side, .. } = SORTS[sort];
    let what = format!("{name}, {}", REPORTS[report]);
    eprintln!("{what}: {figure}");
    let word = told.word(&what, side == Side::Berth, judged);
    told.reports.push((report, sort, format!("{figure} ({word})")));
}

/// Those of few Services, one after the other in one world.
pub(crate) async fn few(stock: &Stock, sort: usize, told: &mut Told) -> Result<()> {
    let Sort { side, ours, .. } = SORTS[sort];
    let mut halves = Halves::up(stock, side, ours, &theirs()).await?;
    let left = seen(lease_left(&halves).await, &halves);
    note(told, 0, sort, left);
    let shared = one_address(&mut halves).await;
    note(told, 1, sort, seen(shared, &halves));
    let moved = seen(endpoints_that_move(&halves).await, &halves);
    note(told, 2, sort, moved);
    let away = seen(owner_away(&halves).await, &halves);
    note(told, 3, sort, away);
    halves.down()
}

/// With what all programs said where it is not right.
fn seen(result: Result<Seen>, halves: &Halves) -> Seen {
    let (figure, judged) = result.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ("did not end".to_owned(), Err(error))
    });
    (figure, judged.with_context(|| halves.logs()))
}

/// The address of a Service with one family, once it is answered.
async fn served(halves: &Halves, name: &str) -> Result<IpAddr> {
    eventually(&format!("{name} is served"), 60, || async {
        let address = annotated(&halves.world.service(name).await?).first().copied();
        Ok(address.filter(|address| halves.world.curl(*address).is_ok()))
    })
    .await
    .with_context(|| halves.logs())
}

async fn lease_left(halves: &Halves) -> Result<Seen> {
    halves.world.expose("left", json!({})).await?;
    served(halves, "left").await?;
    halves.world.delete("left").await?;
    tokio::time::sleep(SETTLED).await;
    let leases = halves.leases("kubevip-left").await?;
    Ok((leases.len().to_string(), none_of(&leases)))
}

fn none_of<T: std::fmt::Debug>(left: &[T]) -> Result<()> {
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

async fn one_address(halves: &mut Halves) -> Result<Seen> {
    const SHARED: &str = "10.0.64.200";
    let address: IpAddr = SHARED.parse()?;
    let names: Vec<_> = (0..6).map(|number| format!("shared-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let object = json!({
            "metadata": { "name": name, "annotations": { ADDRESSES: SHARED } },
            "spec": {
                "type": "LoadBalancer", "selector": { "app": "hello" },
                "ports": [{ "port": 80 + number, "targetPort": 8080 }],
            },
        });
        halves.world.create(object).await?;
    }
    eventually("it is answered", 40, || async { Ok(halves.world.curl(address).ok()) }).await?;
    let holder = *halves.holders(address)?.first().context("nobody has it")?;
    let side = halves.announces(holder).context("nobody announces there")?;
    halves.announce(holder, side).await?;
    tokio::time::sleep(SETTLED).await;
    let holders = halves.holders(address)?.len();
    let mut hosts = BTreeSet::new();
    for name in &names {
        hosts.extend(halves.world.service(name).await?.annotations().get(HOST).cloned());
        halves.world.delete(name).await?;
    }
    let judged = match (holders, hosts.len()) {
        (1, 1) => Ok(()),
        _ => Err(anyhow::anyhow!("on {holders} nodes, of {hosts:?}")),
    };
    Ok((format!("{holders}, {} named", hosts.len()), judged))
}

async fn endpoints_that_move(halves: &Halves) -> Result<Seen> {
    const NAME: &str = "churn";
    let echo = sibling_program("echo", "BERTH_ECHO")?.display().to_string();
    for node in 0..2 {
        halves.world.lab.node(node).place()?.start("echo", [echo.clone()])?;
    }
    let spec = json!({ "selector": Value::Null, "externalTrafficPolicy": "Local" });
    halves.world.expose(NAME, spec).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(halves.world.client.clone(), "default");
    let place = async |node: Option<usize>| -> Result<()> {
        let endpoint = |node: usize| {
            json!({
                "addresses": [halves.world.lab.node(node).addresses().lan.v4],
                // All, as of Kubernetes' own controller: kube-vip 1.2.3 ends where `serving` is left out, which the API allows.
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": halves.world.lab.node(node).name(),
            })
        };
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": NAME, "labels": { "kubernetes.io/service-name": NAME } },
            "addressType": "IPv4", "ports": [{ "port": 8080, "protocol": "TCP" }],
            "endpoints": node.map(endpoint).into_iter().collect::<Vec<_>>(),
        });
        let by = PatchParams::apply("test").force();
        slices.patch(NAME, &by, &Patch::Apply(&slice)).await?;
        Ok(())
    };
    place(Some(0)).await?;
    let address = served(halves, NAME).await?;
    for round in 0..8 {
        place(None).await?;
        tokio::time::sleep(Duration::from_millis(600)).await;
        place(Some((round + 1) % 2)).await?;
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    tokio::time::sleep(SETTLED).await;
    let (holders, answers) = (halves.holders(address)?, halves.world.curl(address).is_ok());
    halves.world.delete(NAME).await?;
    let word = if answers { "answers" } else { "does not answer" };
    let judged = match (&holders[..], answers) {
        ([0], true) => Ok(()),
        _ => Err(anyhow::anyhow!("nodes {holders:?} have {address}, it {word}")),
    };
    Ok((format!("{}, {word}", holders.len()), judged))
}

async fn owner_away(halves: &Halves) -> Result<Seen> {
    halves.world.expose("away", json!({})).await?;
    let address = served(halves, "away").await?;
    let ears = Ears::open(halves, &[address]).await?;
    let owner = *halves.holders(address)?.first().context("nobody has it")?;
    halves.world.lab.cut(owner, Net::Api)?;
    tokio::time::sleep(AWAY).await;
    halves.world.lab.heal(owner, Net::Api)?;
    tokio::time::sleep(SETTLED).await;
    let holders = halves.holders(address)?.len();
    let heard = ears.close()?;
    let judged = heard.one_at_a_time().and_then(|()| {
        ensure!(holders == 1, "{holders} nodes have {address}");
        heard.answered_within(BY_LEASE)
    });
    Ok((format!("{holders}, {}", seconds(heard.together)), judged))
}

/// All Services are one node's, which crashes.
pub(crate) async fn many(stock: &Stock, sort: usize, told: &mut Told) -> Result<()> {
    let Sort { side, ours, .. } = SORTS[sort];
    let mut halves = Halves::new(stock, ours, &theirs()).await?;
    halves.allocate(side).await?;
    halves.start(0, side).await?;
    let create = |number: usize| {
        let world = &halves.world;
        async move { world.expose(&format!("web-{number}"), json!({})).await.map(drop) }
    };
    let created = stream::iter((0..MANY).map(create)).buffer_unordered(8);
    created.try_collect::<Vec<()>>().await?;
    let pool = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[2] == 64);
    let held = |nodes: &[usize]| -> Result<BTreeSet<IpAddr>> {
        let each = nodes.iter().map(|node| addresses_of(halves.world.lab.node(*node)));
        let all = each.collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().filter(pool).collect())
    };
    let addresses = eventually("the first node has all", 300, || async {
        let held = held(&[0])?;
        Ok((held.len() == MANY).then_some(held))
    })
    .await
    .with_context(|| halves.logs())?;
    for node in 1..NODES {
        halves.start(node, side).await?;
    }
    halves.settled().await?;
    tokio::time::sleep(SETTLED).await;

    let begun = Instant::now();
    halves.world.lab.crash(0)?;
    let others: Vec<_> = (1..NODES).collect();
    let held = |nodes: &[usize]| -> Result<usize> {
        let each = nodes.iter().map(|node| addresses_of(halves.world.lab.node(*node)));
        let all = each.collect::<Result<Vec<_>>>()?;
        Ok(all.iter().flatten().filter(|address| addresses.contains(address)).count())
    };
    let taken =
        eventually("others have all", 90, || async { Ok((held(&others)? == MANY).then_some(())) })
            .await;
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ask = |address: IpAddr| {
        let outside = halves.world.lab.outside();
        async move { tokio::task::spawn_blocking(move || curl(&outside, address).is_ok()).await }
    };
    let asked = stream::iter(addresses.iter().copied().map(ask)).buffer_unordered(16);
    let answered = asked.try_collect::<Vec<_>>().await?.into_iter().filter(|ok| *ok).count();
    let mut held_back = 0;
    for node in &others {
        let log = halves.announcer(*node)?.log_text();
        held_back += log.lines().filter(|line| line.contains("throttling")).count();
    }
    let figure = match &taken {
        Ok(()) => format!("{}, {answered}, {held_back}", seconds(took)),
        Err(_) => {
            format!("{} of {MANY} after {}, {answered}, {held_back}", held(&others)?, seconds(took))
        }
    };
    let judged = taken.and_then(|()| {
        ensure!(answered == MANY && held_back == 0, "{figure}");
        pauses::within("150 Services taken over after", took, BY_LEASE, begun)
    });
    note(told, 4, sort, (figure, judged.with_context(|| halves.logs())));
    halves.down()
}
