//! The task that has the peers. It ends when nobody orders anything any more: routers are told so, and keep nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::config::RouterId;
use berth_bgp::{Announcement, Asked, Event, LeftOut, Policy, Prefix, Routes, Session, Stop};
use berth_bgp_speaker::{Admission, Door, Find, Handle, News, Target, spawn_finding};
use berth_runtime::http::Health;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::awaited::Awaited;
use super::ending::Ending;
use super::passwords::{Secrets, key};
use super::peers::{Peers, Settings, Terms};
use super::place;
use super::port;
use super::routed::{Orders, Said};
use super::told::{PeerTold, Told};
use super::words::{self, Alarms};
use crate::config::Bgp;
use crate::metrics::{Metrics, PeerLabel, RouteLabel};

/// The name of the task.
pub const TASK: &str = "bgp";

/// Its readiness check.
const CHECK: &str = "bgp";

/// That of what the annotations of the node say.
const NOTES: &str = "bgp/annotations";

/// That of what the ConfigMap says.
const MAP: &str = "bgp/configmap";

/// How long the own Node is waited for: an account may not see it.
const NODE: Duration = Duration::from_secs(5);

/// That of the sessions that were up in an earlier life.
const RESTART: &str = "bgp/restart";
/// That of the port that peers connect to.
const PORT: &str = "bgp/listen";

/// How often what is in the way of a peer is looked at again.
const AGAIN: Duration = Duration::from_secs(2);

/// How often a session is looked at where nothing is told.
const LOOK: Duration = Duration::from_secs(5);

/// How long the last words of all sessions may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the speaker goes by.
pub struct Speaker {
    node: String,
    /// That of the node.
    interface: Option<String>,
    metrics: Metrics,
    health: Health,
    settings: Settings,
    awaited: Awaited,
    secrets: Secrets,
}

impl Speaker {
    /// Of a node with this interface, by settings. Passwords in Secrets are read by `secrets`.
    pub fn new(
        node: &str,
        interface: Option<String>,
        settings: &Bgp,
        secrets: Secrets,
        metrics: Metrics,
        health: Health,
    ) -> Self {
        let Bgp { speaker, peers, notes, is_mixed, .. } = settings.clone();
        let settings = Settings { speaker, peers, prefix: notes, is_mixed };
        let awaited = Awaited::default();
        Self { node: node.to_owned(), interface, metrics, health, settings, secrets, awaited }
    }

    /// The same, with the sessions that were up in an earlier life of this process: it is ready once they are again.
    pub fn awaiting(self, awaited: Awaited) -> Self {
        Self { awaited, ..self }
    }

    /// Keeps sessions with all peers, those that the node's annotations name among them, announces what is ordered, and tells
    /// what is known.
    pub async fn keep(
        self,
        mut said: watch::Receiver<Said>,
        mut orders: watch::Receiver<Orders>,
        tell: watch::Sender<Told>,
    ) {
        let (mut awaited, mut heard) = (self.awaited.clone(), tell.subscribe());
        let (all, tell) = (Arc::new(self), Arc::new(tell));
        all.health.unready(CHECK, tell.borrow().silence().unwrap_or_default());
        let mut lines: BTreeMap<String, (Terms, oneshot::Sender<()>)> = BTreeMap::new();
        let (mut peers, (set_policy, policy)) =
            (Peers::default(), watch::channel(Policy::default()));
        let ((set_door, door), mut open) = (watch::channel(None), None);
        let mut alarms = Alarms::default();
        let mut tasks = JoinSet::new();
        // What a node says of itself changes sessions that have begun without it.
        let all_said = async {
            let mut said = said.clone();
            _ = said.wait_for(|said| said.data.is_some()).await;
            _ = tokio::time::timeout(NODE, said.wait_for(|said| said.is_node_known)).await;
        };
        tokio::select! {
            () = all_said => {}
            () = ended(&mut orders) => return,
        }
        loop {
            peers.see(&all.settings, &said.borrow_and_update());
            for (check, flaws) in [(NOTES, &peers.of_notes), (MAP, &peers.of_map)] {
                all.tell_of(check, flaws);
                alarms.see(check, flaws);
            }
            // Before any peer is spoken to.
            tell.send_if_modified(|told| {
                let ports = peers.ports();
                let is_news = told.permits != peers.permits
                    || told.layer2 != peers.layer2
                    || told.unspoken != peers.unspoken
                    || *told.ports != ports
                    || told.addresses != peers.addresses;
                told.ports = Arc::new(ports);
                told.unspoken.clone_from(&peers.unspoken);
                told.permits.clone_from(&peers.permits);
                told.layer2.clone_from(&peers.layer2);
                told.addresses.clone_from(&peers.addresses);
                is_news
            });
            // No session ends for what it is told.
            set_policy.send_if_modified(|known| {
                let is_news = *known != peers.policy;
                known.clone_from(&peers.policy);
                is_news
            });
            // Another port is opened in the place of one that is closed.
            if open != peers.listen {
                set_door.send_replace(None);
                open = None;
                all.tell_of(PORT, &[]);
            }
            if let (None, Some(listen)) = (&open, &peers.listen) {
                match port::open(listen, &orders.borrow().vips()) {
                    Ok(door) => {
                        set_door.send_replace(Some(Arc::new(door)));
                        open = Some(listen.clone());
                        all.tell_of(PORT, &[]);
                    }
                    Err(why) => all.tell_of(PORT, &[why]),
                }
            }
            let is_shut = open != peers.listen;
            words::changes(lines.iter().map(|(name, (terms, _))| (name, terms)), &peers.all);
            // Who is named no more, or otherwise than before, is told so: its line ends with its end of the channel.
            lines.retain(|name, (terms, _)| peers.all.get(name) == Some(terms));
            for (name, terms) in &peers.all {
                if !lines.contains_key(name) {
                    let (go_on, ends) = oneshot::channel();
                    let line = Line::new(&all, terms.clone(), &policy, &orders, &tell, &door);
                    tasks.spawn(line.keep(ends));
                    lines.insert(name.clone(), (terms.clone(), go_on));
                }
            }
            let known = said.borrow().data.is_some();
            heard.mark_unchanged();
            let over = all.wait_for(&mut awaited, known.then_some(&peers), &tell);
            tokio::select! {
                Ok(()) = said.changed() => {}
                Some(_) = tasks.join_next() => {}
                Ok(()) = heard.changed(), if over.is_some() => {}
                () = until(over) => {}
                () = tokio::time::sleep(AGAIN), if is_shut => {}
                () = ended(&mut orders) => break,
            }
        }
        // Each ends by the same.
        while tasks.join_next().await.is_some() {}
    }

    /// Looks whether the sessions of an earlier life are up again. Gives when they are waited for no longer, if any is; not before
    /// it is known which peers there are.
    fn wait_for(
        &self,
        awaited: &mut Awaited,
        peers: Option<&Peers>,
        tell: &watch::Sender<Told>,
    ) -> Option<Instant> {
        if let Some(peers) = peers {
            awaited.see(&tell.borrow(), &peers.all, Instant::now());
        }
        match awaited.why() {
            Some(why) => self.health.unready(RESTART, why),
            None => self.health.forget(RESTART),
        }
        tell.send_if_modified(|told| {
            let is_news = told.awaited != *awaited.peers();
            told.awaited.clone_from(awaited.peers());
            is_news
        });
        if awaited.peers().is_empty() {
            return None;
        }
        awaited.until(&peers?.all)
    }

    /// Tells what is wrong with something, by its check.
    fn tell_of(&self, check: &'static str, flaws: &[String]) {
        match flaws.is_empty() {
            true => self.health.forget(check),
            false => self.health.unready(check, flaws.join("; ")),
        }
    }
}

/// What the task of a peer has at hand.
struct Line {
    all: Arc<Speaker>,
    terms: Terms,
    policy: watch::Receiver<Policy>,
    orders: watch::Receiver<Orders>,
    tell: Arc<watch::Sender<Told>>,
    /// The port that peers connect to, while it is open.
    door: watch::Receiver<Option<Arc<Door>>>,
    /// That this one is let in there.
    admission: Option<Admission>,
    now: PeerTold,
}

impl Line {
    fn new(
        all: &Arc<Speaker>,
        terms: Terms,
        policy: &watch::Receiver<Policy>,
        orders: &watch::Receiver<Orders>,
        tell: &Arc<watch::Sender<Told>>,
        door: &watch::Receiver<Option<Arc<Door>>>,
    ) -> Self {
        let (all, policy, orders, tell) =
            (all.clone(), policy.clone(), orders.clone(), tell.clone());
        let (survives, keeps) = (terms.restart().is_some(), terms.keeps());
        let (at, since) = (words::at(&terms.peer), Some(Instant::now()));
        let now = PeerTold { at, since, survives, keeps, ..PeerTold::default() };
        let (door, admission) = (door.clone(), None);
        Self { all, terms, policy, orders, tell, door, admission, now }
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
        if self.orders.borrow().announcements.is_none() {
            let why = "what an earlier life told it holds until this one knows what is wanted";
            self.tell(|now| now.last = Some(why.to_owned()));
        }
        self.orders.wait_for(|orders| orders.announcements.is_some()).await.ok()?;
        let mut orders = self.orders.clone();
        let found = async {
            loop {
                match self.place().await {
                    Ok(place) => break place,
                    Err(why) => {
                        if self.now.last.as_ref() != Some(&why) {
                            tracing::warn!(peer = %self.terms.peer.name, why, "no session");
                        }
                        self.tell(|now| now.last = Some(why));
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let (target, find, router_id, incoming) = tokio::select! {
            found = found => found,
            () = ended(&mut orders) => return None,
        };
        let (peer, speaker) = (&self.terms.peer, &self.terms.speaker);
        let parameters = peer.parameters(speaker, router_id);
        words::begins(peer, target.remote, router_id, parameters.local_as);
        let session = Session::new(Instant::now(), parameters, place::seed());
        let (hops, interface, orders) = (peer.hops, peer.interface.clone(), self.orders.clone());
        let addresses = Arc::new(move |end| {
            place::next_hops(hops, interface.as_deref(), end, &orders.borrow().vips())
        });
        let (handle, news) = spawn_finding(target, find, session, addresses, incoming);
        // Before anything is heard: a table that is empty when the session is up ends what routers have kept.
        self.announce(&handle).await?;
        let restarted = self.orders.borrow().restarted;
        handle.start(restarted).await.ok()?;
        Some((handle, news))
    }

    /// How the peer is reached, and how it reaches this node where it connects.
    async fn place(
        &mut self,
    ) -> Result<(Target, Find, Ipv4Addr, mpsc::Receiver<TcpStream>), String> {
        let Speaker { node, interface, secrets, .. } = &*self.all;
        let Terms { peer, speaker } = &self.terms;
        let vips = self.orders.borrow().vips();
        let id: &RouterId = &speaker.router_id;
        let router_id = place::router_id(id, node, interface.as_deref(), &vips)?;
        let local_as = peer.local_as.unwrap_or(speaker.local_as);
        let target = place::target(peer, local_as, secrets).await?;
        let find = place::find(peer.clone(), local_as, secrets.clone());
        if !peer.role.accepts() {
            return Ok((target, find, router_id, mpsc::channel(1).1));
        }
        let door = self.door.borrow().clone();
        let door = door.ok_or("waiting for the port that it is to connect to")?;
        let admitted = door.admit(target.remote.ip(), target.key.as_ref());
        let told = |error| format!("signing what comes to the port that it connects to: {error}");
        let (admission, incoming) = admitted.map_err(told)?;
        self.admission = Some(admission);
        Ok((target, find, router_id, incoming))
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
                        let stop = match &self.orders.borrow().ending {
                            Ending::Restart => Stop::Restart,
                            Ending::Drain(why) | Ending::Uninstall(why) => Stop::Shutdown(why.clone()),
                        };
                        return self.end(handle, stop).await;
                    }
                    let Some(routes) = self.announce(handle).await else { return };
                    wanted = routes;
                    telling = told(handle.clone(), wanted.clone());
                }
                Ok(()) = self.policy.changed() => {
                    let Some(routes) = self.announce(handle).await else { return };
                    wanted = routes;
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
                            self.now.is_complete = false;
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
                () = tokio::time::sleep(LOOK) => {
                    self.look(handle).await;
                    self.exchange().await;
                }
            }
        }
    }

    /// Has what a peer sends that connects signed with the password of now, where it has no session: it may be another one.
    async fn exchange(&mut self) {
        let (peer, secrets) = (&self.terms.peer, &self.all.secrets);
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
        let orders = self.orders.borrow_and_update().announcements.clone().unwrap_or_default();
        let policy = self.policy.borrow_and_update().clone();
        let routes = Arc::new(policy.routes(&self.terms.peer.name, &orders));
        let meant = Arc::new(covered(&orders, routes.keys().copied()));
        let is_wide = |prefix: &Prefix| prefix.length() < prefix.family().bits();
        let wide = Arc::new(routes.keys().copied().filter(is_wide).collect());
        let left_out = Arc::new(left_out(&policy, &self.terms.peer.name, &orders));
        self.tell(|now| (now.meant, now.wide, now.left_out) = (meant, wide, left_out));
        handle.set_routes((*routes).clone()).await.ok()?;
        Some(routes)
    }

    /// Takes in that the peer has been told these, as far as it speaks their families.
    fn knows(&mut self, routes: &Routes) {
        let families: BTreeSet<_> = self.now.routes.keys().copied().collect();
        let told = routes.keys().filter(|prefix| families.contains(&prefix.family()));
        let announced = self.orders.borrow().announcements.clone().unwrap_or_default();
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
            tracing::warn!(peer = %self.terms.peer.name, state = %status.state, why, "no session");
        }
        let agreed = status.agreed;
        let untold = agreed.as_ref().map(words::untold).unwrap_or_default();
        for (family, why) in
            untold.iter().filter(|(family, _)| !self.now.untold.contains_key(family))
        {
            tracing::warn!(peer = %self.terms.peer.name, %family, "no route of it is told: {why}");
        }
        let asks = self.terms.restart().is_some();
        self.tell(|now| {
            now.state = status.state;
            now.since = Some(status.since);
            (now.last, now.last_at) = (last, last_at);
            now.untold = untold;
            now.routes = agreed.as_ref().map(|agreed| agreed.told.clone()).unwrap_or_default();
            match &agreed {
                Some(agreed) => now.survives = asks && agreed.peer_restart.is_some(),
                None => (now.knows, now.is_complete) = Default::default(),
            }
        });
    }

    fn tell(&mut self, change: impl FnOnce(&mut PeerTold)) {
        let before = self.now.clone();
        change(&mut self.now);
        if self.now == before
            && self.tell.borrow().peers.get(&self.terms.peer.name) == Some(&self.now)
        {
            return;
        }
        let (name, now) = (&self.terms.peer.name, &self.now);
        let Speaker { metrics, health, .. } = &*self.all;
        metrics.bgp_up.get_or_create(&PeerLabel::of(name)).set(i64::from(now.is_up()));
        // From the beginning: who asks for its increase misses the first one else.
        drop(metrics.bgp_lost.get_or_create(&PeerLabel::of(name)));
        for family in berth_bgp::Family::ALL {
            let count = now.routes.get(&family).copied().unwrap_or_default();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.bgp_routes.get_or_create(&RouteLabel::of(name, family)).set(count);
        }
        self.tell.send_modify(|told| _ = told.peers.insert(name.clone(), now.clone()));
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
        self.admission = None;
        let (name, metrics) = (&self.terms.peer.name, &self.all.metrics);
        metrics.bgp_up.remove(&PeerLabel::of(name));
        for family in berth_bgp::Family::ALL {
            metrics.bgp_routes.remove(&RouteLabel::of(name, family));
        }
        self.tell.send_modify(|told| _ = told.peers.remove(name));
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

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
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
