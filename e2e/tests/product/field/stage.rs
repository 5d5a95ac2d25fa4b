//! A world in which cases are played. Judged by frames on the LAN, a client's connection, and the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Mac, Net, mac, node_host};
use berth_e2e::fault::Leftovers;
use berth_e2e::membership::is_settled;
use berth_e2e::pauses;
use berth_e2e::wire::{Asker, Watch};
use berth_e2e::world::{Env, POOL, World, eventually, ingress, kubectl};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::case::{Election, Exposed, Step, Who};
use crate::scene::{ASK, BY_LEASE, TAKEOVER};

const NODES: usize = 3;
/// What empties a node here, as `berth_drain_taints` has it.
pub(crate) const TAINT: &str = "berth.example/upkeep";
const LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const NOTE: &str = "berth.dev/drain";
/// A client that is answered throughout hears nothing for less than this.
const GAP: Duration = Duration::from_millis(200);

/// A world, and what a case has changed of it.
pub(crate) struct Stage {
    world: World,
    election: Election,
    wire: Watch,
    pod: String,
    shown: BTreeMap<String, Shown>,
    /// When something was last done, and who answered for each Service then.
    since: Instant,
    crashed: BTreeSet<usize>,
    left: BTreeSet<usize>,
    owned: BTreeSet<(usize, IpAddr)>,
    emptied: bool,
}

/// A Service that is there.
struct Shown {
    address: Option<IpAddr>,
    asker: Option<Asker>,
    /// Who answered when something was last done.
    former: Option<usize>,
}

impl Stage {
    pub(crate) async fn up(election: Election, environment: Env) -> Result<Self> {
        let world = World::up(NODES, environment).await?;
        world.pools(json!({ "range-global": POOL, "allow-share-global": "true" })).await?;
        let pods: Api<Pod> = Api::namespaced(world.client.clone(), "default");
        let list = pods.list(&ListParams::default().labels("app=hello")).await?;
        let pod = list.into_iter().find_map(|pod| pod.status?.pod_ip).context("a pod's address")?;
        let (wire, since) = (world.lab.watch()?, Instant::now());
        let stage = Self {
            world,
            election,
            wire,
            pod,
            shown: BTreeMap::new(),
            since,
            crashed: BTreeSet::new(),
            left: BTreeSet::new(),
            owned: BTreeSet::new(),
            emptied: false,
        };
        stage.settled().await?;
        Ok(stage)
    }

    /// Plays a case.
    pub(crate) async fn play(
        &mut self,
        services: &BTreeMap<String, Exposed>,
        steps: &[Step],
    ) -> Result<()> {
        for (name, exposed) in services {
            self.expose(name, exposed).await.with_context(|| format!("Service {name}"))?;
        }
        self.begin();
        for (at, step) in steps.iter().enumerate() {
            self.perform(step).await.with_context(|| format!("step {}: {step:?}", at + 1))?;
        }
        Ok(())
    }

    async fn expose(&mut self, name: &str, exposed: &Exposed) -> Result<()> {
        let policy = if exposed.local { "Local" } else { "Cluster" };
        let mut spec = json!({
            "ports": [{ "port": exposed.port, "targetPort": 8080 }],
            "externalTrafficPolicy": policy,
        });
        if exposed.ready.is_some() {
            spec["selector"] = Value::Null;
        }
        self.world.expose(name, spec).await?;
        self.shown.insert(name.to_owned(), Shown { address: None, asker: None, former: None });
        if let Some(ready) = &exposed.ready {
            self.endpoints(name, ready, &[]).await?;
        }
        let address = self.world.published(name, 1).await?[0];
        let shown = self.shown.get_mut(name).context("just made")?;
        shown.address = Some(address);
        shown.asker = Some(self.world.lab.ask(address, ASK)?);
        eventually("an answer", 10, || async { Ok(self.answers(name)?.map(drop)) }).await
    }

    /// Notes that something is about to be done.
    fn begin(&mut self) {
        let formers: Vec<_> = self
            .shown
            .keys()
            .map(|name| (name.clone(), self.answers(name).ok().flatten()))
            .collect();
        for (name, former) in formers {
            self.shown.entry(name).and_modify(|shown| shown.former = former.or(shown.former));
        }
        self.since = Instant::now();
    }

    fn address(&self, name: &str) -> Result<IpAddr> {
        self.shown
            .get(name)
            .and_then(|shown| shown.address)
            .with_context(|| format!("no Service {name}"))
    }

    /// Who answered for a Service within the last moment.
    fn answers(&self, name: &str) -> Result<Option<usize>> {
        let moment = Instant::now().checked_sub(GAP).context("the clock has just begun")?;
        let said = self.wire.so_far().since(self.address(name)?, moment);
        Ok(said.last().and_then(|said| (0..NODES).find(|node| mac_of(*node) == said.mac)))
    }

    fn nodes(&self, who: Who) -> Result<Vec<usize>> {
        let owner = || -> Result<usize> {
            let name = self.shown.keys().next().context("no Service")?;
            let former = self.shown[name].former;
            self.answers(name)?.or(former).context("nobody answers")
        };
        let there =
            (0..NODES).filter(|node| !self.left.contains(node) && !self.crashed.contains(node));
        Ok(match who {
            Who::Owner => vec![owner()?],
            Who::Others => {
                let owner = owner()?;
                there.filter(|node| *node != owner).collect()
            }
            Who::All => there.collect(),
            Who::Zero => vec![0],
            Who::One => vec![1],
            Who::Two => vec![2],
        })
    }

    async fn perform(&mut self, step: &Step) -> Result<()> {
        let cordon = json!({ "spec": { "unschedulable": true } });
        let drain = json!({ "metadata": { "annotations": { NOTE: "true" } } });
        let exclude = json!({ "metadata": { "labels": { LABEL: "" } } });
        let taint = json!({ "spec": { "taints": [{ "key": TAINT, "effect": "NoSchedule" }] } });
        match step {
            Step::Cordon(who) => self.patch(*who, cordon).await,
            Step::Drain(who) => self.patch(*who, drain).await,
            Step::Exclude(who) => self.patch(*who, exclude).await,
            Step::Taint(who) => self.patch(*who, taint).await,
            Step::Crash(who) => {
                for node in self.nodes(*who)? {
                    self.begin();
                    self.crashed.insert(node);
                    self.world.lab.crash(node)?;
                }
                Ok(())
            }
            Step::Leave(who) => {
                for node in self.nodes(*who)? {
                    self.begin();
                    self.left.insert(node);
                    let name = self.world.lab.node(node).name().to_owned();
                    self.world.announcer(&name)?.terminate(Duration::from_secs(20))?;
                }
                self.settled().await
            }
            Step::Endpoints { of, ready, ending } => {
                self.begin();
                self.endpoints(of, ready, ending).await
            }
            Step::Local(name) => {
                self.begin();
                let local = json!({ "spec": { "externalTrafficPolicy": "Local" } });
                self.world.patch(name, local).await.map(drop)
            }
            Step::Own { node, of } | Step::Disown { node, of } => {
                self.begin();
                let address = self.address(of)?;
                let does = matches!(step, Step::Own { .. });
                for node in self.nodes(*node)? {
                    self.own(node, address, does)?;
                }
                Ok(())
            }
            expected => self.expect(expected).await,
        }
    }

    async fn expect(&self, step: &Step) -> Result<()> {
        match step {
            Step::Another(name) => {
                let former = self.shown[name].former;
                let another = |now: usize| Some(now) != former;
                self.answered(name, another).await
            }
            Step::By { node, of } => {
                let nodes = self.nodes(*node)?;
                self.answered(of, |now| nodes.contains(&now)).await
            }
            Step::Keeps { of, seconds } => {
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                let former = self.shown[of].former.context("nobody answered before")?;
                let said = self.wire.so_far().since(self.address(of)?, self.since);
                let others = said.iter().filter(|said| said.mac != mac_of(former)).count();
                ensure!(others == 0, "others answered {others} times");
                self.silent(of, GAP)
            }
            Step::Silent { of, most } => self.silent(of, Duration::from_millis(*most)),
            Step::Connects(name) => {
                let port = self.world.service(name).await?.spec.and_then(|spec| spec.ports);
                let port = port.and_then(|ports| u16::try_from(ports.first()?.port).ok());
                let (address, port) = (self.address(name)?, port.context("no port")?);
                let outside = self.world.lab.outside();
                let connects = || async {
                    Ok(berth_e2e::world::curl_port(&outside, address, port).ok().map(drop))
                };
                eventually("an answer", 10, connects).await
            }
            Step::Status { of, addresses } => {
                let shows = || async {
                    let service = self.world.service(of).await?;
                    Ok((ingress(&service).len() == *addresses).then_some(()))
                };
                eventually("the status", 20, shows).await
            }
            Step::Told { of, reason } => {
                let (reason, object) =
                    (format!("reason={reason}"), format!("involvedObject.name={of}"));
                let told = || async {
                    let arguments = [
                        "get",
                        "events",
                        "--output=name",
                        "--field-selector",
                        &format!("{reason},{object}"),
                    ];
                    let events = kubectl(&self.world.lab, &arguments)?;
                    Ok((!events.trim().is_empty()).then_some(()))
                };
                eventually("an Event", 20, told).await
            }
            done => unreachable!("{done:?} is done and not expected"),
        }
    }

    /// Waits until one of these answers, no longer than a takeover takes.
    async fn answered(&self, name: &str, by: impl Fn(usize) -> bool) -> Result<()> {
        let takeover = match self.election {
            Election::Membership => TAKEOVER,
            // Who goes later waits for a retry more.
            Election::Global | Election::Service => BY_LEASE + Duration::from_secs(1),
        };
        let answered = || async { Ok(self.answers(name)?.filter(|now| by(*now)).map(drop)) };
        let result = eventually("who is to answer", 20, answered).await;
        let former = self.shown[name].former;
        result.with_context(|| format!("before {former:?}, now {:?}", self.answers(name).ok()))?;
        let took = self.since.elapsed();
        // Where the former one goes on until then, and a target is waited for, nobody waits.
        match self.silent(name, takeover) {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("answered after {took:.1?}"))),
        }
    }

    /// Since something was last done nobody answered for so long at most.
    fn silent(&self, name: &str, most: Duration) -> Result<()> {
        let until = Instant::now();
        let said = self.wire.so_far().since(self.address(name)?, self.since);
        let said: Vec<_> = said.iter().map(|said| said.at).collect();
        for pair in [&[self.since], &said[..], &[until]].concat().windows(2) {
            let gap = pair[1].saturating_duration_since(pair[0]);
            let pause = pauses::so_far().longest(pair[0], pair[1]);
            ensure!(gap <= most + pause, "silent for {gap:.1?}, with a pause of {pause:.1?}");
        }
        Ok(())
    }

    async fn patch(&mut self, who: Who, patch: Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.world.client.clone());
        let emptied = self.nodes(who)?;
        self.begin();
        self.emptied = true;
        for node in emptied {
            let name = self.world.lab.node(node).name();
            nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        // Every watch has shown it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    /// What somebody else than the announcer puts onto a node.
    fn own(&mut self, node: usize, address: IpAddr, does: bool) -> Result<()> {
        let verb = if does { "add" } else { "del" };
        let text = format!("{address}/32");
        self.world.lab.node(node).exec(["ip", "address", verb, &text, "dev", "lo"])?;
        match does {
            true => self.owned.insert((node, address)),
            false => self.owned.remove(&(node, address)),
        };
        Ok(())
    }

    async fn endpoints(&self, service: &str, ready: &[Who], ending: &[Who]) -> Result<()> {
        let is_ready = json!({ "ready": true, "serving": true, "terminating": false });
        let is_ending = json!({ "ready": false, "serving": true, "terminating": true });
        let mut endpoints = Vec::new();
        for (nodes, conditions) in [(ready, is_ready), (ending, is_ending)] {
            for who in nodes {
                for node in self.nodes(*who)? {
                    let name = self.world.lab.node(node).name();
                    endpoints.push(json!({
                        "addresses": [self.pod], "nodeName": name, "conditions": conditions,
                    }));
                }
            }
        }
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{service}-by-hand"),
                "labels": { "kubernetes.io/service-name": service },
            },
            "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
            "endpoints": endpoints,
        });
        let slices: Api<EndpointSlice> = Api::namespaced(self.world.client.clone(), "default");
        let name = format!("{service}-by-hand");
        slices.patch(&name, &PatchParams::apply("field").force(), &Patch::Apply(slice)).await?;
        Ok(())
    }

    async fn settled(&self) -> Result<()> {
        if self.election != Election::Membership || !self.left.is_empty() {
            return Ok(());
        }
        let all = || async { Ok(is_settled(&self.world, NODES).await?.then_some(())) };
        eventually("all nodes take part", 60, all).await.with_context(|| self.logs())
    }

    /// Leaves everything as it was before the case.
    pub(crate) async fn clear(&mut self) -> Result<()> {
        for (node, address) in std::mem::take(&mut self.owned) {
            if !self.crashed.contains(&node) {
                self.own(node, address, false)?;
            }
        }
        self.owned.clear();
        let slices: Api<EndpointSlice> = Api::namespaced(self.world.client.clone(), "default");
        for (name, shown) in std::mem::take(&mut self.shown) {
            shown.asker.map_or(Ok(()), Asker::finish)?;
            self.world.delete(&name).await?;
            let _ = slices.delete(&format!("{name}-by-hand"), &DeleteParams::default()).await;
            let services = self.world.services("default");
            let gone = || async { Ok(services.get_opt(&name).await?.is_none().then_some(())) };
            eventually(&format!("the end of {name}"), 30, gone)
                .await
                .with_context(|| self.logs())?;
        }
        if std::mem::take(&mut self.emptied) {
            let nodes: Api<Node> = Api::all(self.world.client.clone());
            let filled = json!({
                "metadata": { "labels": { LABEL: null }, "annotations": { NOTE: null } },
                "spec": { "unschedulable": null, "taints": null },
            });
            for node in self.world.lab.nodes() {
                let parameters = PatchParams::default();
                nodes.patch(node.name(), &parameters, &Patch::Merge(&filled)).await?;
            }
        }
        let crashed = std::mem::take(&mut self.crashed);
        for node in &crashed {
            self.world.lab.reboot(*node, Leftovers::Flush)?;
        }
        for node in std::mem::take(&mut self.left).union(&crashed) {
            self.world.start_announcer(*node).await?;
        }
        self.settled().await
    }

    pub(crate) fn logs(&self) -> String {
        self.world.logs()
    }

    pub(crate) fn down(self) -> Result<()> {
        self.wire.finish()?;
        self.world.lab.down()
    }
}

fn mac_of(node: usize) -> Mac {
    mac(Net::Lan, node_host(node))
}
