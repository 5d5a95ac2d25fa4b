//! The announcer's side of membership: what it tells the driver, and when. Pure but for the channel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::election::Sight;
use berth_membership::{NodeId, Wish};
use tokio::sync::mpsc::UnboundedSender;

use super::exchange::{Command, Told};
use super::formers::Formers;
use super::holdings::Holdings;
use super::rival::Rival;
use super::steady::Steady;
use super::wishes::wishes;
use crate::advertise::arp_nd::probe::Probes;
use crate::advertise::arp_nd::schedule::Link;
use crate::backoff::Backoff;
use crate::desired::{Desired, Scene, connected, place, place_anywhere};
use crate::kernel::Binding;
use crate::source::cluster::Name;
use crate::vip::Forwards;
use crate::vip::nodes::{Peer, Peers};

/// This node as a member.
#[derive(Debug)]
pub struct Members {
    me: NodeId,
    /// The Lease by which others may hold the addresses still.
    lease: Name,
    rival: Rival,
    rival_listed: bool,
    told_of_rival: bool,
    peers: Peers,
    peers_listed: bool,
    holdings: Holdings,
    steady: Steady,
    formers: Formers,
    /// The detours that this node wants.
    detours: Forwards,
    commands: UnboundedSender<Command>,
    /// Whether what wishes come of has changed.
    stale: bool,
    settled: bool,
    leaving: bool,
    left: bool,
    covered: BTreeSet<IpAddr>,
    attached: BTreeSet<String>,
    wished: BTreeMap<IpAddr, Wish>,
    /// What the keeper knows to be bound.
    confirmed: BTreeSet<IpAddr>,
    handed: Backoff<IpAddr>,
}

impl Members {
    /// A member that has told the keeper nothing yet. It holds back while others hold `lease`.
    pub fn new(
        node: &str,
        lease: Name,
        fenced: bool,
        commands: UnboundedSender<Command>,
        now: Instant,
    ) -> Self {
        let me = NodeId::of(node);
        let second = Duration::from_secs(1);
        Self {
            me,
            lease,
            rival: Rival::default(),
            rival_listed: false,
            told_of_rival: false,
            peers: Peers::default(),
            peers_listed: false,
            holdings: Holdings::new(me, fenced, now),
            steady: Steady::default(),
            formers: Formers::default(),
            detours: Forwards::new(),
            commands,
            stale: true,
            settled: false,
            leaving: false,
            left: false,
            covered: BTreeSet::new(),
            attached: BTreeSet::new(),
            wished: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            handed: Backoff::new(second * 5, second * 60),
        }
    }

    /// What this node has.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Takes in what the keeper told. `host` is the node that is said to have the address now.
    pub fn told(&mut self, told: &Told, host: Option<&str>, now: Instant) {
        self.formers.take(told, host, self.me, now);
        self.left |= *told == Told::Left;
        if let Told::Prepare { address, .. } | Told::Discard(address) | Told::Lost { address, .. } =
            told
        {
            self.confirmed.remove(address);
        }
        self.holdings.take(told, now);
    }

    /// Takes in that something changed which wishes come of.
    pub fn touch(&mut self) {
        self.stale = true;
    }

    /// Takes in a node.
    pub fn peer(&mut self, name: String, peer: Option<Peer>) {
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
        self.tell(Command::Peers(self.peers.clone()));
    }

    /// Takes in what is seen of the Lease of the other election.
    pub fn lease(&mut self, name: &Name, sight: &Sight, node: &str, now: Instant) {
        if *name == self.lease {
            self.rival.observe(sight, node, now);
            self.stale = true;
        }
    }

    /// Takes in that every Lease was shown.
    pub fn leases_listed(&mut self) {
        self.rival_listed = true;
    }

    /// Hands everything over, then leaves.
    pub fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.tell(Command::Leave);
        }
    }

    /// Whether everything was handed over, or the time for it is over.
    pub fn has_left(&self) -> bool {
        self.left
    }

    /// Who holds the addresses by the other election, if that keeps this node from wishing for any.
    pub fn held_up(&self, now: Instant) -> Option<(&str, Instant)> {
        self.rival.holds(now).filter(|_| self.wished.is_empty())
    }

    /// When something may change although nothing happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        [self.steady.deadline(), self.formers.deadline(now)].into_iter().flatten().min()
    }

    /// The detours for what this node has or asks for.
    pub fn detour(&mut self, scene: Scene<'_>, now: Instant) -> Forwards {
        let near = |theirs: IpAddr| connected(scene.host, theirs).is_some();
        self.detours = self.formers.detours(&self.peers, near, now);
        self.detours.clone()
    }

    /// Takes in that the kernel was asked for these detours.
    pub fn detoured(&mut self, detours: Forwards) {
        self.formers.settled(detours);
    }

    /// Fences these interfaces.
    pub fn attach(&mut self, interfaces: BTreeSet<String>) {
        if interfaces != self.attached {
            self.tell(Command::Attach(interfaces.clone()));
            self.attached = interfaces;
        }
    }

    /// Tells the keeper what changed: first what is to be covered, then what is wished for. `known` tells whether all
    /// Services and their endpoints were shown; `refused` has the addresses that the kernel does not take.
    pub fn wish(
        &mut self,
        scene: Scene<'_>,
        refused: &BTreeSet<IpAddr>,
        known: bool,
        now: Instant,
    ) {
        self.holdings.rivalled(self.rival.holds(now).is_some());
        self.stale |= self.steady.observe(&scene.host.interfaces, now);
        if !known || !self.peers_listed || !self.rival_listed || !std::mem::take(&mut self.stale) {
            return;
        }
        self.cover(scene);
        if let Some((holder, _)) = self.rival.holds(now) {
            if !std::mem::replace(&mut self.told_of_rival, true) {
                tracing::warn!(lease = %self.lease, holder, "another announcer goes by this Lease still");
            }
            if self.wished.is_empty() {
                // Looked at again when the Lease changes, and when it runs out.
                self.stale = true;
                return;
            }
        } else {
            self.told_of_rival = false;
        }
        let interfaces = &scene.host.interfaces;
        let wary = |link: &Link| self.steady.is_wary(interfaces, link.index);
        let wishes = wishes(scene, &self.peers, refused, &wary);
        for (address, wish) in &wishes {
            if self.wished.get(address) != Some(wish) {
                self.tell(Command::Wish(*address, wish.clone()));
            }
        }
        for address in self.wished.keys().filter(|address| !wishes.contains_key(address)) {
            self.tell(Command::Unwish(*address));
        }
        self.wished = wishes;
    }

    /// What is bound anywhere may answer anywhere, so every address of a Service is covered on every node; and what is
    /// bound here stays covered until it is unbound.
    fn cover(&mut self, scene: Scene<'_>) {
        let services = scene.cluster.services().values().filter(|service| service.ours);
        let bound = scene.host.ours.keys().map(|binding| binding.address);
        let eips = scene.cluster.eips().values().flat_map(|eip| eip.addresses());
        let of_services = services.flat_map(|service| service.addresses.iter().copied());
        let covered: BTreeSet<IpAddr> = of_services.chain(eips).chain(bound).collect();
        if covered != self.covered || !self.settled {
            self.tell(Command::Cover(covered.clone()));
            self.covered = covered;
        }
        if !std::mem::replace(&mut self.settled, true) {
            self.tell(Command::Settle);
        }
    }

    /// Tells the keeper what is bound by now, and has its detour. Without a fence nothing is bound before its time, and
    /// what can be bound has to do, once `probes` allow it.
    pub fn confirm(&mut self, scene: Scene<'_>, desired: &Desired, probes: &Probes, now: Instant) {
        let bound = |address: IpAddr| {
            let link = desired.addresses.get(&address)?.link;
            let binding = Binding { index: link.index, address };
            scene.host.ours.contains_key(&binding).then_some(link)
        };
        let bindable = |address: IpAddr| {
            let services = scene.cluster.services().values().filter(|service| service.ours);
            let mut of_address = services.filter(|service| service.addresses.contains(&address));
            let of_service = of_address.find_map(|service| place(scene, service, address).ok());
            let mut eips = scene.cluster.eips().values().flat_map(|eip| eip.addresses());
            of_service.or_else(|| {
                eips.any(|eip| eip == address).then(|| place_anywhere(scene, address).ok())?
            })
        };
        let link = |address| match self.holdings.is_fenced() {
            true => bound(address),
            false => bindable(address).filter(|_| probes.allows(&address)),
        };
        let asked = self.holdings.preparing().filter(|address| !self.confirmed.contains(address));
        let live = |node| self.holdings.is_live(node);
        let asked = asked.filter(|address| !self.formers.awaits(address, &self.detours, live, now));
        let ready = asked.filter_map(|address| Some((address, link(address)?)));
        for (address, link) in ready.collect::<Vec<_>>() {
            self.confirmed.insert(address);
            self.tell(Command::Prepared(address, link));
        }
    }

    /// Has the fence looked at: somebody may have taken it away.
    pub fn inspect(&self) {
        self.tell(Command::Inspect);
    }

    /// Brings the addresses of a Service together again where they came apart: whoever has the first of them, by what
    /// its status says, is handed the others.
    pub fn gather(&mut self, scene: Scene<'_>, now: Instant) {
        // Also one that this node only has so that nobody else takes it, since another host answers for it.
        let held: BTreeSet<IpAddr> = self.holdings.all().collect();
        self.handed.retain(|address| held.contains(address));
        for service in scene.cluster.services().values().filter(|service| service.ours) {
            let Some((first, others)) = service.addresses.split_first() else { continue };
            let host = service.vip_host.as_deref().map(NodeId::of).filter(|host| *host != self.me);
            let elsewhere = host.is_some_and(|host| self.holdings.is_live(host));
            if !elsewhere || self.holdings.tenure(first).is_some() {
                continue;
            }
            for address in others.iter().filter(|address| held.contains(address)) {
                if self.handed.is_due(address, now) {
                    self.handed.again(*address, now);
                    self.tell(Command::HandOver(*address));
                }
            }
        }
    }

    fn tell(&self, command: Command) {
        // The keeper is gone only at the end of the program.
        let _ = self.commands.send(command);
    }
}
