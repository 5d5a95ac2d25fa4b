//! The task that has the peers. It ends when nobody orders anything any more: routers are told so, and keep nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::config::{self, Peer, RouterId};
use berth_bgp::{Announcement, Event, Policy, Prefix, Routes, Session, Stop};
use berth_bgp_speaker::{Handle, News, spawn};
use berth_runtime::http::Health;
use futures::future::{BoxFuture, join_all};
use tokio::sync::{mpsc, watch};

use super::place;
use super::told::{PeerTold, Told};
use crate::metrics::{Metrics, PeerLabel, RouteLabel};

/// The name of the task.
pub const TASK: &str = "bgp";

/// Its readiness check.
const CHECK: &str = "bgp";

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
    /// Numbers.
    pub metrics: Metrics,
    /// Probes.
    pub health: Health,
}

impl Speaker {
    /// Keeps sessions with all peers, announces what is ordered, and tells what is known.
    pub async fn keep(
        self,
        mut orders: watch::Receiver<Vec<Announcement>>,
        tell: watch::Sender<Told>,
    ) {
        let names = self.peers.iter().map(|peer| (peer.name.clone(), PeerTold::default()));
        tell.send_replace(Told(names.collect()));
        self.health.unready(CHECK, tell.borrow().silence().unwrap_or_default());
        let (all, tell) = (Arc::new(self), Arc::new(tell));
        let each = all
            .peers
            .iter()
            .map(|peer| one(all.clone(), peer.clone(), orders.clone(), tell.clone()));
        join_all(each).await;
        // Without a peer there is nobody to be told anything, and somebody may still want to.
        ended(&mut orders).await;
    }
}

/// What the task of a peer has at hand.
struct Line {
    all: Arc<Speaker>,
    peer: Peer,
    orders: watch::Receiver<Vec<Announcement>>,
    tell: Arc<watch::Sender<Told>>,
    now: PeerTold,
}

async fn one(
    all: Arc<Speaker>,
    peer: Peer,
    orders: watch::Receiver<Vec<Announcement>>,
    tell: Arc<watch::Sender<Told>>,
) {
    let mut line = Line { all, peer, orders, tell, now: PeerTold::default() };
    let Some((handle, news)) = line.open().await else { return };
    line.run(handle, news).await;
}

impl Line {
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
        let (peer, speaker) = (&self.peer, &self.all.speaker);
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
        let Speaker { node, interface, speaker, .. } = &*self.all;
        let vips = vips(&self.orders.borrow());
        let id: &RouterId = &speaker.router_id;
        let router_id = place::router_id(id, node, interface.as_deref(), &vips)?;
        let target = place::target(&self.peer, self.peer.local_as.unwrap_or(speaker.local_as))?;
        Ok((target, router_id))
    }

    async fn run(mut self, handle: Handle, mut news: mpsc::UnboundedReceiver<News>) {
        // What the peer is being told; it has been when the future is done.
        let mut telling: BoxFuture<'static, Option<Arc<Routes>>> = Box::pin(std::future::pending());
        let mut wanted: Arc<Routes> = Arc::default();
        self.orders.mark_changed();
        loop {
            tokio::select! {
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return self.end(&handle).await;
                    }
                    let orders = self.orders.borrow_and_update().clone();
                    wanted = Arc::new(Policy::default().routes(&self.peer.name, &orders));
                    if handle.set_routes((*wanted).clone()).await.is_err() {
                        return;
                    }
                    telling = told(handle.clone(), wanted.clone());
                }
                Some(News { event, .. }) = news.recv() => {
                    match event {
                        Event::Established => {
                            tracing::info!(peer = %self.peer.name, "the session is up");
                            telling = told(handle.clone(), wanted.clone());
                        }
                        Event::Down(why) => {
                            tracing::warn!(peer = %self.peer.name, %why, "the session is down");
                            self.all.metrics.bgp_lost.get_or_create(&PeerLabel::of(&self.peer.name)).inc();
                            self.now.knows = Arc::default();
                        }
                        Event::EndOfRib(_) => {}
                    }
                    self.look(&handle).await;
                }
                done = &mut telling => {
                    telling = Box::pin(std::future::pending());
                    if let Some(routes) = done {
                        self.look(&handle).await;
                        self.knows(&routes);
                    }
                }
                () = tokio::time::sleep(LOOK) => self.look(&handle).await,
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
            tracing::warn!(peer = %self.peer.name, state = %status.state, why, "no session");
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
        if self.now == before && self.tell.borrow().0.get(&self.peer.name) == Some(&self.now) {
            return;
        }
        let (name, now) = (&self.peer.name, &self.now);
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

    /// The router is told that this node goes, and why.
    async fn end(mut self, handle: &Handle) {
        let reason = "the announcer ends".to_owned();
        let _ = tokio::time::timeout(FAREWELL, handle.stop(Stop::Shutdown(reason))).await;
        self.tell(|now| {
            *now = PeerTold { last: Some("the announcer ends".to_owned()), ..PeerTold::default() }
        });
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
