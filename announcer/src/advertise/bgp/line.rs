//! The task of one peer of this node: what its session is to be, what it is told, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::{
    Announcement, Asked, Event, Family, LeftOut, Policy, Prefix, Routes, Session, Stop,
};
use berth_bgp_speaker::{Addresses, Admission, Door, Handle, News, Reach, Target, spawn_finding};
use berth_runtime::http::Health;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::ending::Ending;
use super::hops::{self, Own};
use super::passwords::{Secrets, key};
use super::peers::Terms;
use super::place;
use super::routed::Orders;
use super::told::{PeerTold, Told};
use super::words;
use crate::metrics::{Metrics, PeerLabel, RouteLabel};

/// The readiness check of all sessions.
const CHECK: &str = "bgp";

/// How often what is in the way of a peer is looked at again.
const AGAIN: Duration = Duration::from_secs(2);

/// How often a session is looked at where nothing is told.
const LOOK: Duration = Duration::from_secs(5);

/// How long the last words of all sessions may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is the same for all peers, as long as the process lives.
pub(super) struct Desk {
    pub(super) node: String,
    /// That of the node.
    pub(super) interface: Option<String>,
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    pub(super) secrets: Secrets,
}

impl Desk {
    /// Tells what is wrong with something, by its check.
    pub(super) fn tell_of(&self, check: &'static str, flaws: &[String]) {
        match flaws.is_empty() {
            true => self.health.forget(check),
            false => self.health.unready(check, flaws.join("; ")),
        }
    }

    /// Tells whether routers are told of this node, and by which peers they are not.
    pub(super) fn judge(&self, told: &Told) {
        match (told.silence(), told.down()) {
            (Some(why), _) if told.is_apart() => self.health.missing(CHECK, why),
            (Some(why), _) => self.health.unready(CHECK, why),
            (None, Some(others)) => self.health.missing(CHECK, others),
            (None, None) => self.health.ready(CHECK),
        }
    }
}

/// What all lines go by.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) desk: Arc<Desk>,
    pub(super) policy: watch::Receiver<Policy>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) tell: Arc<watch::Sender<Told>>,
    /// The port that peers connect to, while it is open.
    pub(super) door: watch::Receiver<Option<Arc<Door>>>,
    /// The addresses of the host.
    pub(super) own: watch::Receiver<Own>,
}

/// What the task of a peer has at hand.
pub(super) struct Line {
    around: Around,
    /// What the session is to be; at the end of it the peer is one no more.
    edits: watch::Receiver<Terms>,
    terms: Terms,
    /// What is wanted is not followed yet.
    is_behind: bool,
    /// That the peer is let in at the port.
    admission: Option<Admission>,
    now: PeerTold,
}

/// A session that was begun.
struct Begun {
    handle: Handle,
    news: mpsc::UnboundedReceiver<News>,
    /// How the peer was reached then.
    target: Target,
}

impl Line {
    pub(super) fn new(around: Around, edits: watch::Receiver<Terms>) -> Self {
        let terms = edits.borrow().clone();
        let now = PeerTold { since: Some(Instant::now()), ..PeerTold::default() };
        let mut line = Self { around, edits, terms, is_behind: false, admission: None, now };
        line.takes();
        line
    }

    /// Takes in what is wanted now.
    fn takes(&mut self) {
        self.terms = self.edits.borrow_and_update().clone();
        (self.now.survives, self.now.keeps) = (self.terms.restart().is_some(), self.terms.keeps());
        self.now.at = words::at(&self.terms.peer);
    }

    fn name(&self) -> &str {
        &self.terms.peer.name
    }

    /// Keeps the session until nobody orders anything any more, or this peer is not wanted.
    pub(super) async fn keep(mut self) {
        self.tell(|now| now.last = None);
        match self.open().await {
            Some(begun) => self.run(begun).await,
            None => self.forget(),
        }
    }

    /// Starts the session, as soon as all is there that it goes by; nothing where it is over before.
    async fn open(&mut self) -> Option<Begun> {
        let (mut orders, mut edits) = (self.around.orders.clone(), self.edits.clone());
        if orders.borrow().announcements.is_none() {
            let why = "what an earlier life told it holds until this one knows what is wanted";
            self.tell(|now| now.last = Some(why.to_owned()));
        }
        tokio::select! {
            known = orders.wait_for(|orders| orders.announcements.is_some()) => { known.ok()?; }
            () = removed(edits.clone()) => return None,
        }
        let (target, router_id, incoming) = loop {
            if self.edits.has_changed().ok()? {
                self.follow_name();
            }
            let placed = tokio::select! {
                placed = self.place() => placed,
                () = ended(&mut orders) => return None,
                _ = edits.changed() => continue,
            };
            let why = match placed {
                Ok(placed) => break placed,
                Err(why) => why,
            };
            if self.now.last.as_ref() != Some(&why) {
                tracing::warn!(peer = %self.name(), why, "no session");
            }
            self.tell(|now| now.last = Some(why));
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = ended(&mut orders) => return None,
                _ = edits.changed() => {}
            }
        };
        let parameters = self.terms.peer.parameters(&self.terms.speaker, router_id);
        words::begins(&self.terms.peer, target.remote, router_id, parameters.local_as);
        let session = Session::new(Instant::now(), parameters, place::seed());
        let Reach { find, addresses, .. } = self.reach(&target);
        let (handle, news) = spawn_finding(target.clone(), find, session, addresses, incoming);
        // Before anything is heard: a table that is empty when the session is up ends what routers have kept.
        self.announce(&handle).await?;
        let restarted = self.around.orders.borrow().restarted;
        handle.start(restarted).await.ok()?;
        Some(Begun { handle, news, target })
    }

    /// How the peer is reached, and how it reaches this node where it connects.
    async fn place(&mut self) -> Result<(Target, Ipv4Addr, mpsc::Receiver<TcpStream>), String> {
        let router_id = self.router_id()?;
        let Terms { peer, speaker } = &self.terms;
        let target = place::target(peer, speaker.local_as, &self.around.desk.secrets).await?;
        let incoming = match peer.role.accepts() {
            true => self.admit(&target)?,
            false => mpsc::channel(1).1,
        };
        Ok((target, router_id, incoming))
    }

    fn router_id(&self) -> Result<Ipv4Addr, String> {
        let Desk { node, interface, .. } = &*self.around.desk;
        let vips = self.around.orders.borrow().vips();
        place::router_id(&self.terms.speaker.router_id, node, interface.as_deref(), &vips)
    }

    /// From now on connections of the peer are let in, signed as its own are.
    fn admit(&mut self, target: &Target) -> Result<mpsc::Receiver<TcpStream>, String> {
        let door = self.around.door.borrow().clone();
        let door = door.ok_or("waiting for the port that it is to connect to")?;
        let admitted = door.admit(target.remote.ip(), target.key.as_ref());
        let told = |error| format!("signing what comes to the port that it connects to: {error}");
        let (admission, incoming) = admitted.map_err(told)?;
        self.admission = Some(admission);
        Ok(incoming)
    }

    /// How the peer is reached by what is wanted now, where this is how it was.
    fn reach(&self, target: &Target) -> Reach {
        let (around, Terms { peer, speaker }) = (&self.around, &self.terms);
        let target = Target {
            distance: peer.distance,
            external: place::is_external(peer, speaker.local_as),
            ..target.clone()
        };
        let find = place::find(peer.clone(), speaker.local_as, around.desk.secrets.clone());
        let (by, interface) = (peer.hops, peer.interface.clone());
        let (own, orders) = (around.own.clone(), around.orders.clone());
        let addresses: Addresses = Arc::new(move |end, before| {
            let mut own = own.borrow().clone();
            // What has come since it was looked at.
            if let Ok(all) = hops::look() {
                own.see(all, Instant::now());
            }
            let vips = orders.borrow().vips();
            hops::next_hops((by, interface.as_deref()), end, before, &own, &vips)
        });
        Reach { target, find, addresses }
    }

    async fn run(mut self, begun: Begun) {
        let Begun { handle, mut news, target } = begun;
        // What the peer is being told; it has been when the future is done.
        let mut telling: BoxFuture<'static, Option<Arc<Routes>>> = Box::pin(std::future::pending());
        let mut wanted: Arc<Routes> = Arc::default();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.around.orders.mark_changed();
        loop {
            // Whether it is to be told what it does not know yet.
            let is_news = tokio::select! {
                changed = self.around.orders.changed() => {
                    if changed.is_err() {
                        let stop = match &self.around.orders.borrow().ending {
                            Ending::Restart => Stop::Restart,
                            Ending::Drain(why) | Ending::Uninstall(why) => Stop::Shutdown(why.clone()),
                        };
                        return self.end(&handle, stop).await;
                    }
                    true
                }
                Ok(()) = self.around.policy.changed() => true,
                edited = self.edits.changed() => {
                    if edited.is_err() {
                        return self.end(&handle, Stop::Removed).await;
                    }
                    self.edit(&handle, &target).await;
                    true
                }
                Ok(()) = self.around.own.changed() => {
                    let Ok(()) = handle.look().await else { return };
                    false
                }
                Some(News { event, .. }) = news.recv() => {
                    if let Event::Established | Event::Moved = event {
                        telling = told(handle.clone(), wanted.clone());
                    }
                    self.hear(event);
                    self.look(&handle).await;
                    false
                }
                done = &mut telling => {
                    telling = Box::pin(std::future::pending());
                    if let Some(routes) = done {
                        self.look(&handle).await;
                        self.knows(&routes);
                    }
                    false
                }
                _ = looks.tick() => {
                    self.look(&handle).await;
                    self.exchange().await;
                    if self.is_behind {
                        self.edit(&handle, &target).await;
                    }
                    false
                }
            };
            if is_news {
                let Some(routes) = self.announce(&handle).await else { return };
                wanted = routes;
                telling = told(handle.clone(), wanted.clone());
            }
        }
    }

    fn hear(&mut self, event: Event) {
        let peer = self.name();
        match event {
            Event::Established => tracing::info!(%peer, "the session is up"),
            Event::Down(why) => {
                tracing::warn!(%peer, %why, "the session is down");
                self.around.desk.metrics.bgp_lost.get_or_create(&PeerLabel::of(peer)).inc();
                self.now.knows = Arc::default();
                self.now.is_complete = false;
            }
            Event::Moved => tracing::info!(%peer, "routes lead to other addresses of this node"),
            Event::EndOfRib(_) => {}
        }
    }

    /// Has the session be as it is wanted now: it begins anew only where the peer was told another thing, without a word where the
    /// router keeps routes meanwhile. As long as that cannot be it goes on as it was.
    async fn edit(&mut self, handle: &Handle, target: &Target) {
        self.follow_name();
        let why = self.adjust(handle, target).await.err();
        if let (Some(why), false) = (&why, self.is_behind) {
            tracing::warn!(peer = %self.name(), why, "what is edited is not followed yet");
        }
        self.is_behind = why.is_some();
        self.look(handle).await;
    }

    async fn adjust(&mut self, handle: &Handle, target: &Target) -> Result<(), String> {
        let router_id = self.router_id()?;
        let Terms { peer, speaker } = &self.terms;
        let parameters = peer.parameters(speaker, router_id);
        let reach = self.reach(target);
        let gone = |_| "its task is gone".to_owned();
        if peer.role.accepts() {
            let key = match &peer.password {
                Some(password) => Some(key(password, &self.around.desk.secrets).await?),
                None => None,
            };
            let incoming = self.admit(&Target { key, ..target.clone() })?;
            handle.admit(incoming).await.map_err(gone)?;
        } else {
            self.admission = None;
        }
        handle.reach(reach).await.map_err(gone)?;
        handle.reconfigure(parameters).await.map_err(gone)
    }

    /// Takes in what is wanted now. Where that is another name, all that is told is told by it from now on.
    fn follow_name(&mut self) {
        let (before, known) = (self.name().to_owned(), self.now.clone());
        let asked = self.terms.restart().is_some();
        self.takes();
        // What a router was told holds until the session is another.
        self.now.keeps = self.now.keeps.max(known.keeps);
        self.now.survives &= known.survives || !asked;
        let (name, now) = (self.name(), &self.now);
        if before == name {
            return;
        }
        tracing::info!(peer = %name, %before, "a peer has another name");
        self.around.tell.send_modify(|told| {
            if told.peers.get(&before) == Some(&known) {
                told.peers.remove(&before);
            }
            told.peers.insert(name.to_owned(), now.clone());
        });
        self.unmeasure(&before);
        self.measure();
    }

    /// Has metrics show what is known of it.
    fn measure(&self) {
        let (name, now, metrics) = (self.name(), &self.now, &self.around.desk.metrics);
        metrics.bgp_up.get_or_create(&PeerLabel::of(name)).set(i64::from(now.is_up()));
        // From the beginning: who asks for its increase misses the first one else.
        drop(metrics.bgp_lost.get_or_create(&PeerLabel::of(name)));
        for family in Family::ALL {
            let count = now.routes.get(&family).copied().unwrap_or_default();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.bgp_routes.get_or_create(&RouteLabel::of(name, family)).set(count);
        }
    }

    /// Has them show nothing of whoever had this name.
    fn unmeasure(&self, name: &str) {
        let metrics = &self.around.desk.metrics;
        metrics.bgp_up.remove(&PeerLabel::of(name));
        for family in Family::ALL {
            metrics.bgp_routes.remove(&RouteLabel::of(name, family));
        }
    }

    /// Has what a peer sends that connects signed with the password of now, where it has no session: it may be another one.
    async fn exchange(&mut self) {
        let (peer, secrets) = (&self.terms.peer, &self.around.desk.secrets);
        let (Some(admission), Some(password), false) =
            (&self.admission, &peer.password, self.now.is_up())
        else {
            return;
        };
        let why = match key(password, secrets).await {
            Ok(key) => admission.exchange(Some(&key)).err().map(|error| error.to_string()),
            Err(why) => Some(why),
        };
        if why.is_some() {
            self.tell(|now| now.last = why);
        }
    }

    /// Has the peer told what it is to know by now; nothing where its task is gone.
    async fn announce(&mut self, handle: &Handle) -> Option<Arc<Routes>> {
        let orders = self.around.orders.borrow_and_update().announcements.clone();
        let (orders, policy) =
            (orders.unwrap_or_default(), self.around.policy.borrow_and_update().clone());
        let routes = Arc::new(policy.routes(self.name(), &orders));
        let meant = Arc::new(covered(&orders, routes.keys().copied()));
        let is_wide = |prefix: &Prefix| prefix.length() < prefix.family().bits();
        let wide = Arc::new(routes.keys().copied().filter(is_wide).collect());
        let left_out = Arc::new(left_out(&policy, self.name(), &orders));
        self.tell(|now| (now.meant, now.wide, now.left_out) = (meant, wide, left_out));
        handle.set_routes((*routes).clone()).await.ok()?;
        Some(routes)
    }

    /// Takes in that the peer has been told these, as far as it speaks their families.
    fn knows(&mut self, routes: &Routes) {
        let families: BTreeSet<_> = self.now.routes.keys().copied().collect();
        let told = routes.keys().filter(|prefix| families.contains(&prefix.family()));
        let announced = self.around.orders.borrow().announcements.clone().unwrap_or_default();
        let known = Arc::new(covered(&announced, told.copied()));
        let is_up = self.now.is_up();
        self.tell(|now| {
            now.knows = if is_up { known } else { Arc::default() };
            now.is_complete = is_up;
        });
    }

    async fn look(&mut self, handle: &Handle) {
        let Ok(status) = handle.status().await else { return };
        let last_at = status.last.as_ref().map(|(at, _)| *at);
        let last = status.last.map(|(_, why)| why.to_string());
        let is_news = self.now.last != last || self.now.state != status.state;
        if let (true, Some(why), false) = (is_news, &last, status.agreed.is_some()) {
            tracing::warn!(peer = %self.name(), state = %status.state, why, "no session");
        }
        let agreed = status.agreed;
        let untold = agreed.as_ref().map(words::untold).unwrap_or_default();
        for (family, why) in
            untold.iter().filter(|(family, _)| !self.now.untold.contains_key(family))
        {
            tracing::warn!(peer = %self.name(), %family, "no route of it is told: {why}");
        }
        let (asks, keeps) = (self.terms.restart().is_some(), self.terms.keeps());
        self.tell(|now| {
            (now.state, now.since) = (status.state, Some(status.since));
            (now.last, now.last_at) = (last, last_at);
            now.untold = untold;
            now.is = agreed.as_ref().map(|agreed| (agreed.peer_as, agreed.peer_id));
            now.routes = agreed.as_ref().map(|agreed| agreed.told.clone()).unwrap_or_default();
            match &agreed {
                Some(agreed) => {
                    (now.survives, now.keeps) = (asks && agreed.peer_restart.is_some(), keeps);
                }
                None => (now.knows, now.is_complete) = Default::default(),
            }
        });
    }

    fn tell(&mut self, change: impl FnOnce(&mut PeerTold)) {
        let before = self.now.clone();
        change(&mut self.now);
        let (name, now) = (self.name(), &self.now);
        let Around { desk, tell, .. } = &self.around;
        if *now == before && tell.borrow().peers.get(name) == Some(now) {
            return;
        }
        self.measure();
        tell.send_modify(|told| _ = told.peers.insert(name.to_owned(), now.clone()));
        desk.judge(&tell.borrow());
    }

    /// The router is told that the session ends, and why.
    async fn end(&mut self, handle: &Handle, stop: Stop) {
        let _ = tokio::time::timeout(FAREWELL, handle.stop(stop)).await;
        self.forget();
    }

    /// Nothing is told of it any more, unless another has its name by now.
    fn forget(&mut self) {
        self.admission = None;
        let Around { desk, tell, .. } = &self.around;
        let name = self.name();
        if tell.borrow().peers.get(name) != Some(&self.now) {
            return;
        }
        self.unmeasure(name);
        tell.send_modify(|told| _ = told.peers.remove(name));
        desk.judge(&tell.borrow());
    }
}

/// What a peer is not told of what is asked for, by address.
fn left_out(policy: &Policy, peer: &str, orders: &[Announcement]) -> BTreeMap<IpAddr, LeftOut> {
    let asking = orders.iter().filter(|order| order.asked != Asked::default());
    let left = asking.map(|order| (order.address, policy.left_out(peer, order)));
    left.filter(|(_, left)| !left.is_nothing()).collect()
}

fn told(handle: Handle, routes: Arc<Routes>) -> BoxFuture<'static, Option<Arc<Routes>>> {
    Box::pin(async move { handle.told().await.ok().map(|()| routes) })
}

async fn ended(orders: &mut watch::Receiver<Orders>) {
    while orders.changed().await.is_ok() {}
}

async fn removed(mut edits: watch::Receiver<Terms>) {
    while edits.changed().await.is_ok() {}
}

/// The addresses that some of these routes stand for: one may be told as a part of a longer stretch.
fn covered(orders: &[Announcement], routes: impl Iterator<Item = Prefix>) -> BTreeSet<IpAddr> {
    let routes: BTreeSet<Prefix> = routes.collect();
    let lengths: BTreeSet<u8> = routes.iter().map(|prefix| prefix.length()).collect();
    let is_told = |address: &IpAddr| {
        let host = Prefix::host(*address);
        lengths.iter().any(|length| routes.contains(&host.widened(*length)))
    };
    orders.iter().map(|order| order.address).filter(is_told).collect()
}
