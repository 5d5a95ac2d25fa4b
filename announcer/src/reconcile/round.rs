//! One round: look, hear, decide, perform, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Announcer;
use super::desired::Desired;
use super::detection;
use super::leading;
use super::plan::plan;
use super::slow::timed;
use crate::advertise::bgp::Routed;
use crate::kernel::{Binding, Guard, Kernel, Listening, Vlan};
use crate::metrics::cause;
use crate::ownership::leases::Turn;
use crate::ownership::{Backstop, Context, Ownership};
use crate::publish::eip::Outlook;
use crate::publish::labels;
use crate::publish::status::Answering;
use crate::source::{own, placement};
use crate::vip::{Attach, Claim, Forwards, Holds, Link, Name, Voice};

/// Pause between looks at the kernel when it tells of no change.
const LOOK: Duration = Duration::from_secs(10);

/// What readiness is told under while the control plane's address has no place here.
const PLACE: &str = "control plane's place";

/// A round must come by this often, or the process is stuck.
const STUCK: Duration = Duration::from_secs(60);

impl<K: Kernel> Announcer<K> {
    /// Decides and performs once. Gives the moment at which the next round is due if nothing happens before.
    pub async fn round(&mut self) -> Instant {
        let now = Instant::now();
        self.outlets.health.alive("loop", now, STUCK);
        if self.look_at <= now {
            self.look(now).await;
        }
        self.hear(now);
        if let Some(routed) = &self.routed {
            let told = routed.told();
            self.sight.divide(told.layer2);
            self.sight.know_routers(&told.addresses.all);
        }
        let refreshed = self.sight.refresh(now);
        if refreshed {
            let guarded = placement::guarded(self.sight.scene());
            let interfaces = &self.sight.host.interfaces;
            let index = |name: &String| Some(interfaces.get(name)?.index);
            self.links = guarded.iter().filter_map(index).collect();
            if let Some(backstop) = &mut self.backstop {
                backstop.attach(guarded);
            } else if let Some(members) = self.members() {
                members.attach(guarded);
            }
        }
        self.hear_routers(now);
        if refreshed || self.routers_are_news() {
            self.tell_of_host();
            self.tell_of_place();
            self.ask_proxy();
        }
        let refused = self.hands.refused();
        let (holds, forwards) = self.request(&refused, now);
        self.ask_api_servers();
        self.tell_of_the_members_lease(now);
        self.dataplane.forward.want(forwards);
        self.ask(&refused, now);
        let Self { elastic, config, sight, lan, dataplane, publisher, .. } = self;
        for (eip, note) in elastic.translate(config, sight, lan, dataplane, now) {
            publisher.advise(&sight.wanted, eip, note, now);
        }

        let desired = self.decide(&refused, &holds, now);
        self.perform(&desired, now).await;
        self.confirm(&desired, now);
        let more = self.announce(&desired);
        self.tell_routers(&desired, now);
        self.keep_transit();
        let now = Instant::now();
        for attack in self.lan.defend(now) {
            self.publisher.defended(&self.sight.wanted, attack.address, attack.mac, now);
        }
        let answering = self.answering(&desired, now);
        let clears = self.clears(&desired, now);
        let Self { publisher, sight, .. } = self;
        let (cluster, wanted) = (&sight.cluster, &sight.wanted);
        let pending =
            publisher.publish(cluster, wanted, &desired.verdicts, &clears, &answering, now);
        self.tell_of_labels(&answering);
        self.tell_what_is_here(&answering);
        self.tell_of_guard(&answering, now);
        self.sign(&answering, now);
        let wake = self.elect(&desired, &pending, now);
        if more {
            return now;
        }
        let ends = desired.addresses.values().map(|place| place.until).min();
        let deadlines = [
            wake,
            ends,
            self.lan.deadline(),
            self.hands.deadline(now),
            self.elastic.deadline(now),
            self.publisher.deadline(now),
            self.sight.cluster.pauses.deadline(),
            self.sight.lingering.deadline(),
            self.guarding.deadline(now),
            self.routed.as_ref().and_then(Routed::deadline),
            self.backstop.as_ref().and_then(|backstop| backstop.deadline(now)),
        ];
        let owners = self.owners.iter().map(|owner| owner.deadline(now));
        deadlines.into_iter().chain(owners).flatten().fold(self.look_at, Instant::min)
    }

    /// Tells what of this node is its own, when that changes and was seen at all. By that others know that an announcer lives
    /// here: one that was never shown Services, endpoints or claims answers for nothing and says nothing of any.
    fn tell_of_host(&self) {
        let host = &self.sight.host;
        let begins = self.outlets.host.borrow().is_none();
        if host.interfaces.is_empty() || begins && !self.sight.context(&BTreeSet::new()).known {
            return;
        }
        let routers = self.routed.as_ref().map(Routed::told);
        // What an earlier life told of them holds until it is known which there are.
        if begins && routers.as_ref().is_some_and(|told| told.permits.is_none()) {
            return;
        }
        let routers = routers.map(|told| told.routers());
        let told =
            Some(berth_api::host::Told { routers, ..own::told(host, &self.sight.cluster.claims) });
        self.outlets.host.send_if_modified(|known| {
            let is_news = *known != told;
            *known = told;
            is_news
        });
    }

    /// Tells which addresses of the control plane this node announces, when that changes.
    fn tell_what_is_here(&self, answering: &Answering) {
        let own = self.sight.wanted.of_control_plane().map(|(address, _)| address);
        let here = own.filter(|own| answering.live.contains(own)).collect();
        self.outlets.here.send_if_modified(|known| {
            let is_news = *known != here;
            *known = here;
            is_news
        });
    }

    /// Tells why the control plane's address has no place on this node any more; at the start it had.
    fn tell_of_place(&self) {
        let mut own = self.sight.wanted.of_control_plane().filter_map(|(_, vip)| vip.wants.first());
        match own.find_map(|want| want.attach.as_ref().err()) {
            Some(why) => self.outlets.health.waits(PLACE, why.note()),
            None => self.outlets.health.forget(PLACE),
        }
    }

    /// Tells what its Node is to be labelled with, when that changes.
    fn tell_of_labels(&self, answering: &Answering) {
        let asked = self.config.services.as_ref().and_then(|services| services.labels);
        let (Some(tell), Some(asked)) = (&self.outlets.labels, asked) else { return };
        let (node, live) = (&self.config.core.node, &answering.live);
        let mut labels = labels::wanted(&self.sight.wanted, live, node, asked.first);
        // For what routers lead here other nodes answer as well, and say so rightly.
        let wanted = &self.sight.wanted;
        labels.live.retain(|own| wanted.vip(*own).is_none_or(|vip| !vip.is_routed()));
        tell.send_if_modified(|known| {
            let is_news = known.as_ref() != Some(&labels);
            *known = Some(labels);
            is_news
        });
    }

    async fn look(&mut self, now: Instant) {
        self.look_at = now + LOOK;
        self.touch_owners();
        self.sight.touch();
        match timed("looking at the network", self.hands.kernel.look()).await {
            Ok(mut host) => {
                self.lan.schedule.route(&host.gateways, now);
                host.unmade = std::mem::take(&mut self.sight.host.unmade);
                host.unmade.retain(|name, _| !host.interfaces.contains_key(name));
                host.uncovered = std::mem::take(&mut self.sight.host.uncovered);
                host.exposed = std::mem::take(&mut self.sight.host.exposed);
                self.sight.host = host;
                self.routed.iter().for_each(Routed::looked);
            }
            Err(error) => {
                tracing::error!(%error, "cannot see the network");
                self.outlets.metrics.kernel_errors.get_or_create(&cause("look")).inc();
                self.look_at = now + Duration::from_secs(1);
            }
        }
        let found = placement::obstacle(self.sight.scene());
        if found != self.sight.obstacle {
            match &found {
                Some(refusal) => {
                    tracing::error!("{}; waiting for it (vip_interface)", refusal.note());
                }
                None => tracing::info!("the interface is there again"),
            }
        }
        match &found {
            Some(refusal) => self.outlets.health.unready("interface", refusal.note()),
            None => self.outlets.health.ready("interface"),
        }
        self.sight.obstacle = found;
    }

    /// Tells everybody who decides on owners what is wanted. Gives what this node may have bound, and where packets go of
    /// connections that began at a previous owner.
    fn request(&mut self, refused: &BTreeSet<IpAddr>, now: Instant) -> (Holds, Forwards) {
        let Self { sight, owners, backstop, routed, publisher, lan, .. } = self;
        let context = sight.context(refused);
        let (mut holds, mut forwards) = (Holds::new(), Forwards::new());
        for owner in owners {
            let context = sight.context_of(owner, refused);
            owner.request(context, now);
            match owner {
                Ownership::Membership(members) => forwards = members.forwards(context, now),
                Ownership::Named(named) if named.asks(now) => publisher.writer.ask(),
                _ => {}
            }
            for (address, hold) in owner.holds(context, now) {
                holds.entry(address).or_insert(hold);
            }
        }
        if let Some(routed) = routed {
            routed.linger(&mut holds, now);
        }
        if let Some(backstop) = backstop {
            // A copy that somebody else has bound answers as well, so only what is to be bound here is armed.
            let placed = |address: &IpAddr| {
                let vip = context.wanted.vip(*address);
                lan.probes.allows(address)
                    && vip.is_some_and(|vip| vip.attach(context.node).is_some())
            };
            backstop.keep(&mut holds, context, placed, now);
        }
        (holds, forwards)
    }

    /// Asks for what was never in use, and listens for that and for what is bound.
    fn ask(&mut self, refused: &BTreeSet<IpAddr>, now: Instant) {
        let Self { sight, owners, lan, config, .. } = self;
        let mut questions = BTreeMap::new();
        for owner in owners.iter().filter(|_| config.arp_nd.probe) {
            let context = sight.context_of(owner, refused);
            // What this node answers for is in use, whatever has become of the status.
            let asked = owner.asked(context, now).into_iter();
            let asked = asked.filter(|address| !lan.answers(address)).collect();
            let is_first = |address: &IpAddr| owner.is_first(context.wanted, address);
            questions.extend(detection::questions(context.wanted, context.node, &asked, is_first));
        }
        lan.ask(&questions, &sight.host, now);
    }

    /// What is to be in the kernel, and what becomes of each Service that this node decides on.
    fn decide(&mut self, refused: &BTreeSet<IpAddr>, holds: &Holds, now: Instant) -> Desired {
        let vlans = self.vlans();
        let Self { sight, owners, lan, elastic, hands, outlets, routed, .. } = self;
        let context = sight.context(refused);
        let probes = &lan.probes;
        let is_kept =
            |address: &IpAddr| routed.as_ref().is_some_and(|routed| routed.is_kept(address));
        let ready = |address, vip: &_| is_kept(&address) || elastic.is_ready(address, vip, sight);
        let mut desired = Desired::of(context.wanted, context.node, holds, probes, ready);
        desired.hear(&outlets.health, sight.cluster.slices_denied, now);
        let taken = |address: &IpAddr| probes.taken(address).is_some();
        let Context { host, node, .. } = context;
        for owner in owners.iter() {
            let conflict = |address, mac| detection::conflict(host, node, probes, address, mac);
            let verdicts = owner.verdicts(sight.context_of(owner, refused), &taken, now);
            desired.judge(verdicts, probes, conflict);
        }
        desired.vlans = vlans;
        hands.note(&mut desired, context.wanted, context.node);
        let is_known = context.known;
        self.note_routed(&mut desired);
        // Before the claims are known each Service looks as if none named it, and who it names would empty its status.
        if !is_known {
            desired.forget_what_is_not_seen();
        }
        desired
    }

    /// The VLAN interfaces to have; none is left behind.
    fn vlans(&mut self) -> BTreeMap<String, Vlan> {
        let wanted = match self.leaving {
            true => BTreeMap::new(),
            false => placement::vlans(self.sight.scene()),
        };
        self.hands.keep_vlans(&mut self.sight.host, &wanted);
        wanted
    }

    async fn perform(&mut self, desired: &Desired, now: Instant) {
        if self.is_kept_as_it_is() {
            return;
        }
        let slack = self.owners.iter().map(Ownership::slack).min().unwrap_or_default();
        let Self { sight, hands, dataplane, guarding, .. } = self;
        let guard = guarding.expected(desired, now);
        let steps = plan(desired, &sight.host, &guard, slack, now);
        let work = hands.perform(steps, &mut sight.host, desired, dataplane, now);
        let outcome = timed("binding and removing addresses", work).await;
        if outcome.changed {
            sight.touch();
        }
        if let Some(look) = outcome.look {
            self.look_at = self.look_at.min(now + look);
        }
        if outcome.refused {
            self.touch_owners();
        }
    }

    /// Says what is bound by now.
    fn confirm(&mut self, desired: &Desired, now: Instant) {
        let Self { sight, owners, lan, config, proxied, .. } = self;
        let is_led = |address| {
            let vip = sight.wanted.vip(address);
            vip.is_none_or(|vip| !vip.is_served() || leading::leads(proxied, (address, vip), sight))
        };
        let bound = |address: IpAddr| {
            let attach = desired.addresses.get(&address)?.attach;
            let binding = Binding { index: attach.index(), address };
            (sight.host.ours.contains_key(&binding) && is_led(address)).then_some(attach)
        };
        let bindable = |address: IpAddr| {
            let attach = sight.wanted.vip(address)?.attach(&config.core.node)?;
            (lan.probes.allows(&address) && is_led(address)).then_some(attach)
        };
        for owner in owners {
            owner.confirm(bound, bindable, now);
        }
    }

    /// Announces what is held; true if there is more to send at once.
    fn announce(&mut self, desired: &Desired) -> bool {
        let answered = desired.addresses.iter().filter(|(_, place)| place.answers);
        let link = |(address, place): (&IpAddr, &super::desired::Place)| {
            let link = place.attach.link()?;
            let binding = Binding { index: link.index, address: *address };
            self.sight.host.ours.contains_key(&binding).then_some((*address, link))
        };
        let held: BTreeMap<IpAddr, Link> = answered.filter_map(link).collect();
        let ends = desired.addresses.values().map(|place| place.until).min();
        self.lan.announce(held, ends)
    }

    /// What this node answers for now.
    fn answering(&self, desired: &Desired, now: Instant) -> Answering {
        let bound = self.sight.host.ours.keys().map(|binding| binding.address);
        // What is not surely silent is not gone yet.
        let muting = self.backstop.iter().flat_map(Backstop::muting);
        let bound: BTreeSet<IpAddr> = bound.chain(muting).collect();
        let live = |address: &&IpAddr| {
            let place = desired.addresses.get(*address);
            place.is_some_and(|place| {
                let told = match place.attach {
                    Attach::L2(_) => self.lan.schedule.is_announced(**address),
                    Attach::Host(_) => self.is_routed(address),
                };
                place.answers && place.until > now && told
            })
        };
        Answering {
            live: bound.iter().filter(live).copied().collect(),
            kept: desired.addresses.keys().copied().collect(),
            failed: self.hands.refused(),
            bound,
        }
    }

    /// The Services whose status this node is to clear of what is not theirs to show, and after how long, unless who decides
    /// on them does.
    fn clears(&self, desired: &Desired, now: Instant) -> BTreeMap<Name, Duration> {
        let is_decided = |name: &Name| {
            let foreign = self.sight.cluster.services().get(name).is_some_and(|s| s.foreign);
            let verdict = desired.verdicts.get(name).filter(|verdict| !verdict.left);
            !foreign && verdict.is_some_and(|verdict| verdict.voice != Voice::Bystander)
        };
        let refused = BTreeSet::new();
        let context = self.sight.context(&refused);
        let services = context.wanted.services.iter();
        let strays = services.filter(|(name, claim)| claim.shows_too_much() && !is_decided(name));
        let patience = |(name, claim): (&Name, &Claim)| {
            let decide = self
                .owners
                .iter()
                .filter(|owner| self.routed.is_none() || owner.is_routed() == claim.routed);
            let all = decide.filter_map(|owner| owner.clears(context, name, claim, now));
            Some((name.clone(), all.min()?))
        };
        strays.filter_map(patience).collect()
    }

    /// Tells of ports of this node that are closed behind addresses for which it answers, or are to be and are not.
    fn tell_of_guard(&mut self, answering: &Answering, now: Instant) {
        let closes = self.config.services.as_ref().is_some_and(|all| all.closes_host_ports);
        if self.guarding.is_late_anew(now) {
            let why = self.guarding.missing(now);
            tracing::warn!(why, closes, "addresses are bound without the guard until it is there");
        }
        if !closes {
            return;
        }
        let Self { guarding, publisher, sight, outlets, .. } = self;
        let missing = guarding.missing(now);
        match &missing {
            Some(why) => outlets.health.unready("guard", why),
            None => outlets.health.forget("guard"),
        }
        publisher.leave_open(&sight.wanted, &answering.live, missing.as_deref(), now);
        let Guard::Holds(guarded) = &guarding.known else { return };
        let guarded = guarded.ports.iter().map(|port| port.address);
        let closed = guarded.filter(|address| answering.live.contains(address)).collect();
        publisher.close(&sight.wanted, closed, Listening::look, now);
    }

    /// Writes what has become true of elastic IPs on this node.
    fn sign(&mut self, answering: &Answering, now: Instant) {
        let Self { sight, owners, lan, elastic, hands, publisher, config, .. } = self;
        let granted = |address: &IpAddr| owners.iter().all(|owner| owner.is_granted(address));
        let (wanted, host) = (&sight.wanted, &sight.host);
        let taken = detection::conflicts(wanted, host, &config.core.node, &lan.probes, granted);
        let outlook = Outlook {
            answering,
            lost: &wanted.lost,
            taken: &taken,
            translated: &elastic.translated,
            broken: elastic.broken.as_deref(),
            refused: &hands.errors(),
            awaits: elastic.awaits,
            unheard: owners.iter().find_map(Ownership::unheard),
        };
        publisher.sign(sight.scene(), &outlook, now);
    }

    /// Sends what elections ask for. Gives the moment at which they are to be asked again.
    fn elect(
        &mut self,
        desired: &Desired,
        pending: &BTreeSet<Name>,
        now: Instant,
    ) -> Option<Instant> {
        let Self { sight, owners, backstop, publisher, outlets, .. } = self;
        let going = |binding: &Binding| {
            let place = desired.addresses.get(&binding.address);
            place.is_none_or(|place| place.attach.index() != binding.index)
        };
        let muting = backstop.as_ref().is_some_and(|backstop| backstop.muting().next().is_some());
        let moving = muting || sight.host.ours.keys().any(going);
        let mut wake: Option<Instant> = None;
        for owner in owners {
            let Ownership::Leases(leases) = owner else { continue };
            for turn in leases.settle(moving, pending, sight.listed.services, now) {
                let (lease, why, what) = match &turn {
                    Turn::Acquired(lease) => (lease, "acquired", "owns"),
                    Turn::Released(lease) => (lease, "released", "no longer owns"),
                    Turn::Lost(lease) => (lease, "lost", "no longer owns"),
                };
                tracing::info!(%lease, why, "this node {what} what the Lease decides on");
                outlets.metrics.owner_changes.get_or_create(&cause(why)).inc();
            }
            outlets.metrics.leases.set(leases.count().try_into().unwrap_or(i64::MAX));
            let (requests, due) = leases.poll(now);
            for (name, request) in requests {
                publisher.writer.send(name, request);
            }
            wake = [wake, due].into_iter().flatten().min();
        }
        wake
    }
}
