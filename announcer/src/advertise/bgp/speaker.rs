//! The task that has the peers. It ends when nobody orders anything any more: routers are told so, and keep nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::config::{self, NodeSays, Peer, Remote, RouterId};
use berth_bgp::{Announcement, Event, Policy, Prefix, Routes, Session, Stop};
use berth_bgp_speaker::{Handle, News, spawn};
use berth_runtime::http::Health;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::place;
use super::told::{PeerTold, Told};
use crate::metrics::{Metrics, PeerLabel, RouteLabel};
use crate::vip::nodes::Notes;

/// The name of the task.
pub const TASK: &str = "bgp";

/// Its readiness check.
const CHECK: &str = "bgp";

/// That of what the annotations of the node say.
const NOTES: &str = "bgp/annotations";

/// How often what is in the way of a peer is looked at again.
const AGAIN: Duration = Duration::from_secs(2);

/// How often a session is looked at where nothing is told.
const LOOK: Duration = Duration::from_secs(5);

/// How long the last words of all sessions may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the speaker goes by.
pub struct Speaker {
    /// The node.
    pub node: String,
    /// Its interface.
    pub interface: Option<String>,
    /// What is the same for all peers.
    pub speaker: config::Speaker,
    /// The peers.
    pub peers: Vec<Peer>,
    /// The prefix of annotations by which nodes name more of them.
    pub prefix: Option<String>,
    /// Numbers.
    pub metrics: Metrics,
    /// Probes.
    pub health: Health,
}

impl Speaker {
    /// Keeps sessions with all peers, those that the node's annotations name among them, announces what is ordered, and tells
    /// what is known.
    pub async fn keep(
        self,
        mut notes: watch::Receiver<Notes>,
        mut orders: watch::Receiver<Vec<Announcement>>,
        tell: watch::Sender<Told>,
    ) {
        let (all, tell) = (Arc::new(self), Arc::new(tell));
        all.health.unready(CHECK, tell.borrow().silence().unwrap_or_default());
        let mut lines: BTreeMap<String, (Terms, oneshot::Sender<()>)> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let wanted = all.wanted(&notes.borrow_and_update());
            // Who is named no more, or otherwise than before, is told so: its line ends with its end of the channel.
            lines.retain(|name, (terms, _)| wanted.get(name) == Some(terms));
            for (name, terms) in wanted {
                if !lines.contains_key(&name) {
                    let (go_on, ends) = oneshot::channel();
                    let line = Line::new(&all, terms.clone(), &orders, &tell);
                    tasks.spawn(line.keep(ends));
                    lines.insert(name, (terms, go_on));
                }
            }
            tokio::select! {
                Ok(()) = notes.changed() => {}
                Some(_) = tasks.join_next() => {}
                () = ended(&mut orders) => break,
            }
        }
        // Each ends by the same.
        while tasks.join_next().await.is_some() {}
    }

    /// The peers of this node by their names, each with what is the same for all.
    fn wanted(&self, notes: &Notes) -> BTreeMap<String, Terms> {
        let (says, flaws) = match &self.prefix {
            Some(prefix) => config::node_annotations(prefix, notes),
            None => (NodeSays::default(), Vec::new()),
        };
        let flaws: Vec<String> = flaws.iter().map(ToString::to_string).collect();
        match flaws.is_empty() {
            true => self.health.forget(NOTES),
            false => self.health.unready(NOTES, flaws.join("; ")),
        }
        let router_id = match (&self.speaker.router_id, says.router_id) {
            (RouterId::Found, Some(id)) => id,
            (id, _) => id.clone(),
        };
        let speaker = config::Speaker { router_id, ..self.speaker.clone() };
        // What the node says of a router counts before what all nodes are told of it.
        let named: BTreeSet<Remote> = says.peers.iter().map(|peer| peer.remote.clone()).collect();
        let others = self.peers.iter().filter(|peer| !named.contains(&peer.remote)).cloned();
        let all = says.peers.iter().cloned().chain(others);
        all.map(|peer| (peer.name.clone(), Terms { peer, speaker: speaker.clone() })).collect()
    }
}

/// What a session is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    peer: Peer,
    speaker: config::Speaker,
}

/// What the task of a peer has at hand.
struct Line {
    all: Arc<Speaker>,
    terms: Terms,
    orders: watch::Receiver<Vec<Announcement>>,
    tell: Arc<watch::Sender<Told>>,
    now: PeerTold,
}

impl Line {
    fn new(
        all: &Arc<Speaker>,
        terms: Terms,
        orders: &watch::Receiver<Vec<Announcement>>,
        tell: &Arc<watch::Sender<Told>>,
    ) -> Self {
        let (all, orders, tell) = (all.clone(), orders.clone(), tell.clone());
        Self { all, terms, orders, tell, now: PeerTold::default() }
    }

    /// Keeps the session until nobody orders anything any more, or this peer is not wanted.
    async fn keep(mut self, mut ends: oneshot::Receiver<()>) {
        self.tell(|now| now.last = None);
        let opened = tokio::select! {
            opened = self.open() => opened,
            _ = &mut ends => None,
        };
        match opened {
            Some((handle, news)) => self.run(&handle, news, ends).await,
            None => self.forget(),
        }
    }

    /// Starts the session, as soon as all is there that it goes by; nothing where it is over before.
    async fn open(&mut self) -> Option<(Handle, mpsc::UnboundedReceiver<News>)> {
        let (target, router_id) = loop {
            match self.place() {
                Ok(place) => break place,
                Err(why) => self.tell(|now| now.last = Some(why)),
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = ended(&mut self.orders) => return None,
            }
        };
        let (peer, speaker) = (&self.terms.peer, &self.terms.speaker);
        let parameters = peer.parameters(speaker, router_id);
        tracing::info!(peer = %peer.name, %router_id, local_as = parameters.local_as, "a session is to be");
        let session = Session::new(Instant::now(), parameters, place::seed());
        let (hops, interface, orders) = (peer.hops, peer.interface.clone(), self.orders.clone());
        let addresses = Arc::new(move |end| {
            place::next_hops(hops, interface.as_deref(), end, &vips(&orders.borrow()))
        });
        // Nobody connects to this node, which has no port for it.
        let (handle, news) = spawn(target, session, addresses, mpsc::channel(1).1);
        handle.start(None).await.ok()?;
        Some((handle, news))
    }

    fn place(&self) -> Result<(berth_bgp_speaker::Target, std::net::Ipv4Addr), String> {
        let Speaker { node, interface, .. } = &*self.all;
        let Terms { peer, speaker } = &self.terms;
        let vips = vips(&self.orders.borrow());
        let id: &RouterId = &speaker.router_id;
        let router_id = place::router_id(id, node, interface.as_deref(), &vips)?;
        let target = place::target(peer, peer.local_as.unwrap_or(speaker.local_as))?;
        Ok((target, router_id))
    }

    async fn run(
        &mut self,
        handle: &Handle,
        mut news: mpsc::UnboundedReceiver<News>,
        mut ends: oneshot::Receiver<()>,
    ) {
        // What the peer is being told; it has been when the future is done.
        let mut telling: BoxFuture<'static, Option<Arc<Routes>>> = Box::pin(std::future::pending());
        let mut wanted: Arc<Routes> = Arc::default();
        self.orders.mark_changed();
        loop {
            tokio::select! {
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        let reason = "the announcer ends".to_owned();
                        return self.end(handle, Stop::Shutdown(reason)).await;
                    }
                    let orders = self.orders.borrow_and_update().clone();
                    wanted = Arc::new(Policy::default().routes(&self.terms.peer.name, &orders));
                    if handle.set_routes((*wanted).clone()).await.is_err() {
                        return;
                    }
                    telling = told(handle.clone(), wanted.clone());
                }
                Some(News { event, .. }) = news.recv() => {
                    match event {
                        Event::Established => {
                            tracing::info!(peer = %self.terms.peer.name, "the session is up");
                            telling = told(handle.clone(), wanted.clone());
                        }
                        Event::Down(why) => {
                            tracing::warn!(peer = %self.terms.peer.name, %why, "the session is down");
                            self.all.metrics.bgp_lost.get_or_create(&PeerLabel::of(&self.terms.peer.name)).inc();
                            self.now.knows = Arc::default();
                        }
                        Event::EndOfRib(_) => {}
                    }
                    self.look(handle).await;
                }
                done = &mut telling => {
                    telling = Box::pin(std::future::pending());
                    if let Some(routes) = done {
                        self.look(handle).await;
                        self.knows(&routes);
                    }
                }
                _ = &mut ends => return self.end(handle, Stop::Removed).await,
                () = tokio::time::sleep(LOOK) => self.look(handle).await,
            }
        }
    }

    /// Takes in that the peer has been told these, as far as it speaks their families.
    fn knows(&mut self, routes: &Routes) {
        let families: BTreeSet<_> = self.now.routes.keys().copied().collect();
        let is_host = |prefix: &&Prefix| **prefix == Prefix::host(prefix.address());
        let known =
            routes.keys().filter(|prefix| families.contains(&prefix.family())).filter(is_host);
        let known = Arc::new(known.map(|prefix| prefix.address()).collect());
        let is_up = self.now.is_up();
        self.tell(|now| now.knows = if is_up { known } else { Arc::default() });
    }

    async fn look(&mut self, handle: &Handle) {
        let Ok(status) = handle.status().await else { return };
        let last = status.last.map(|(_, why)| why.to_string());
        let is_news = self.now.last != last || self.now.state != status.state;
        if let (true, Some(why), false) = (is_news, &last, status.agreed.is_some()) {
            tracing::warn!(peer = %self.terms.peer.name, state = %status.state, why, "no session");
        }
        let agreed = status.agreed;
        self.tell(|now| {
            now.state = status.state;
            now.last = last;
            now.routes = agreed.as_ref().map(|agreed| agreed.told.clone()).unwrap_or_default();
            if agreed.is_none() {
                now.knows = Arc::default();
            }
        });
    }

    fn tell(&mut self, change: impl FnOnce(&mut PeerTold)) {
        let before = self.now.clone();
        change(&mut self.now);
        if self.now == before && self.tell.borrow().0.get(&self.terms.peer.name) == Some(&self.now)
        {
            return;
        }
        let (name, now) = (&self.terms.peer.name, &self.now);
        let Speaker { metrics, health, .. } = &*self.all;
        metrics.bgp_up.get_or_create(&PeerLabel::of(name)).set(i64::from(now.is_up()));
        for family in berth_bgp::Family::ALL {
            let count = now.routes.get(&family).copied().unwrap_or_default();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.bgp_routes.get_or_create(&RouteLabel::of(name, family)).set(count);
        }
        self.tell.send_modify(|told| _ = told.0.insert(name.clone(), now.clone()));
        match self.tell.borrow().silence() {
            None => health.ready(CHECK),
            Some(why) => health.unready(CHECK, why),
        }
    }

    /// The router is told that the session ends, and why.
    async fn end(&mut self, handle: &Handle, stop: Stop) {
        let _ = tokio::time::timeout(FAREWELL, handle.stop(stop)).await;
        self.forget();
    }

    /// Nothing is told of it any more.
    fn forget(&mut self) {
        let (name, metrics) = (&self.terms.peer.name, &self.all.metrics);
        metrics.bgp_up.remove(&PeerLabel::of(name));
        for family in berth_bgp::Family::ALL {
            metrics.bgp_routes.remove(&RouteLabel::of(name, family));
        }
        self.tell.send_modify(|told| _ = told.0.remove(name));
    }
}

fn told(handle: Handle, routes: Arc<Routes>) -> BoxFuture<'static, Option<Arc<Routes>>> {
    Box::pin(async move { handle.told().await.ok().map(|()| routes) })
}

async fn ended(orders: &mut watch::Receiver<Vec<Announcement>>) {
    while orders.changed().await.is_ok() {}
}

fn vips(orders: &[Announcement]) -> BTreeSet<IpAddr> {
    orders.iter().map(|order| order.address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_of_a_router_counts_and_what_is_wrong_of_it_costs_no_other() {
        let health = Health::default();
        let (peers, _) = config::peers("192.0.2.1:65001,192.0.2.2:65001");
        let speaker = Speaker {
            node: "a".to_owned(),
            interface: None,
            speaker: config::Speaker::default(),
            peers,
            prefix: Some("example.com".to_owned()),
            metrics: Metrics::default(),
            health: health.clone(),
        };
        let note = |(key, value): (&str, &str)| (format!("example.com/{key}"), value.to_owned());
        let mut notes: Notes = [
            ("node-asn", "65010"),
            ("peer-asn", "65002"),
            ("src-ip", "192.0.2.11"),
            ("peer-ip", "192.0.2.1"),
            ("bgp-peers-0-node-asn", "0"),
        ]
        .map(note)
        .into();
        let wanted = speaker.wanted(&notes);
        let own: Vec<(&str, Option<u32>)> =
            wanted.iter().map(|(name, terms)| (name.as_str(), terms.peer.local_as)).collect();
        assert_eq!(own, [("192.0.2.1", Some(65010)), ("192.0.2.2", None)]);
        let id = RouterId::Is("192.0.2.11".parse().unwrap());
        assert!(wanted.values().all(|terms| terms.speaker.router_id == id));
        let told = health.unready_checks(Instant::now());
        assert!(told.iter().any(|(check, _)| *check == NOTES), "{told:?}");
        notes.clear();
        let wanted = speaker.wanted(&notes);
        assert_eq!((wanted.len(), wanted["192.0.2.1"].peer.local_as), (2, None));
        assert!(health.unready_checks(Instant::now()).is_empty());
    }
}
