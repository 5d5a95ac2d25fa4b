//! The hall: what this node sees, owns and has bound, and one round that decides and performs. The same round runs at
//! start, on every event and on every tick. Waits for the kernel only: whatever the cluster is asked for comes back as an
//! event.
//!
//! | file | owns |
//! |---|---|
//! | `drive` | the loop: events, then a round |
//! | `intake` | taking in what the watches show |
//! | `round` | one round, in its order |
//! | `owners` | who decides on which addresses, by the settings |
//! | `sight` | what is seen, and what is wanted as far as it goes |
//! | `desired`, `plan` | what is to be in the kernel, and the steps to it, as values |
//! | `hands` | doing the steps |
//! | `lan` | the other hosts on the LAN |
//! | `routing` | what routers are told |
//! | `leaving` | how this node leaves |
//! | `detection` | which addresses are asked for before their first use |
//! | `translate` | what is translated for elastic IPs |
//! | `guarding` | what is known of the guard, and how long addresses wait for it |
//! | `dump` | everything that is known of each VIP, for people |
//! | `advised` | what of the host is told once |
//! | `whereabouts` | which node the control plane's address is said to be on |
//! | `slow` | telling of what the kernel took long for |

mod advised;
mod desired;
mod detection;
pub mod drive;
mod dump;
mod guarding;
mod hands;
mod intake;
mod lan;
mod leading;
mod leaving;
mod owners;
mod plan;
mod round;
mod routing;
mod sight;
mod slow;
mod translate;
mod whereabouts;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_api::election::Reply;
use berth_api::host::Told;
use berth_membership::{Cause, Loss};
use berth_runtime::http::Health;
use berth_runtime::lease::Deletion;
use tokio::sync::{Notify, watch};

pub use self::owners::{lease_of_control_plane, owners};

use self::guarding::Guarding;
use self::hands::Hands;
use self::lan::Lan;
use self::sight::Sight;
use self::translate::Elastic;
use self::whereabouts::Whereabouts;
use crate::advertise::arp_nd::listener::Listener;
use crate::advertise::bgp::Routed;
use crate::config::{Cluster, Config, Election};
use crate::dataplane::transit::Passage;
use crate::dataplane::{self, Dataplane};
use crate::kernel::{Guard, Kernel, KernelChange};
use crate::metrics::{Metrics, cause};
use crate::ownership::backstop::Fenced;
use crate::ownership::health::Heard;
use crate::ownership::membership::MembershipEvent;
use crate::ownership::{Answers, Backstop, ControlPlane, Leases, Members, Ownership, Whom};
use crate::publish::labels::Labels;
use crate::publish::publisher::Publisher;
use crate::publish::writer::{WriteEvent, WriteOutcome};
use crate::source::cluster::Service;
use crate::source::placement;
use crate::source::proxied::Proxied;

/// Changes in the kernel come in crowds: they are looked at together.
const CROWD: Duration = Duration::from_millis(20);

/// Names of the readiness checks.
pub const CHECKS: [&str; 4] = ["services", "endpointslices", "leases", "interface"];

/// The check that tells why pods may speak to routers as this node.
const TRANSIT: &str = "bgp/transit";

/// Everything this node knows and holds.
pub struct Announcer<K> {
    config: Config,
    sight: Sight,
    owners: Vec<Ownership>,
    /// The fence, where whoever decides does not drive it.
    backstop: Option<Backstop>,
    hands: Hands<K>,
    lan: Lan,
    /// What routers are told, where they are.
    routed: Option<Routed>,
    /// Whether kube-proxy leads on what is led here.
    proxied: Option<Proxied>,
    /// Who asks API servers of other nodes, where that matters.
    asks: Option<watch::Sender<Whom>>,
    dataplane: Dataplane,
    guarding: Guarding,
    /// The links where neighbours may ask, by their indices.
    links: BTreeSet<u32>,
    elastic: Elastic,
    publisher: Publisher,
    look_at: Instant,
    leaving: bool,
    /// Whether it leaves for a restart: what routers lead here stays.
    pauses: bool,
    /// Why no Lease is acquired.
    withheld: Option<String>,
    /// Whether it was told that Leases of Services that are gone stay.
    told_of_leases: bool,
    /// Since when members wait for the Lease by which others decide.
    waits_since: Option<Instant>,
    whereabouts: Whereabouts,
    outlets: Outlets,
}

/// What the announcer tells of itself.
pub struct Outlets {
    /// Numbers.
    pub metrics: Metrics,
    /// Probes.
    pub health: Health,
    /// What the node tells of itself, once it is known.
    pub host: watch::Sender<Option<Told>>,
    /// What its Node is to be labelled with, where that is asked for.
    pub labels: Option<watch::Sender<Option<Labels>>>,
    /// That it is to say once more that its API server is healthy.
    pub again: Arc<Notify>,
    /// The control plane's addresses that this node announces.
    pub here: watch::Sender<BTreeSet<IpAddr>>,
}

impl<K: Kernel> Announcer<K> {
    /// Knows nothing and holds nothing yet. What the kernel is to do with packets goes to `dataplane`.
    pub fn new(
        config: Config,
        owners: Vec<Ownership>,
        kernel: K,
        dataplane: Dataplane,
        publisher: Publisher,
        outlets: Outlets,
        now: Instant,
    ) -> Self {
        if matches!(config.cluster, Cluster::Fixed(_)) {
            // Nothing is waited for that a cluster would show.
            for check in ["services", "endpointslices", "leases"] {
                outlets.health.ready(check);
            }
        }
        if config.election == Election::Everyone {
            outlets.health.ready("leases");
        }
        Self {
            sight: Sight::new(&config),
            owners,
            routed: None,
            proxied: None,
            asks: None,
            backstop: None,
            hands: Hands::new(kernel, outlets.metrics.clone()),
            lan: Lan::new(config.arp_nd.refresh, outlets.metrics.clone()),
            dataplane,
            guarding: Guarding::default(),
            links: BTreeSet::new(),
            elastic: Elastic::default(),
            publisher,
            look_at: now,
            leaving: false,
            pauses: false,
            withheld: None,
            told_of_leases: false,
            waits_since: None,
            whereabouts: Whereabouts::default(),
            outlets,
            config,
        }
    }

    /// The same, with a fence in the kernel behind what Leases decide.
    pub fn with_backstop(self, backstop: Option<Backstop>) -> Self {
        Self { backstop, ..self }
    }

    /// The same, which tells routers where addresses are.
    pub fn with_routed(self, routed: Option<Routed>) -> Self {
        Self { routed, ..self }
    }

    /// The same, which asks kube-proxy of this node where it leads.
    pub fn with_proxied(self, proxied: Option<Proxied>) -> Self {
        Self { proxied, ..self }
    }

    /// The same, which has API servers of other nodes asked.
    pub fn with_asks(self, asks: Option<watch::Sender<Whom>>) -> Self {
        Self { asks, ..self }
    }

    fn members(&mut self) -> Option<&mut Members> {
        self.owners.iter_mut().find_map(Ownership::members)
    }

    fn leases(&mut self) -> Option<&mut Leases> {
        self.owners.iter_mut().find_map(|owner| match owner {
            Ownership::Leases(leases) => Some(&mut **leases),
            _ => None,
        })
    }

    fn api_servers(&mut self) -> Option<&mut ControlPlane> {
        self.owners.iter_mut().find_map(Ownership::api_servers)
    }

    fn touch_owners(&mut self) {
        self.owners.iter_mut().for_each(Ownership::touch);
    }

    /// Whether membership decides, and not a Lease.
    pub fn is_member(&self) -> bool {
        self.owners.iter().any(|owner| matches!(owner, Ownership::Membership(_)))
    }

    /// Takes in how a write has ended.
    pub fn done(&mut self, done: WriteEvent, now: Instant) {
        match done {
            WriteEvent::Applied(apply, outcome) => {
                self.publisher.applied(&apply, &outcome, now);
                if let WriteOutcome::Written(eip) = outcome {
                    self.sight.cluster.apply_written_eip(apply.name, *eip);
                    self.sight.touch();
                }
            }
            WriteEvent::Heard(heard) => {
                self.publisher.writer.answered();
                if heard {
                    self.owners.iter_mut().for_each(|owner| owner.hear(now));
                }
            }
            WriteEvent::Withheld(name, why) => {
                if self.withheld.as_ref() != Some(&why) {
                    tracing::error!("{why}");
                }
                self.outlets.health.unready("leases", &why);
                self.withheld = Some(why.clone());
                if let Some(leases) = self.leases() {
                    leases.withhold(Some(why));
                    leases.replied(&name, Reply::Rejected, now);
                }
            }
            WriteEvent::Elected { name, reply, acquires } => {
                if acquires && self.withheld.take().is_some() {
                    self.outlets.health.ready("leases");
                }
                if let Some(leases) = self.leases() {
                    if acquires {
                        leases.withhold(None);
                    }
                    leases.replied(&name, reply, now);
                }
            }
            // A role of kube-vip has no delete.
            WriteEvent::Deleted(name, Deletion::Failed(why)) if !self.told_of_leases => {
                self.told_of_leases = true;
                tracing::warn!(
                    lease = %name, why,
                    "the Lease of a Service that is gone is not deleted; the garbage collector does, where it runs"
                );
            }
            WriteEvent::Deleted(name, deletion) => {
                tracing::debug!(lease = %name, ?deletion, "deleted")
            }
            WriteEvent::Status(update, outcome) => {
                self.publisher.written(&update, &outcome, now);
                if let (WriteOutcome::Written(service), Some(services)) =
                    (outcome, &self.config.services)
                {
                    let service = Service::read(&service, &services.classes);
                    self.sight.cluster.apply_written(update.name, service);
                    self.sight.touch();
                }
            }
        }
    }

    /// Takes in what is known of the API server of this node; true if that is news.
    pub fn stands(&mut self, heard: Heard, now: Instant) -> bool {
        if let Some(members) = self.members() {
            return members.hear(heard);
        }
        self.api_servers().is_some_and(|own| own.stands(heard.standing, now))
    }

    /// Takes in what API servers of other nodes have answered; true if that is news.
    pub fn answered(&mut self, answers: Answers) -> bool {
        let own = self.owners.iter_mut().find_map(Ownership::announcing);
        own.is_some_and(|own| own.answered(answers))
    }

    /// Takes in what the driver of membership told.
    pub fn told(&mut self, told: &MembershipEvent, now: Instant) {
        let metrics = &self.outlets.metrics;
        match told {
            MembershipEvent::Holds { address, cause: why, took } => {
                let why = gained(*why);
                tracing::info!(%address, cause = why, took = ?took, "this node answers for it");
                metrics.owner_changes.get_or_create(&cause(why)).inc();
                metrics.takeover.observe(took.as_secs_f64());
            }
            MembershipEvent::Lost { address, cause: why } => {
                let why = lost(why);
                tracing::info!(%address, cause = why, "this node no longer answers for it");
                metrics.owner_changes.get_or_create(&cause(why)).inc();
            }
            MembershipEvent::Uncovered(uncovered) => self.sight.uncover(uncovered),
            MembershipEvent::Live(_)
            | MembershipEvent::Orphans(_)
            | MembershipEvent::Unheard(_)
            | MembershipEvent::Prepare { .. }
            | MembershipEvent::Granted(_)
            | MembershipEvent::Discard(_)
            | MembershipEvent::Left => {}
        }
        let host = match told {
            MembershipEvent::Prepare { address, .. } => self.sight.host_of(*address),
            _ => None,
        };
        if let Some(members) = self.members() {
            members.told(told, host.as_deref(), now);
        }
        if let MembershipEvent::Uncovered(_) = told {
            self.touch_owners();
        }
    }

    /// Takes in what the thread of the fence told; true if a round has something to do for it.
    pub fn fenced(&mut self, told: &Fenced, now: Instant) -> bool {
        if let Fenced::Uncovered(uncovered) = told {
            self.sight.uncover(uncovered);
            self.touch_owners();
        }
        self.backstop.as_mut().is_some_and(|backstop| backstop.told(told, now))
    }

    /// Takes in what is told of what is kept in the kernel.
    pub fn kept(&mut self, event: dataplane::Event) {
        match event {
            dataplane::Event::Unserved(guard) => {
                let holds = matches!(guard, Guard::Holds(_));
                self.outlets.metrics.guard.set(i64::from(holds));
                if let Some(since) = self.guarding.take(guard) {
                    slow::tell_if_slow("writing the guard", since.elapsed());
                }
            }
            dataplane::Event::Forward(forwards) => {
                if let Some(members) = self.members() {
                    members.forwarded(forwards);
                }
            }
            dataplane::Event::Eip(translation) => self.elastic.took(translation),
            dataplane::Event::Transit(Passage::Barred) => self.outlets.health.forget(TRANSIT),
            dataplane::Event::Transit(Passage::Open(why)) => {
                tracing::warn!(why, "pods may speak to routers as this node");
                self.outlets.health.unready(TRANSIT, why);
            }
        }
    }

    /// Takes in that the kernel has changed.
    pub fn changed(&mut self, change: KernelChange, now: Instant) {
        let used = |index: u32| self.sight.uses(index) || !self.hands.refused().is_empty();
        let served = |address: &std::net::IpAddr| {
            self.sight.wanted.vip(*address).is_some_and(|vip| vip.leads_to().is_none())
        };
        // Where an elastic IP leads must not become this node's own.
        let led_to = |address: &std::net::IpAddr| {
            self.sight.wanted.vips.values().any(|vip| vip.leads_to() == Some(*address))
        };
        let scene = self.sight.scene();
        let matters = match change {
            KernelChange::Link(index) => used(index) || placement::is_awaited(scene, index),
            // A copy of an address of ours may stand anywhere.
            KernelChange::Address(index, address) => {
                let is_known = address.as_ref().is_some_and(|own| served(own) || led_to(own));
                used(index) || placement::is_auto(scene) || is_known
            }
            KernelChange::Filter => {
                if let Some(members) = self.members() {
                    members.inspect();
                }
                if let Some(backstop) = &self.backstop {
                    backstop.inspect();
                }
                false
            }
            // Its router has to learn where the addresses are.
            KernelChange::DefaultRoute | KernelChange::Anything => true,
        };
        if matters {
            self.look_at = self.look_at.min(now + CROWD);
        }
    }

    /// What hears the neighbours. A round takes in what they have said.
    pub fn listener(&self) -> &Listener {
        &self.lan.listener
    }

    /// Takes in what neighbours have said; true if any of it is about an address of ours.
    pub fn hear(&mut self, now: Instant) -> bool {
        self.lan.hear(&self.sight.host, now)
    }

    /// Whether nothing of ours is bound, and what was is silent.
    pub fn is_bare(&self) -> bool {
        let host = &self.sight.host;
        self.is_silent() && host.ours.is_empty() && host.made.is_empty()
    }

    /// Whether nothing is being silenced.
    fn is_silent(&self) -> bool {
        self.backstop.iter().all(|backstop| backstop.muting().next().is_none())
    }
}

fn gained(cause: Cause) -> &'static str {
    match cause {
        Cause::First => "first",
        Cause::Takeover => "takeover",
        Cause::Abandoned => "abandoned",
        Cause::Resumed => "resumed",
        Cause::Handover => "handover",
    }
}

fn lost(loss: &Loss) -> &'static str {
    match loss {
        Loss::Expired => "expired",
        Loss::HandedOver { .. } => "handed_over",
        Loss::Dropped => "dropped",
    }
}

#[cfg(test)]
mod many;
#[cfg(test)]
mod tests;
