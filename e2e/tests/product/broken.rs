//! No silence: in a world that is broken at random each object that was given an address either answers, or says why not in
//! exactly one condition, with the one right reason, soon. Judged by what the API server shows and the network answers.
//! `BERTH_SEED` repeats a run; `BERTH_SOAK=1` takes twenty worlds, and all ways to decide on owners.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::world::{
    ADDRESSES, Env, HOST, POOL, World, by_lease, env, eventually, ingress, kubectl,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::Api;
use serde_json::{Value, json};

use crate::allocation_under_fire::random;
use crate::is_soak;

/// How soon it is told what an announcer or the API server can know, and what only berth-ccm can: that no announcer lives.
const SOON: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
/// It stays so.
const STAYS: Duration = Duration::from_secs(1);
/// How long a world has to mend.
const MENDED: u64 = 45;

/// The nodes with an announcer. One more has the pods.
const NODES: usize = 3;

const CONDITIONS: [&str; 2] = ["berth.dev/AddressAllocated", "berth.dev/Announced"];

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoEndpoint,
    NoLiveNode,
    NoInterface,
    InvalidVlan,
    Dhcp,
    NoPool,
    /// No announcer hears another one.
    Firewall,
    /// One lives, and is no majority.
    Alone,
    /// No announcer has a carrier.
    Unplugged,
    /// No announcer lives.
    Gone,
}

use Fault::*;

impl Fault {
    /// What tells of it, of a Service that was there before and of one that comes then; nothing where it answers.
    fn right(self, by_lease: bool) -> [Option<&'static [&'static str]>; 2] {
        let both = |reasons: &'static [&'static str]| [Some(reasons), Some(reasons)];
        match self {
            NoEndpoint => both(&["NoEndpoint"]),
            // Who holds the one Lease says so of itself.
            NoLiveNode if by_lease => both(&["NoLiveNode", "NoLocalEndpoint"]),
            NoLiveNode => both(&["NoLiveNode"]),
            NoInterface => both(&["InterfaceMissing"]),
            InvalidVlan => both(&["InvalidVlan"]),
            Dhcp => both(&["DhcpNotServed"]),
            NoPool => [None, Some(&["NoPool"])],
            Firewall | Alone => both(&["NotGranted"]),
            Unplugged => both(&["InterfaceUnfit"]),
            Gone => both(&["NoAnnouncer"]),
        }
    }

    fn within(self) -> Duration {
        if self == Gone { MINUTE } else { SOON }
    }

    /// What it is about one Service: merged into it.
    fn patch(self) -> Value {
        match self {
            NoEndpoint => json!({ "spec": { "selector": { "app": "nobody" } } }),
            NoLiveNode => json!({ "spec": { "externalTrafficPolicy": "Local" } }),
            NoInterface => noted("kube-vip.io/serviceInterface", "eth9"),
            InvalidVlan => noted("kube-vip.io/serviceVLAN", "5000"),
            Dhcp => noted(ADDRESSES, "0.0.0.0,::"),
            _ => json!({}),
        }
    }

    fn is_of_one(self) -> bool {
        self.patch() != json!({})
    }
}

fn noted(name: &str, value: &str) -> Value {
    json!({ "metadata": { "annotations": { name: value } } })
}

/// A Service of both families, with what the fault is about.
fn service(name: &str, fault: Option<Fault>) -> Value {
    let mut object = json!({
        "metadata": { "name": name, "annotations": {} },
        "spec": {
            "type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack",
            "selector": { "app": "hello" }, "ports": [{ "port": 80, "targetPort": 8080 }],
        },
    });
    for part in ["metadata", "spec"] {
        let more = fault.map(|fault| fault.patch()[part].clone()).unwrap_or_default();
        for (key, value) in more.as_object().into_iter().flatten() {
            object[part][key] = value.clone();
        }
    }
    object
}

/// The conditions that are false, by reason.
fn said(service: &Service) -> Vec<String> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    let silent = conditions
        .into_iter()
        .flatten()
        .filter(|shown| CONDITIONS.contains(&&*shown.type_) && shown.status == "False");
    silent.map(|shown| shown.reason.clone()).collect()
}

/// Whether all that it was given answers.
fn answers(world: &World, service: &Service) -> bool {
    let shown = ingress(service);
    shown.len() == 2 && shown.iter().all(|address| world.curl(*address).is_ok())
}

/// Waits until one Service says the right thing, and sees that it goes on. Gives when it began to.
async fn judge(
    world: &World,
    name: &str,
    right: Option<&[&str]>,
    since: Instant,
    within: Duration,
) -> Result<Duration> {
    let mut first: Option<Instant> = None;
    loop {
        let service = world.service(name).await?;
        let told = said(&service);
        let is_right = match right {
            Some(reasons) => matches!(&told[..], [reason] if reasons.contains(&&**reason)),
            None => told.is_empty() && answers(world, &service),
        };
        match (is_right, first) {
            (true, None) => first = Some(Instant::now()),
            (true, Some(at)) if at.elapsed() >= STAYS => return Ok(at - since),
            (true, Some(_)) => {}
            (false, _) => first = None,
        }
        if first.is_none_or(|at| at - since > within) && since.elapsed() > within {
            bail!("{name} says {told:?} after {:.1?}, and right is {right:?}", since.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One world that is broken again and again.
struct Stage {
    world: World,
    name: &'static str,
    is_by_lease: bool,
    frozen: Vec<String>,
}

impl Stage {
    async fn up(name: &'static str, announcers: Env) -> Result<Self> {
        let is_by_lease = !announcers.is_empty();
        let world = World::up(NODES, announcers).await?;
        world.create(service("old", None)).await?;
        world.published("old", 2).await?;
        let stage = Self { world, name, is_by_lease, frozen: Vec::new() };
        stage.settle().await?;
        Ok(stage)
    }

    fn on_all(&self, argv: &[&str]) -> Result<()> {
        (0..NODES).try_for_each(|node| self.world.lab.node(node).exec(argv).map(drop))
    }

    fn freeze(&mut self, node: &str) -> Result<()> {
        self.frozen.push(node.to_owned());
        self.world.announcer(node)?.freeze()
    }

    /// What does no harm: nodes are cordoned, and one announcer of three hangs.
    fn disturb(&mut self, random: &mut fastrand::Rng) -> Result<()> {
        let names: Vec<String> =
            (0..NODES).map(|node| self.world.lab.node(node).name().to_owned()).collect();
        for name in names.iter().filter(|_| random.bool()) {
            kubectl(&self.world.lab, &["cordon", name])?;
        }
        if random.bool() && !self.is_by_lease {
            self.freeze(&names[random.usize(..NODES)])?;
        }
        Ok(())
    }

    async fn damage(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Firewall => {
                let rules = "add table inet deaf; \
                             add chain inet deaf in { type filter hook input priority -300; policy accept; }; \
                             add rule inet deaf in udp dport 2113 drop";
                self.on_all(&["nft", rules])?;
            }
            Alone => {
                let owner = self.world.host("old").await?;
                let names = self.world.announcers().map(|(node, _)| node.to_owned());
                let others: Vec<String> = names.filter(|node| *node != owner).collect();
                others.iter().try_for_each(|node| self.freeze(node))?;
            }
            Unplugged => (0..NODES).try_for_each(|node| self.world.lab.unplug(node, Net::Lan))?,
            NoPool => self.world.pools(json!({})).await?,
            Gone => self.world.announcers().try_for_each(|(_, process)| process.kill())?,
            NoEndpoint | NoLiveNode | NoInterface | InvalidVlan | Dhcp => {
                self.world.patch("old", fault.patch()).await?;
            }
        }
        Ok(())
    }

    async fn mend(&mut self, fault: Fault, addresses: &str) -> Result<()> {
        match fault {
            Firewall => self.on_all(&["nft", "delete table inet deaf"])?,
            Unplugged => (0..NODES).try_for_each(|node| self.world.lab.plug(node, Net::Lan))?,
            NoPool => self.world.pools(json!({ "range-global": POOL })).await?,
            Gone => {
                for node in 0..NODES {
                    self.world.start_announcer(node).await?;
                }
            }
            Alone | NoEndpoint | NoLiveNode | NoInterface | InvalidVlan | Dhcp => {}
        }
        for node in std::mem::take(&mut self.frozen) {
            self.world.announcer(&node)?.thaw()?;
        }
        for node in 0..NODES {
            kubectl(&self.world.lab, &["uncordon", self.world.lab.node(node).name()])?;
        }
        let right = json!({
            "metadata": { "annotations": {
                ADDRESSES: addresses, "kube-vip.io/serviceInterface": null, "kube-vip.io/serviceVLAN": null,
            } },
            "spec": { "selector": { "app": "hello" }, "externalTrafficPolicy": "Cluster" },
        });
        if fault.is_of_one() {
            self.world.patch("old", right).await?;
        }
        self.world.delete("new").await
    }

    /// Breaks it, judges it, and mends it.
    async fn play(
        &mut self,
        number: usize,
        fault: Fault,
        random: &mut fastrand::Rng,
    ) -> Result<()> {
        let addresses = self.world.service("old").await?.annotations()[ADDRESSES].clone();
        if fault.is_of_one() {
            self.disturb(random)?;
        }
        let start = Instant::now();
        self.damage(fault).await?;
        let made = Instant::now();
        self.world.create(service("new", Some(fault))).await?;
        let ([old, new], within) = (fault.right(self.is_by_lease), fault.within());
        let (old, new) = tokio::join!(
            judge(&self.world, "old", old, start, within),
            judge(&self.world, "new", new, made, within),
        );
        let broken =
            || format!("world {number}, {}, {fault:?}, frozen {:?}", self.name, self.frozen);
        let (old, new) = (old.with_context(broken)?, new.with_context(broken)?);
        let message = self.message("new").await?;
        self.mend(fault, &addresses).await?;
        let mended = Instant::now();
        eventually("what was broken answers again, and says so", MENDED, || async {
            let service = self.world.service("old").await?;
            let is_gone = self.world.services("default").get_opt("new").await?.is_none();
            Ok((is_gone && said(&service).is_empty() && answers(&self.world, &service))
                .then_some(()))
        })
        .await
        .with_context(|| format!("after {fault:?}"))?;
        let took = mended.elapsed();
        self.settle().await?;
        println!(
            "{number:2} {:8} {fault:?}: told in {old:.1?} where it had answered, {new:.1?} where it was new; mended in {:.1?}; {message}",
            self.name, took
        );
        Ok(())
    }

    /// Waits until all members vote again: of fewer voters one that hangs may be a majority.
    async fn settle(&self) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.world.client.clone(), "kube-system");
        let voters = || async {
            let lease = leases.get("berth-membership").await?;
            let view: Value = serde_json::from_str(&lease.annotations()["berth.dev/view"])?;
            let count = view["voters"].as_array().map_or(0, Vec::len);
            Ok((count == NODES).then_some(()))
        };
        match self.is_by_lease {
            true => Ok(()),
            false => eventually("all members vote", MENDED, voters).await,
        }
    }

    async fn message(&self, name: &str) -> Result<String> {
        let service = self.world.service(name).await?;
        let conditions = service.status.and_then(|status| status.conditions).unwrap_or_default();
        let told = conditions.into_iter().find(|shown| shown.status == "False");
        Ok(told.map(|shown| format!("{}: {}", shown.reason, shown.message)).unwrap_or_default())
    }
}

/// Plays `count` of these faults on a stage, each before any a second time.
async fn break_again_and_again(
    mut stage: Stage,
    faults: &[Fault],
    numbers: std::ops::Range<usize>,
    random: &mut fastrand::Rng,
) -> Result<()> {
    let mut order = Vec::new();
    for number in numbers {
        if order.is_empty() {
            order = faults.to_vec();
            random.shuffle(&mut order);
        }
        let fault = order.pop().context("no fault")?;
        let played = stage.play(number, fault, random).await;
        played.with_context(|| stage.world.logs())?;
    }
    ensure!(stage.world.host("old").await.is_ok(), "{HOST}");
    stage.world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_worlds_broken_at_random_each_service_answers_or_says_why_not_for_the_right_reason_and_soon()
-> Result<()> {
    let mut random = random();
    let of_all = [NoEndpoint, NoLiveNode, NoInterface, InvalidVlan, Dhcp, NoPool, Unplugged];
    let of_members = [&of_all[..], &[Firewall, Alone]].concat();
    if !is_soak() {
        let stage = Stage::up("members", env([])).await?;
        return break_again_and_again(stage, &of_members, 0..3, &mut random).await;
    }
    let everything = [&of_members[..], &[Gone]].concat();
    let members = Stage::up("members", env([])).await?;
    break_again_and_again(members, &everything, 0..11, &mut random).await?;
    let mut each = by_lease();
    each.extend(env([("svc_election", "true")]));
    let of_leases = [NoEndpoint, NoLiveNode, NoInterface, InvalidVlan, Dhcp, NoPool, Unplugged];
    let each = Stage::up("leases", each).await?;
    break_again_and_again(each, &of_leases, 11..16, &mut random).await?;
    let one = Stage::up("lease", by_lease()).await?;
    break_again_and_again(one, &of_leases, 16..20, &mut random).await
}
