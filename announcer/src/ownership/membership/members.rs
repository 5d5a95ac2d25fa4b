//! This node as a member: what it tells the driver of the protocol, and when. Pure but for the channel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::election::Held;
use berth_membership::{NodeId, Request};
use tokio::sync::mpsc::UnboundedSender;

use super::super::clearing::PATIENCE;
use super::super::context::Context;
use super::super::fence::{Fencing, Outline};
use super::super::health::Heard;
use super::damping::FlapDamping;
use super::draining::{Draining, is_near};
use super::exchange::{Command, MembershipEvent};
use super::fitness::Fitness;
use super::holdings::Holdings;
use super::left;
use super::report;
use super::requests::requests;
use super::rival::Rivalry;
use crate::backoff::Backoff;
use crate::vip::nodes::{Peer, Peers};
use crate::vip::{Attach, Claim, Claimant, Forwards, Hold, Holds, Name, Verdict, Wanted};

/// The kernel drops an address that nobody renews for so long: what keeps it silent meanwhile is the fence.
const KEPT: Duration = Duration::from_secs(60);

/// How far the lifetime of a bound address may fall behind before it is renewed.
const SLACK: Duration = Duration::from_secs(20);

/// This node as a member.
#[derive(Debug)]
pub struct Members {
    me: NodeId,
    rivalry: Rivalry,
    peers: Peers,
    peers_listed: bool,
    holdings: Holdings,
    damping: FlapDamping,
    draining: Draining,
    driver: Driver,
    /// Whether it may have the control plane's address, where that is what members decide on.
    fitness: Option<Fitness>,
    /// Whether was told that a majority of two is both.
    told_of_two: bool,
    /// Whether what requests come of has changed.
    stale: bool,
    /// When the first Lease by which others decide runs out.
    review_at: Option<Instant>,
    leaving: bool,
    left: bool,
    handed: Backoff<IpAddr>,
}

/// What the driver was told.
#[derive(Debug)]
struct Driver {
    commands: UnboundedSender<Command>,
    outline: Outline,
    requested: BTreeMap<IpAddr, Request>,
    /// What it knows to be bound.
    confirmed: BTreeSet<IpAddr>,
}

impl Members {
    /// A member that has told the driver nothing yet. It asks for nothing while others hold `lease`, if there is one, nor for
    /// what they decide on by Leases of single Services.
    pub fn new(
        node: &str,
        lease: Option<Name>,
        fenced: bool,
        commands: UnboundedSender<Command>,
        now: Instant,
    ) -> Self {
        let me = NodeId::of(node);
        let second = Duration::from_secs(1);
        Self {
            me,
            rivalry: Rivalry::new(lease),
            peers: Peers::default(),
            peers_listed: false,
            holdings: Holdings::new(me, fenced, now),
            damping: FlapDamping::default(),
            draining: Draining::default(),
            driver: Driver::new(commands),
            fitness: None,
            told_of_two: false,
            stale: true,
            review_at: None,
            leaving: false,
            left: false,
            handed: Backoff::new(second * 5, second * 60),
        }
    }

    /// The same, where members decide on the control plane's address: no Lease of a single Service matters.
    #[must_use]
    pub fn of_control_plane(mut self, fitness: Fitness) -> Self {
        self.rivalry.services_listed(&BTreeSet::new());
        Self { fitness: Some(fitness), ..self }
    }

    /// Whether members decide on the control plane's address.
    pub fn is_of_control_plane(&self) -> bool {
        self.fitness.is_some()
    }

    /// Takes in that this node was a member before, and goes on by what it has kept: the Lease is not waited for.
    pub fn resume(&mut self) {
        self.rivalry.resume();
    }

    /// Takes in what is known of the API server of this node; true if something may come of it.
    pub fn hear(&mut self, heard: Heard) -> bool {
        let is_news = self.fitness.as_mut().is_some_and(|fitness| fitness.hear(heard));
        self.stale |= is_news;
        is_news
    }

    /// What this node has.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Takes in what the driver told. `host` is the node that is said to have the address now.
    pub fn told(&mut self, told: &MembershipEvent, host: Option<&str>, now: Instant) {
        self.draining.take(told, host, self.me, now);
        self.left |= *told == MembershipEvent::Left;
        if let MembershipEvent::Prepare { address, .. }
        | MembershipEvent::Discard(address)
        | MembershipEvent::Lost { address, .. } = told
        {
            self.driver.confirmed.remove(address);
        }
        self.holdings.take(told, now);
        if let Some(fitness) = &mut self.fitness {
            fitness.take(told, now);
            // What it asks for goes by what it has, and nobody has.
            self.stale = true;
        }
    }

    /// Takes in that something changed which requests come of.
    pub fn touch(&mut self) {
        self.stale = true;
    }

    /// Takes in a node; nothing if it is gone.
    pub fn peer(&mut self, name: String, peer: Option<Peer>) {
        let meets = |peer| match &self.fitness {
            Some(fitness) => fitness.meets(peer),
            None => peer,
        };
        let peer = peer.map(meets);
        let changed = match peer {
            Some(peer) => self.peers.apply(name, peer),
            None => self.peers.delete(&name),
        };
        if changed && self.peers_listed {
            self.tell_peers();
        }
    }

    /// Takes in that these are all the nodes.
    pub fn peers(&mut self, names: &BTreeSet<String>) {
        self.peers.retain(names);
        self.peers_listed = true;
        self.tell_peers();
    }

    fn tell_peers(&mut self) {
        self.stale = true;
        let are_two = self.fitness.is_some() && self.peers.iter().count() == 2;
        if are_two && !std::mem::replace(&mut self.told_of_two, true) {
            tracing::warn!(
                "there are two control-plane nodes, and a majority of two is both: when one is gone nobody has the address until it is \
                 back, or until an API server takes the other's word. etcd of two stands still as well; three nodes do not"
            );
        }
        self.driver.tell(Command::Peers(self.peers.clone()));
    }

    /// Takes in what is seen of a Lease of another election; true if it may decide on something else now.
    pub fn lease(&mut self, name: &Name, held: &Held, now: Instant) -> bool {
        let is_news = self.rivalry.observe(name, held, now);
        self.stale |= is_news;
        is_news
    }

    /// Takes in that the Lease of the other election was shown, if there is one.
    pub fn leases_listed(&mut self) {
        self.rivalry.listed();
    }

    /// Takes in that these are all other Leases, as far as they may be seen.
    pub fn rivals_listed(&mut self, names: &BTreeSet<Name>) {
        self.rivalry.services_listed(names);
        self.stale = true;
    }

    /// The Lease without which nothing of a Service is asked for, while members have not got it and nobody else has.
    pub fn waits_for(&self, now: Instant) -> Option<&Name> {
        self.rivalry.waits_for(now)
    }

    /// Whether all Leases were shown by which others may decide.
    pub fn are_leases_listed(&self) -> bool {
        self.rivalry.is_listed()
    }

    /// Hands everything over, then leaves.
    pub fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.driver.tell(Command::Leave);
        }
    }

    /// The nodes there are, once all were shown.
    pub fn nodes(&self) -> Option<&Peers> {
        Some(&self.peers).filter(|_| self.peers_listed)
    }

    /// Whether everything was handed over, or the time for it is over.
    pub fn has_left(&self) -> bool {
        self.left
    }

    /// How far the lifetime of a bound address may fall behind before it is renewed.
    pub fn slack(&self) -> Duration {
        SLACK
    }

    /// When something may change although nothing happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let deadlines = [
            self.holdings.settles(now),
            self.rivalry.deadline(now),
            self.damping.deadline(),
            self.draining.deadline(now),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Where packets are to go of connections that began at a previous owner of what this node has or asks for.
    pub fn forwards(&mut self, context: Context<'_>, now: Instant) -> Forwards {
        let near = |theirs: IpAddr| is_near(context, theirs);
        self.draining.forwards(&self.peers, near, now)
    }

    /// Takes in that the kernel was asked to forward so.
    pub fn forwarded(&mut self, forwards: Forwards) {
        self.draining.settled(forwards);
    }

    /// Fences these interfaces.
    pub fn attach(&mut self, interfaces: BTreeSet<String>) {
        let told = self.driver.outline.attach(interfaces);
        told.into_iter().for_each(|told| self.driver.tell(Command::Fence(told)));
    }

    /// Has the fence looked at: somebody may have taken it away.
    pub fn inspect(&self) {
        self.driver.tell(Command::Fence(Fencing::Inspect));
    }

    /// Tells the driver what changed: first what is to be covered, then what is requested.
    pub fn request(&mut self, context: Context<'_>, now: Instant) {
        self.holdings.rivalled(self.rivalry.holds_all(now));
        self.stale |= self.damping.observe(&context.host.interfaces, now);
        self.stale |= self.review_at.is_some_and(|at| at <= now);
        if context.known
            && self.peers_listed
            && self.rivalry.is_listed()
            && std::mem::take(&mut self.stale)
        {
            let (me, peers) = (self.me, &self.peers);
            let elsewhere = |holder: &str| NodeId::of(holder) != me && peers.stay(holder).is_some();
            self.rivalry.find(context.wanted, elsewhere, now);
            let barred = self.rivalry.barred();
            // What others decide on they may answer for on this node. Not where one on another node does, and what is here was
            // left by one that crashed.
            let is_here = |address: &IpAddr| context.host.foreign().any(|(own, _)| own == address);
            let told = self.driver.outline.cover(context, |address, vip| {
                barred.leaves(address, vip) && !(barred.is_elsewhere(address) && is_here(address))
            });
            told.into_iter().for_each(|told| self.driver.tell(Command::Fence(told)));
            let interfaces = &context.host.interfaces;
            let is_last = |attach: &Attach| {
                let index = attach.index();
                self.damping.damps(interfaces, index) || context.host.is_exposed(index)
            };
            let mut requests = match &self.fitness {
                None => requests(context, &self.peers, &is_last),
                Some(fitness) => {
                    let mut peers = self.peers.clone();
                    // Its Node may come later than its API server.
                    if peers.get(context.node).is_none() {
                        peers.apply(context.node.to_owned(), Peer::default());
                    }
                    let requests = requests(context, &peers, &is_last).into_iter();
                    let suited = requests.map(|(address, request)| {
                        let has = self.holdings.tenure(&address).is_some();
                        let is_orphan = self.holdings.is_orphan(&address);
                        (address, fitness.suit(me, request, has, is_orphan))
                    });
                    suited.collect()
                }
            };
            // What this node has already it gives up: whoever acquired a Lease beside members answers by now.
            requests.retain(|address, _| {
                !context.wanted.vip(*address).is_some_and(|vip| barred.bars(address, vip))
            });
            self.driver.request(requests);
            self.review_at = self.rivalry.deadline(now);
        }
        self.gather(context.wanted, now);
    }

    /// Brings the addresses of a Service together again where they came apart: whoever has the first of them, by what
    /// its status says, is handed the others.
    fn gather(&mut self, wanted: &Wanted, now: Instant) {
        // Also one that this node only has so that nobody else takes it, since another host answers for it.
        let held: BTreeSet<IpAddr> = self.holdings.all().collect();
        self.handed.retain(|address| wanted.vip(*address).is_some());
        for (name, claim) in wanted.services.iter().filter(|(_, claim)| claim.ours) {
            let mut others = claim.servable();
            let Some(first) = others.next() else { continue };
            let host = claim.host.as_deref().map(NodeId::of).filter(|host| *host != self.me);
            let elsewhere = host.is_some_and(|host| self.holdings.is_live(host));
            if !elsewhere || self.holdings.tenure(first).is_some() {
                continue;
            }
            // Of an address that it shares the Service decides that had it first.
            let is_first = |address: &IpAddr| {
                let first = wanted.vip(*address).and_then(|vip| vip.wants.first());
                first.is_some_and(|want| want.claimant == Claimant::Service(name.clone()))
            };
            for address in others.filter(|own| held.contains(*own) && is_first(own)) {
                if self.handed.is_due(address, now) {
                    self.handed.again(*address, now);
                    self.driver.tell(Command::HandOver(*address));
                }
            }
        }
    }

    /// What this node may have bound.
    pub fn holds(&self, now: Instant) -> Holds {
        let bound = self.holdings.all().filter(|address| self.holdings.binds(address));
        let hold = |address: IpAddr| Hold {
            until: now + KEPT,
            answers: self.holdings.held_since(&address).is_some(),
            lapses: None,
        };
        bound.map(|address| (address, hold(address))).collect()
    }

    /// What becomes of the Services on which this node reports. `taken` tells which addresses another host has.
    pub fn verdicts(
        &self,
        context: Context<'_>,
        taken: &dyn Fn(&IpAddr) -> bool,
        now: Instant,
    ) -> BTreeMap<Name, Verdict> {
        let mut verdicts = report::verdicts(context, &self.peers, &self.holdings, taken, now);
        // What others decide on they report on, if they serve it.
        verdicts.retain(|service, _| !self.rivalry.barred().reports(service));
        verdicts.extend(left::verdicts(context, &self.rivalry, &self.holdings, now));
        verdicts.extend(left::waiting(context, &self.rivalry, &self.holdings, now));
        verdicts
    }

    /// After how long this node takes out of the status of a Service what is not its own to show: at once who has such an
    /// address, and else one of the live nodes.
    pub fn clears(&self, name: &Name, claim: &Claim, now: Instant) -> Option<Duration> {
        let has = |address: &IpAddr| self.holdings.held_since(address).is_some();
        if claim.out().any(has) {
            return Some(Duration::ZERO);
        }
        let is_anybodys = !claim.strays.is_empty();
        (is_anybodys && self.holdings.speaks_for(name, None, now)).then_some(PATIENCE)
    }

    /// Tells the driver what is `bound` by now, and may be taken over: what has to be forwarded is. Without a fence
    /// nothing is bound before its time, and that it can be has to do: `bindable`.
    pub fn confirm(
        &mut self,
        bound: impl Fn(IpAddr) -> Option<Attach>,
        bindable: impl Fn(IpAddr) -> Option<Attach>,
        now: Instant,
    ) {
        let place = |address| match self.holdings.is_fenced() {
            true => bound(address),
            false => bindable(address),
        };
        let confirmed = &self.driver.confirmed;
        let asked = self.holdings.preparing().filter(|address| !confirmed.contains(address));
        let live = |node| self.holdings.is_live(node);
        let asked = asked.filter(|address| !self.draining.awaits(address, live, now));
        let vouches = |address: &IpAddr| self.fitness.iter().all(|own| own.vouches(address));
        let asked = asked.filter(vouches);
        let ready: Vec<_> = asked.filter_map(|address| Some((address, place(address)?))).collect();
        for (address, attach) in ready {
            self.driver.confirmed.insert(address);
            self.driver.tell(Command::Prepared(address, attach.link()));
        }
    }
}

impl Driver {
    fn new(commands: UnboundedSender<Command>) -> Self {
        Self {
            commands,
            outline: Outline::default(),
            requested: BTreeMap::new(),
            confirmed: BTreeSet::new(),
        }
    }

    fn tell(&self, command: Command) {
        // The driver is gone only at the end of the program.
        let _ = self.commands.send(command);
    }

    fn request(&mut self, requests: BTreeMap<IpAddr, Request>) {
        for (address, request) in &requests {
            if self.requested.get(address) != Some(request) {
                self.tell(Command::Request(*address, request.clone()));
            }
        }
        for address in self.requested.keys().filter(|address| !requests.contains_key(address)) {
            self.tell(Command::Withdraw(*address));
        }
        self.requested = requests;
    }
}
