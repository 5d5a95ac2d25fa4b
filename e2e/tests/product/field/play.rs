//! A case that is played. Judged by frames on the LAN, a client's connection, and the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::pauses;
use berth_e2e::wire::Asker;
use berth_e2e::world::{curl_port, eventually, ingress};
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::case::{Election, Exposed, Step, Who};
use super::stage::{LABEL, NODES, NOTE, Stage, TAINT, mac_of};
use crate::scene::{ASK, BY_LEASE, TAKEOVER};

/// A client that is answered throughout hears nothing for less than this.
pub(super) const GAP: Duration = Duration::from_millis(200);
const ANNOUNCED: &str = "berth.dev/Announced";

/// A case on its stage, with what there is of it.
pub(crate) struct Play<'a> {
    pub(super) stage: &'a Stage,
    pub(super) namespace: &'a str,
    pub(super) shown: BTreeMap<String, Shown>,
    /// When something was last done, and who answered for each Service then.
    since: Instant,
    owned: BTreeSet<(usize, IpAddr)>,
}

/// A Service that is there.
pub(super) struct Shown {
    uid: String,
    pub(super) address: Option<IpAddr>,
    pub(super) asker: Option<Asker>,
    /// Who answered when something was last done.
    former: Option<usize>,
    /// The address that it had before.
    pub(super) was: Option<IpAddr>,
    /// How it was at first.
    pub(super) exposed: Exposed,
}

impl<'a> Play<'a> {
    pub(crate) fn new(stage: &'a Stage, namespace: &'a str) -> Self {
        let (shown, owned) = (BTreeMap::new(), BTreeSet::new());
        Self { stage, namespace, shown, since: Instant::now(), owned }
    }

    pub(crate) async fn perform_all(
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

    pub(super) fn services(&self) -> Api<Service> {
        self.stage.world.services(self.namespace)
    }

    fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.stage.world.client.clone(), self.namespace)
    }

    pub(super) async fn expose(&mut self, name: &str, exposed: &Exposed) -> Result<()> {
        let selector =
            if exposed.ready.is_some() { Value::Null } else { json!({ "app": "hello" }) };
        let service = self.stage.world.create(json!({
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": {
                "type": "LoadBalancer",
                "selector": selector,
                "ports": [{ "port": exposed.port, "targetPort": 8080 }],
                "externalTrafficPolicy": if exposed.local { "Local" } else { "Cluster" },
            },
        }));
        let uid = service.await?.uid().context("no uid")?;
        let (address, asker, former, was) = Default::default();
        let shown = Shown { uid, address, asker, former, was, exposed: exposed.clone() };
        self.shown.insert(name.to_owned(), shown);
        if let Some(ready) = &exposed.ready {
            self.endpoints(name, ready, &[]).await?;
        }
        let address = self.status(name, 1).await.with_context(|| self.stage.logs())?[0];
        let shown = self.shown.get_mut(name).context("just made")?;
        shown.address = Some(address);
        shown.asker = Some(self.stage.world.lab.ask(address, ASK)?);
        eventually("an answer", 10, || async { Ok(self.answers(name)?.map(drop)) }).await
    }

    /// Waits until the status has so many addresses.
    async fn status(&self, name: &str, count: usize) -> Result<Vec<IpAddr>> {
        let services = self.services();
        let shows = || async {
            let addresses = ingress(&services.get(name).await?);
            Ok((addresses.len() == count).then_some(addresses))
        };
        eventually(&format!("{count} addresses in the status"), 20, shows).await
    }

    /// Notes that something is about to be done.
    pub(super) fn begin(&mut self) {
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

    pub(super) fn service(&self, name: &str) -> Result<&Shown> {
        self.shown.get(name).with_context(|| format!("no Service {name}"))
    }

    pub(super) fn address(&self, name: &str) -> Result<IpAddr> {
        self.service(name)?.address.with_context(|| format!("no address of {name}"))
    }

    /// Who answered for a Service within the last moment.
    pub(super) fn answers(&self, name: &str) -> Result<Option<usize>> {
        let moment = Instant::now().checked_sub(GAP).context("the clock has just begun")?;
        let said = self.stage.wire.heard(self.address(name)?, moment);
        Ok(said.last().and_then(|said| (0..NODES).find(|node| mac_of(*node) == said.mac)))
    }

    fn nodes(&self, who: Who) -> Result<Vec<usize>> {
        let owner = || -> Result<usize> {
            let name = self.shown.keys().next().context("no Service")?;
            let former = self.shown[name].former;
            self.answers(name)?.or(former).context("nobody answers")
        };
        Ok(match who {
            Who::Owner => vec![owner()?],
            Who::Others => {
                let owner = owner()?;
                self.stage.there().into_iter().filter(|node| *node != owner).collect()
            }
            Who::All => self.stage.there(),
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
            Step::Cordon(who) => self.empty(*who, cordon).await,
            Step::Drain(who) => self.empty(*who, drain).await,
            Step::Exclude(who) => self.empty(*who, exclude).await,
            Step::Taint(who) => self.empty(*who, taint).await,
            Step::Crash(who) => {
                for node in self.nodes(*who)? {
                    self.begin();
                    self.stage.changed().crashed.insert(node);
                    self.stage.world.lab.crash(node)?;
                }
                Ok(())
            }
            Step::Leave(who) => {
                for node in self.nodes(*who)? {
                    self.begin();
                    self.stage.changed().left.insert(node);
                    self.stage.ends(node)?;
                }
                self.stage.settled().await
            }
            Step::Endpoints { of, ready, ending } => {
                self.begin();
                self.endpoints(of, ready, ending).await
            }
            Step::Local(name) => {
                self.begin();
                let local = json!({ "spec": { "externalTrafficPolicy": "Local" } });
                let local = Patch::Merge(&local);
                self.services().patch(name, &PatchParams::default(), &local).await?;
                Ok(())
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
            other if self.edit(other).await? => Ok(()),
            expected => self.expect(expected).await,
        }
    }

    async fn expect(&self, step: &Step) -> Result<()> {
        match step {
            Step::Another(name) => {
                let former = self.service(name)?.former;
                let another = |now: usize| Some(now) != former;
                self.answered(name, another).await
            }
            Step::By { node, of } => {
                let nodes = self.nodes(*node)?;
                self.answered(of, |now| nodes.contains(&now)).await
            }
            Step::Keeps { of, seconds } => {
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                let former = self.service(of)?.former.context("nobody answered before")?;
                let said = self.stage.wire.heard(self.address(of)?, self.since);
                let others = said.iter().filter(|said| said.mac != mac_of(former)).count();
                ensure!(others == 0, "others answered {others} times");
                self.silent(of, GAP)
            }
            Step::Silent { of, most } => self.silent(of, Duration::from_millis(*most)),
            Step::Connects(name) => {
                let port = self.services().get(name).await?.spec.and_then(|spec| spec.ports);
                let port = port.and_then(|ports| u16::try_from(ports.first()?.port).ok());
                let (address, port) = (self.address(name)?, port.context("no port")?);
                let outside = self.stage.world.lab.outside();
                let connects = || async { Ok(curl_port(&outside, address, port).ok().map(drop)) };
                eventually("an answer", 10, connects).await
            }
            Step::Status { of, addresses } => self.status(of, *addresses).await.map(drop),
            Step::Told { of, reason } => self.told(of, reason).await,
            Step::Announced { of, is } => self.announced(of, is).await,
            done => unreachable!("{done:?} is done and not expected"),
        }
    }

    /// Waits for an Event on this object, and on none that had its name before.
    async fn told(&self, name: &str, reason: &str) -> Result<()> {
        let client = self.stage.world.client.clone();
        let events: Api<Event> = Api::namespaced(client, self.namespace);
        let uid = &self.service(name)?.uid;
        let of_it = format!("involvedObject.uid={uid},reason={reason}");
        let told = || async {
            let events = events.list(&ListParams::default().fields(&of_it)).await?;
            Ok((!events.items.is_empty()).then_some(()))
        };
        eventually(&format!("an Event {reason}"), 20, told).await
    }

    /// Waits until the condition is `False` for this reason, `True`, or there is nothing of it.
    async fn announced(&self, name: &str, is: &str) -> Result<()> {
        let (services, uid) = (self.services(), &self.service(name)?.uid);
        let says = || async {
            let service = services.get(name).await?;
            ensure!(service.meta().uid.as_ref() == Some(uid), "another Service {name}");
            let all = service.status.and_then(|status| status.conditions).unwrap_or_default();
            let found = all.into_iter().find(|condition| condition.type_ == ANNOUNCED);
            let says = found.map_or("nothing".to_owned(), |found| match found.status.as_str() {
                "False" => found.reason,
                status => status.to_owned(),
            });
            Ok((says == is).then_some(()))
        };
        eventually(&format!("the condition {ANNOUNCED} is {is}"), 20, says).await
    }

    /// Waits until one of these answers, no longer than a takeover takes.
    async fn answered(&self, name: &str, by: impl Fn(usize) -> bool) -> Result<()> {
        let takeover = match self.stage.election {
            Election::Membership => TAKEOVER,
            // Who goes later waits for a retry more.
            Election::Global | Election::Service => BY_LEASE + Duration::from_secs(1),
        };
        let answered = || async { Ok(self.answers(name)?.filter(|now| by(*now)).map(drop)) };
        let result = eventually("who is to answer", 20, answered).await;
        let former = self.service(name)?.former;
        result.with_context(|| format!("before {former:?}, now {:?}", self.answers(name).ok()))?;
        let took = self.since.elapsed();
        // Where the former one goes on until then, and a target is waited for, nobody waits.
        self.silent(name, takeover).with_context(|| format!("answered after {took:.1?}"))
    }

    /// Since something was last done nobody answered for so long at most.
    fn silent(&self, name: &str, most: Duration) -> Result<()> {
        let until = Instant::now();
        let said = self.stage.wire.heard(self.address(name)?, self.since);
        let said: Vec<_> = said.iter().map(|said| said.at).filter(|at| *at < until).collect();
        let (pauses, asker) = (pauses::so_far(), self.service(name)?.asker.as_ref());
        for pair in [&[self.since], &said[..], &[until]].concat().windows(2) {
            let gap = pair[1].saturating_duration_since(pair[0]);
            let starved = asker.map_or(Duration::ZERO, |asker| asker.starved(pair[0], pair[1]));
            let pause = pauses.longest(pair[0], pair[1]).max(starved);
            ensure!(gap <= most + pause, "silent for {gap:.1?}, with a pause of {pause:.1?}");
        }
        Ok(())
    }

    /// Nodes are to be empty, one way or another.
    async fn empty(&mut self, who: Who, patch: Value) -> Result<()> {
        let nodes = self.nodes(who)?;
        self.begin();
        self.stage.changed().emptied = true;
        for node in nodes {
            self.stage.patch(node, &patch).await?;
        }
        // Every watch has shown it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    /// What somebody else than the announcer puts onto a node.
    fn own(&mut self, node: usize, address: IpAddr, does: bool) -> Result<()> {
        let verb = if does { "add" } else { "del" };
        let text = format!("{address}/32");
        self.stage.world.lab.node(node).exec(["ip", "address", verb, &text, "dev", "lo"])?;
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
                    let name = self.stage.world.lab.node(node).name();
                    endpoints.push(json!({
                        "addresses": [self.stage.pod], "nodeName": name, "conditions": conditions,
                    }));
                }
            }
        }
        let name = format!("{service}-by-hand");
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": name,
                "labels": { "kubernetes.io/service-name": service },
            },
            "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
            "endpoints": endpoints,
        });
        let parameters = PatchParams::apply("field").force();
        self.slices().patch(&name, &parameters, &Patch::Apply(slice)).await?;
        Ok(())
    }

    /// Leaves nothing of it, but what it did to nodes.
    pub(crate) async fn clear(mut self) -> Result<()> {
        for (node, address) in self.owned.clone() {
            if !self.stage.changed().crashed.contains(&node) {
                self.own(node, address, false)?;
            }
        }
        let shown = std::mem::take(&mut self.shown);
        for name in shown.keys() {
            match self.services().delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                deleted => drop(deleted?),
            }
            let by_hand = format!("{name}-by-hand");
            let _ = self.slices().delete(&by_hand, &DeleteParams::default()).await;
        }
        for (name, shown) in shown {
            shown.asker.map_or(Ok(()), Asker::finish)?;
            let services = self.services();
            let gone = || async { Ok(services.get_opt(&name).await?.is_none().then_some(())) };
            let ended = eventually(&format!("the end of {name}"), 30, gone).await;
            ended.with_context(|| self.stage.logs())?;
        }
        Ok(())
    }
}
