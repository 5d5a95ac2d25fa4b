//! No silence: in a world that is broken at random each Service and each EipBinding that was given an address either answers,
//! or says why not in exactly one condition, with the one right reason, soon. Judged by what the API server shows and the
//! network answers. `BERTH_SEED` repeats a run; `BERTH_SOAK=1` takes twenty-five worlds, and all ways to decide on owners.

mod elastic;
mod fault;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::fault::Leftovers;
use berth_e2e::world::{
    ADDRESSES, Env, HOST, POOL, World, by_lease, env, eventually, ingress, kubectl,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::Api;
use serde_json::{Value, json};

use self::elastic::{Elastic, NODE};
use self::fault::{Fault, MINUTE};
use crate::allocation_under_fire::random;
use crate::is_soak;

/// It stays so.
const STAYS: Duration = Duration::from_secs(1);
/// How long a world has to mend.
const MENDED: u64 = 45;

/// The nodes with an announcer. One more has the pods.
const NODES: usize = 3;

const CONDITIONS: [&str; 2] = ["berth.dev/AddressAllocated", "berth.dev/Announced"];

use Fault::*;

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

/// What an object tells, and whether all that it was given answers: asked for only where that is to be, as who gets no answer
/// waits for one.
type Look = (Vec<String>, bool);

async fn look(world: &World, name: &str, is_to_answer: bool) -> Result<Look> {
    let service = world.service(name).await?;
    let told = said(&service);
    let answers = is_to_answer && told.is_empty() && answers(world, &service);
    Ok((told, answers))
}

/// Waits until one object says the right thing, and sees that it goes on. Gives when it began to.
async fn judge(
    name: &str,
    look: impl AsyncFn(bool) -> Result<Look>,
    right: Option<&[&str]>,
    since: Instant,
    within: Duration,
) -> Result<Duration> {
    let mut first: Option<Instant> = None;
    // What it told, since when.
    let mut history: Vec<(Duration, Vec<String>)> = Vec::new();
    loop {
        let (told, answers) = look(right.is_none()).await?;
        if history.last().is_none_or(|(_, last)| *last != told) {
            history.push((since.elapsed(), told.clone()));
        }
        let is_right = match right {
            Some(reasons) => matches!(&told[..], [reason] if reasons.contains(&&**reason)),
            None => told.is_empty() && answers,
        };
        match (is_right, first) {
            (true, None) => first = Some(Instant::now()),
            (true, Some(at)) if at.elapsed() >= STAYS => return Ok(at - since),
            (true, Some(_)) => {}
            (false, _) => first = None,
        }
        if first.is_none_or(|at| at - since > within) && since.elapsed() > within {
            bail!(
                "{name} says {history:.1?} until {:.1?}, and right is {right:?}",
                since.elapsed()
            );
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
    elastic: Elastic,
    /// The routes that were taken away.
    routes: Vec<String>,
}

impl Stage {
    async fn up(name: &'static str, announcers: Env) -> Result<Self> {
        let is_by_lease = !announcers.is_empty();
        let mut world = World::without_berth(NODES + 1, announcers).await?;
        Elastic::prepare(&world)?;
        world.pools(json!({ "range-global": POOL })).await?;
        world.start_ccm().await?;
        for node in 0..NODES {
            world.start_announcer(node).await?;
        }
        world.deploy("default", "hello", 2)?;
        world.create(service("old", None)).await?;
        world.published("old", 2).await?;
        let elastic = Elastic::up(&world).await?;
        let (frozen, routes) = (Vec::new(), Vec::new());
        let stage = Self { world, name, is_by_lease, frozen, elastic, routes };
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

    /// What does no harm: nodes are cordoned, and one announcer of three hangs, which is not that of the machines.
    fn disturb(&mut self, random: &mut fastrand::Rng) -> Result<()> {
        let names: Vec<String> =
            (0..NODES).map(|node| self.world.lab.node(node).name().to_owned()).collect();
        for name in names.iter().filter(|_| random.bool()) {
            kubectl(&self.world.lab, &["cordon", name])?;
        }
        if random.bool() && !self.is_by_lease {
            self.freeze(&names[random.usize(NODE + 1..NODES)])?;
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
            MachineGone | MachineOff => self.elastic.damage(fault).await?,
            NodeGone => self.world.lab.crash(NODE)?,
            NoWayBack => {
                let node = self.world.lab.node(NODE);
                node.exec(["sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1"])?;
                let routes = node.exec(["ip", "-4", "route", "show", "dev", "eth0"])?;
                self.routes = routes.lines().map(str::to_owned).collect();
                node.exec(["ip", "-4", "route", "flush", "dev", "eth0"])?;
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
            NodeGone => {
                self.world.lab.reboot(NODE, Leftovers::Flush)?;
                self.world.start_announcer(NODE).await?;
            }
            NoWayBack => {
                let node = self.world.lab.node(NODE);
                node.exec(["sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=0"])?;
                // That of the subnet first: others lead by it.
                self.routes
                    .sort_by_key(|route| route.contains(" via ") || route.starts_with("default"));
                for route in std::mem::take(&mut self.routes) {
                    let words = route.split_whitespace().filter(|word| *word != "linkdown");
                    let route = ["ip", "-4", "route", "replace"].into_iter().chain(words);
                    node.exec(route.chain(["dev", "eth0"]))?;
                }
            }
            Alone | NoEndpoint | NoLiveNode | NoInterface | InvalidVlan | Dhcp | MachineGone
            | MachineOff => {}
        }
        self.elastic.mend(&self.world, fault).await?;
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
        self.elastic.comes().await?;
        let ([old, new], within) = (fault.right(self.is_by_lease), fault.within());
        let world = &self.world;
        let service = |name: &'static str| async move |answers| look(world, name, answers).await;
        let (old, new, elastic) = tokio::join!(
            judge("old", service("old"), old, start, within),
            judge("new", service("new"), new, made, within),
            self.judge_elastic(fault, start, made),
        );
        let broken =
            || format!("world {number}, {}, {fault:?}, frozen {:?}", self.name, self.frozen);
        let (old, new) = (old.with_context(broken)?, new.with_context(broken)?);
        let elastic = elastic.with_context(broken)?;
        let message = self.message("new").await?;
        if fault.names_others() {
            self.names_all(&message)?;
            self.names_all(&self.message("old").await?)?;
        }
        self.mend(fault, &addresses).await?;
        let mended = Instant::now();
        eventually("what was broken answers again, and says so", MENDED, || async {
            let service = self.world.service("old").await?;
            let is_gone = self.world.services("default").get_opt("new").await?.is_none();
            let is_mended = is_gone && said(&service).is_empty() && answers(&self.world, &service);
            Ok((is_mended && self.elastic.is_mended(&self.world).await?).then_some(()))
        })
        .await
        .with_context(|| format!("after {fault:?}"))?;
        let took = mended.elapsed();
        self.settle().await?;
        println!(
            "{number:2} {:8} {fault:?}: told in {old:.1?} where it had answered, {new:.1?} where it was new, of elastic IPs in {elastic:.1?}; mended in {:.1?}; {message}",
            self.name, took
        );
        Ok(())
    }

    /// The same of elastic IPs, where their node can tell: of one that hangs berth-ccm says so, after a while.
    async fn judge_elastic(
        &self,
        fault: Fault,
        start: Instant,
        made: Instant,
    ) -> Result<Option<[Duration; 2]>> {
        const NO_ANNOUNCER: Option<&[&str]> = Some(&["NoAnnouncer"]);
        let hangs = self.frozen.iter().any(|node| node == self.elastic.node());
        let ([old, new], within) = match hangs {
            false => (fault.of_elastic(), fault.within()),
            true if is_soak() => ([NO_ANNOUNCER; 2], MINUTE),
            true => return Ok(None),
        };
        let look = |name: &'static str| {
            async move |_| {
                let (told, answers, _) = self.elastic.look(&self.world, name).await?;
                Ok((told.into_iter().collect(), answers))
            }
        };
        let (old, new) = tokio::join!(
            judge("the old elastic IP", look("old"), old, start, within),
            judge("the new elastic IP", look("new"), new, made, within),
        );
        let took = [old?, new?];
        for name in ["old", "new"].into_iter().filter(|_| fault.names_others() && !hangs) {
            self.names_all(&self.elastic.look(&self.world, name).await?.2)?;
        }
        Ok(Some(took))
    }

    /// A node that is heard by nobody says who does not answer it.
    fn names_all(&self, message: &str) -> Result<()> {
        let names = self.world.lab.nodes()[..NODES].iter().map(|node| node.name());
        let missing: Vec<&str> = names.filter(|name| !message.contains(name)).collect();
        ensure!(missing.is_empty(), "{missing:?} are not in {message:?}");
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
    let of_all = [
        NoEndpoint,
        NoLiveNode,
        NoInterface,
        InvalidVlan,
        Dhcp,
        NoPool,
        Unplugged,
        MachineGone,
        MachineOff,
    ];
    let of_members = [&of_all[..], &[Firewall, Alone]].concat();
    if !is_soak() {
        let stage = Stage::up("members", env([])).await?;
        return break_again_and_again(stage, &of_members, 0..3, &mut random).await;
    }
    let everything = [&of_members[..], &[Gone, NodeGone, NoWayBack]].concat();
    let members = Stage::up("members", env([])).await?;
    break_again_and_again(members, &everything, 0..14, &mut random).await?;
    let mut each = by_lease();
    each.extend(env([("svc_election", "true")]));
    let of_leases = [&of_all[..], &[NodeGone]].concat();
    let each = Stage::up("leases", each).await?;
    break_again_and_again(each, &of_leases, 14..20, &mut random).await?;
    let one = Stage::up("lease", by_lease()).await?;
    break_again_and_again(one, &of_leases, 20..25, &mut random).await
}
