//! Owns what this node knows and holds. One round decides and performs; the same round runs at start, on every event and
//! on every tick. Waits for the kernel only: whatever the cluster is asked for comes back as an event.

pub mod drive;
mod elastic;
mod fenced;
mod neighbours;
pub mod plan;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_runtime::events::Events;
use berth_runtime::http::Health;
use tokio::sync::watch;

use self::elastic::Elastic;
use self::neighbours::Neighbours;

use crate::advertise::arp_nd::schedule::Schedule;
use crate::advertise::arp_nd::socket::Sockets;
use crate::backoff::Backoff;
use crate::config::{Config, Election};
use crate::desired::{self, Refusal};
use crate::kernel::{Binding, Change, Guard, Host, Kernel, Port};
use crate::metrics::{Metrics, cause};
use crate::ownership::leases::Leases;
use crate::ownership::membership::Members;
use crate::ownership::{Global, PerService, Strategy};
use crate::publish::contention::Contests;
use crate::publish::events::Refusals;
use crate::publish::writer::{Done, Outcome, Writer};
use crate::source::cluster::{Cluster, Name, Service};
use crate::source::watch::Seen;
use crate::vip::Forwards;

/// Changes in the kernel come in crowds: they are looked at together.
const CROWD: Duration = Duration::from_millis(20);

/// Everything this node knows and holds.
pub struct Announcer<K> {
    config: Config,
    strategy: Box<dyn Strategy>,
    /// This node as a member, where membership decides and not the strategy.
    members: Option<Members>,
    cluster: Cluster,
    listed: Listed,
    leases: Leases,
    held: BTreeSet<Name>,
    kernel: K,
    host: Host,
    look_at: Instant,
    guard: Guard,
    guarded: watch::Sender<BTreeSet<Port>>,
    detours: watch::Sender<Forwards>,
    schedule: Schedule,
    sockets: Sockets,
    neighbours: Neighbours,
    /// What the kernel refused, and what it said.
    refused: BTreeMap<Binding, String>,
    kernel_pace: Backoff<Binding>,
    vlan_pace: Backoff<String>,
    writer: Writer,
    status_pace: Backoff<Name>,
    contests: Contests,
    refusals: Refusals,
    interface: Option<Refusal>,
    elastic: Elastic,
    leaving: bool,
    events: Events,
    metrics: Metrics,
    health: Health,
}

/// Which first lists have come in.
#[derive(Debug, Default)]
struct Listed {
    services: bool,
    slices: bool,
}

/// What the announcer tells of itself.
pub struct Outlets {
    /// Events about Services.
    pub events: Events,
    /// Numbers.
    pub metrics: Metrics,
    /// Probes.
    pub health: Health,
}

/// What is kept in nftables by tasks of their own.
pub struct Tables {
    /// The ports to guard.
    pub guarded: watch::Sender<BTreeSet<Port>>,
    /// The detours to have.
    pub detours: watch::Sender<Forwards>,
}

/// Names of the readiness checks.
pub const CHECKS: [&str; 4] = ["services", "endpointslices", "leases", "interface"];

impl<K: Kernel> Announcer<K> {
    /// Knows nothing and holds nothing yet. What is to stand in nftables goes to `tables`. With `members` it goes by membership.
    pub fn new(
        config: Config,
        members: Option<Members>,
        kernel: K,
        tables: Tables,
        writer: Writer,
        outlets: Outlets,
        now: Instant,
    ) -> Self {
        let strategy: Box<dyn Strategy> = match &config.election {
            Election::Global { namespace, name } => {
                Box::new(Global::new(Name::new(namespace, name)))
            }
            // Not asked where membership decides.
            Election::PerService | Election::Membership(_) => Box::new(PerService),
        };
        let second = Duration::from_secs(1);
        Self {
            strategy,
            members,
            cluster: Cluster::default(),
            listed: Listed::default(),
            leases: Leases::new(&config.node, config.timing, config.lease_annotations.clone()),
            held: BTreeSet::new(),
            kernel,
            host: Host::default(),
            look_at: now,
            guard: Guard::Unknown,
            guarded: tables.guarded,
            detours: tables.detours,
            schedule: Schedule::new(config.refresh),
            sockets: Sockets::default(),
            neighbours: Neighbours::default(),
            refused: BTreeMap::new(),
            kernel_pace: Backoff::new(second / 4, second * 10),
            vlan_pace: Backoff::new(second, second * 60),
            writer,
            status_pace: Backoff::new(second / 10, second * 2),
            contests: Contests::default(),
            refusals: Refusals::default(),
            interface: None,
            elastic: Elastic::new(&config.node, now),
            leaving: false,
            events: outlets.events,
            metrics: outlets.metrics,
            health: outlets.health,
            config,
        }
    }

    /// Takes in what a watch has shown.
    pub fn see(&mut self, seen: Seen, now: Instant) {
        self.elastic.turns.hear(now);
        if let Some(members) = &mut self.members {
            members.touch();
        }
        match seen {
            Seen::Service(name, service) => self.cluster.apply_service(name, *service),
            Seen::ServiceGone(name) => self.cluster.delete_service(&name),
            Seen::Services(names) => {
                self.cluster.retain_services(&names);
                self.listed.services = true;
                self.health.ready("services");
            }
            Seen::Slice(name, read) => self.cluster.apply_slice(name, read),
            Seen::SliceGone(name) => self.cluster.delete_slice(&name),
            Seen::Slices(names) => {
                self.cluster.retain_slices(&names);
                self.listed.slices = true;
                self.health.ready("endpointslices");
            }
            Seen::Lease(name, sight) => match &mut self.members {
                Some(members) => members.lease(&name, &sight, &self.config.node, now),
                None => self.leases.observe(name, sight, now),
            },
            Seen::Leases(names) => {
                match &mut self.members {
                    Some(members) => members.leases_listed(),
                    None => self.leases.listed(&names, now),
                }
                self.health.ready("leases");
            }
            Seen::Node(name, peer) => {
                self.elastic.networks.pods(name.clone(), peer.pods.clone());
                self.peer(name, Some(peer));
            }
            Seen::NodeGone(name) => {
                self.elastic.networks.pods(name.clone(), Vec::new());
                self.peer(name, None);
            }
            Seen::Nodes(names) => {
                self.elastic.networks.pods_listed(&names);
                if let Some(members) = &mut self.members {
                    members.peers(&names);
                }
                self.health.ready("nodes");
            }
            Seen::Eip(name, eip) => self.cluster.apply_eip(name, *eip),
            Seen::EipGone(name) => self.cluster.delete_eip(&name),
            Seen::Eips(names) => self.eips_listed(&names),
            Seen::ServiceNet(name, networks) => self.elastic.networks.services(name, networks),
            Seen::ServiceNets(names) => self.elastic.networks.services_listed(&names),
        }
    }

    /// Takes in how a write has ended.
    pub fn done(&mut self, done: Done, now: Instant) {
        match done {
            Done::Applied(apply, outcome) => self.applied(apply, outcome, now),
            Done::Heard(heard) => {
                self.writer.answered();
                if heard {
                    self.elastic.turns.hear(now);
                }
            }
            Done::Elected(name, reply) => self.leases.replied(&name, reply, now),
            Done::Deleted(name, deletion) => tracing::debug!(lease = %name, ?deletion, "deleted"),
            Done::Status(update, outcome) => {
                self.writer.ended(&update.name);
                // A write that helped is not needed again.
                self.status_pace.again(update.name.clone(), now);
                let outcome = match outcome {
                    Outcome::Written(service) => {
                        self.contests.wrote(&update, now);
                        let service = Service::read(&service, &self.config.classes);
                        self.cluster.apply_written(update.name, service);
                        "written"
                    }
                    Outcome::Overtaken => "overtaken",
                    Outcome::Failed(error) => {
                        tracing::warn!(service = %update.name, %error, "cannot write the status");
                        "failed"
                    }
                };
                self.metrics.status_writes.get_or_create(&cause(outcome)).inc();
            }
        }
    }

    /// Takes in what is known of the guard.
    pub fn guard(&mut self, guard: Guard) {
        self.metrics.guard.set(i64::from(matches!(guard, Guard::Holds(_))));
        self.guard = guard;
    }

    /// Takes in that the kernel has changed.
    pub fn changed(&mut self, change: Change, now: Instant) {
        let used = |index: u32| {
            self.interface.is_some()
                || !self.refused.is_empty()
                || self.host.ours.keys().any(|binding| binding.index == index)
                || desired::interface(&self.host, self.config.interface.as_deref())
                    .is_ok_and(|(_, _, link)| link.index == index)
        };
        let served = |address: &IpAddr| {
            let mut services = self.cluster.services().values();
            services.any(|service| service.addresses.contains(address))
        };
        let matters = match change {
            Change::Link(index) => used(index) || desired::is_awaited(self.scene(), index),
            // A copy of an address of ours may stand anywhere.
            Change::Address(index, address) => {
                used(index)
                    || desired::is_auto(self.scene())
                    || address.as_ref().is_some_and(served)
            }
            Change::Filter => {
                if let Some(members) = &self.members {
                    members.inspect();
                }
                false
            }
            // Its router has to learn where the addresses are.
            Change::DefaultRoute | Change::Anything => true,
        };
        if matters {
            self.look_at = self.look_at.min(now + CROWD);
        }
    }

    /// Lets go of everything: from now on each round takes off what is held and gives back what is free of it.
    pub fn leave(&mut self) {
        self.leaving = true;
        if let Some(members) = &mut self.members {
            members.leave();
        }
    }

    /// Whether everything has been let go of.
    pub fn has_left(&self) -> bool {
        let released = self.members.as_ref().is_none_or(Members::has_left);
        let bare = self.host.ours.is_empty() && self.host.made.is_empty();
        self.leaving && released && self.leases.is_idle() && bare
    }
}

/// Tells a keeper of something in the kernel what is wanted, if that is news.
fn ask_for<T: PartialEq>(keeper: &watch::Sender<T>, wanted: T) {
    keeper.send_if_modified(|known| {
        let news = *known != wanted;
        *known = wanted;
        news
    });
}
