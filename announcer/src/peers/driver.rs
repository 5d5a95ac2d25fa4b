//! Owns the thread on which the protocol runs, its clock, the fence, and the order in which things take effect: above
//! all that the kernel is silent about an address before anybody hears that it was released.

mod lateness;
mod others;
mod unheard;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use berth_fence::{Fence, Kind};
use berth_membership::{
    Cause, DatagramError, Input, Keyring, Loss, Moment, Node, NodeId, Output, ParameterError,
    Parameters,
};
use berth_runtime::http::Health;
use berth_runtime::supervise;
use futures::future::BoxFuture;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use self::lateness::Lateness;
use self::others::Others;
use self::unheard::Unheard;
use super::priority;
use super::udp::{Running, Wire};
use crate::advertise::arp_nd::frame;
use crate::advertise::arp_nd::schedule::Frame;
use crate::advertise::arp_nd::socket::Sockets;
use crate::fencing::upkeep::{Upkeep, found, now};
use crate::metrics::Metrics;
use crate::ownership::membership::{Command, Keep, MembershipEvent, Proposal};
use crate::vip::Link;

/// Between looks at who lives.
const SURVEY: Duration = Duration::from_millis(50);

/// What nobody has had for so long is told to be nobody's, and looked for this often.
const ORPHANED: Duration = Duration::from_millis(2_500);
const CENSUS: Duration = Duration::from_millis(500);

/// The thread must come by this often, or it is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// The longest sleep: to say that the thread is alive.
const NAP: Duration = Duration::from_secs(10);

/// What a driver begins with.
pub struct Parts {
    /// This node's name.
    pub node: String,
    /// The cluster's keys.
    pub keyring: Keyring,
    /// Random, and never used before.
    pub seed: u64,
    /// The sockets.
    pub wire: Wire,
    /// The fence, with what was found bound covered and its interfaces attached.
    pub fence: Box<dyn Fence>,
    /// Where it tells what happens.
    pub told: UnboundedSender<MembershipEvent>,
    /// Where it asks for views to be stored.
    pub proposals: UnboundedSender<Proposal>,
    /// Where it has kept what is to outlive the power of this node, if anything is.
    pub keep: Option<UnboundedSender<Keep>>,
    /// Numbers.
    pub metrics: Metrics,
    /// Probes.
    pub health: Health,
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The times of the protocol do not fit each other.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The thread, its runtime or its sockets cannot be had.
    #[error("starting the thread of membership: {0}")]
    Thread(#[from] io::Error),
}

/// The name of the thread.
pub const THREAD: &str = "membership";

/// Starts the thread, in the network namespace of the calling thread. It ends with [`Command::End`], or when nobody can
/// tell it anything any more; then the fence stays. The task lasts as long as the thread.
///
/// # Errors
/// When the thread cannot be had.
pub fn start(
    parts: Parts,
    commands: UnboundedReceiver<Command>,
) -> Result<BoxFuture<'static, ()>, StartError> {
    let me = NodeId::of(&parts.node);
    let parameters = parameters(parts.fence.kind());
    let node = Node::new(me, parameters, parts.keyring, parts.seed, now())?;
    let node = if parts.keep.is_some() { node.keeping() } else { node };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wire = {
        let _inside = runtime.enter();
        parts.wire.run(&parts.node)?
    };
    let driver = Driver {
        node,
        fencing: Upkeep::new(parts.fence, parts.metrics.clone(), parts.health.clone()),
        wire,
        frames: Sockets::default(),
        addresses: Addresses::default(),
        survey: Survey::new(),
        told: parts.told,
        proposals: parts.proposals,
        keep: parts.keep,
        metrics: parts.metrics,
        health: parts.health,
    };
    Ok(supervise::thread(THREAD, move || {
        runtime.block_on(driver.run(commands));
        // An inspection may wait for the kernel still.
        runtime.shutdown_background();
    })?)
}

/// What the fence of this node can keep to. One of timeouts is refreshed with what is left over a quarter of a second, and
/// without one a process that is late answers for longer than it may.
fn parameters(fence: Kind) -> Parameters {
    let parameters = Parameters::default();
    match fence {
        Kind::Bpf => parameters,
        Kind::NftTimeout | Kind::Unfenced => {
            Parameters { shortest: parameters.lease, ..parameters }
        }
    }
}

struct Driver {
    node: Node,
    fencing: Upkeep,
    wire: Running,
    frames: Sockets,
    addresses: Addresses,
    survey: Survey,
    told: UnboundedSender<MembershipEvent>,
    proposals: UnboundedSender<Proposal>,
    keep: Option<UnboundedSender<Keep>>,
    metrics: Metrics,
    health: Health,
}

/// What is known of addresses beside the protocol.
#[derive(Default)]
struct Addresses {
    /// Where those are bound that are ready.
    links: BTreeMap<IpAddr, Link>,
    /// Since when this node asks for one that it has not got.
    asked: BTreeMap<IpAddr, Moment>,
}

/// What is known of the other nodes beside the protocol.
struct Survey {
    /// Who lives.
    live: BTreeSet<NodeId>,
    /// When that is looked at next.
    at: Moment,
    /// What nobody has.
    orphans: BTreeSet<IpAddr>,
    /// When that is looked for next.
    census_at: Moment,
    /// What people are told of a node that is too busy.
    lateness: Lateness,
    /// Why others are not heard.
    others: Others,
    /// Which voters are not.
    unheard: Unheard,
}

impl Survey {
    fn new() -> Self {
        let (live, orphans, at) = (BTreeSet::new(), BTreeSet::new(), now());
        let (others, unheard) = (Others::default(), Unheard::default());
        let lateness = Lateness::default();
        Self { live, at, orphans, census_at: at, lateness, others, unheard }
    }
}

impl Driver {
    async fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        if let Err(error) = priority::raise() {
            tracing::info!(%error, "heartbeats wait their turn (CAP_SYS_NICE): a busy node may lose what it has");
        }
        loop {
            self.turn();
            let nap = self.due().since(now());
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::End { unfence }) => return self.end(unfence),
                    None => return,
                    Some(command) => self.command(command),
                },
                () = self.wire.readable() => self.receive(),
                findings = found(&mut self.fencing.inspecting) => self.fencing.repair(findings),
                () = tokio::time::sleep(nap.min(NAP)) => {}
            }
        }
    }

    /// When there is something to do if nothing happens.
    fn due(&self) -> Moment {
        self.node.deadline().min(self.fencing.due()).min(self.survey.at)
    }

    /// Does what is due.
    fn turn(&mut self) {
        if self.node.deadline() <= now() {
            self.note_lateness();
            let outputs = self.node.poll(now());
            self.perform(outputs);
        }
        let time = now();
        self.fencing.turn(time);
        if let Some(uncovered) = self.fencing.news() {
            self.tell(MembershipEvent::Uncovered(uncovered));
        }
        if self.survey.at <= time {
            self.survey.at = time + SURVEY;
            self.health.alive("membership thread", Instant::now(), STUCK);
            let live: BTreeSet<NodeId> = self.node.live().collect();
            if !live.is_empty() {
                self.health.ready("membership");
            } else if self.node.view().is_some() {
                self.health.unready("membership", self.survey.others.why(time));
            }
            if live != self.survey.live {
                self.metrics.live.set(live.len().try_into().unwrap_or(i64::MAX));
                self.survey.live.clone_from(&live);
                self.tell(MembershipEvent::Live(live));
            }
            self.metrics.lease.set(self.node.lease().as_secs_f64());
            if self.survey.census_at <= time {
                self.survey.census_at = time + CENSUS;
                let orphans: BTreeSet<IpAddr> = self.node.orphans(ORPHANED).collect();
                if self.survey.orphans != orphans {
                    self.survey.orphans.clone_from(&orphans);
                    self.tell(MembershipEvent::Orphans(orphans));
                }
                let unheard = self.node.unheard(unheard::AFTER).map(|node| self.wire.name(node));
                if let Some(news) = self.survey.unheard.see(unheard.collect(), time) {
                    self.tell(MembershipEvent::Unheard(news));
                }
            }
        }
    }

    /// A heartbeat that is late tells of a node that is too busy, before anything is lost by it.
    fn note_lateness(&mut self) {
        let (due, now) = (self.node.next_beat(), now());
        if due > now {
            return;
        }
        let late = now.since(due);
        self.metrics.late.observe(late.as_secs_f64());
        self.survey.lateness.late(late, self.node.lease(), now);
    }

    fn receive(&mut self) {
        let (mut arrived, mut outputs) = (Vec::new(), Vec::new());
        let dropped = self.wire.receive(|from, datagram| arrived.push((from, datagram.to_vec())));
        self.metrics.datagrams_of_strangers.inc_by(dropped);
        for (from, datagram) in arrived {
            let given = self.node.handle(now(), Input::Datagram(&datagram));
            let refused = given.iter().find_map(|output| match output {
                Output::Refused(error) => Some(*error),
                _ => None,
            });
            match refused {
                Some(error) => self.note_refused(from, error),
                None => self.survey.others.heard(now()),
            }
            for output in &given {
                if let Output::Heard { node } = output {
                    self.wire.heard(*node, from, Instant::now());
                }
            }
            outputs.extend(given);
        }
        self.perform(outputs);
    }

    fn command(&mut self, command: Command) {
        let input = match command {
            Command::Request(address, request) => Input::Request { address, request },
            Command::Withdraw(address) => Input::Withdraw { address },
            Command::Prepared(address, link) => {
                self.addresses.links.extend(link.map(|link| (address, link)));
                Input::Prepared { address }
            }
            Command::HandOver(address) => Input::HandOver { address },
            Command::View(view) => Input::View(view),
            Command::Fixed(view) => Input::Fixed(view),
            Command::NoView => Input::NoView,
            Command::NotStored(from_epoch) => Input::NotStored { from_epoch },
            Command::Leave => Input::Leave,
            Command::Kept(view) => Input::Kept(view),
            Command::Peers(peers) => {
                self.wire.know(&peers);
                return self.keep(Keep::Peers(peers));
            }
            Command::Fence(told) => return self.fencing.take(told),
            Command::End { .. } => return,
        };
        let outputs = self.node.handle(now(), input);
        self.perform(outputs);
    }

    /// Performs in order: each has taken effect before the next begins.
    fn perform(&mut self, outputs: Vec<Output>) {
        let mut armed = false;
        for output in outputs {
            match output {
                Output::MuteAll => self.fencing.mute_all(),
                Output::Mute { address } => self.fencing.mute(address),
                Output::Arm { address, deadline } => {
                    armed = true;
                    self.fencing.arm(address, deadline);
                }
                Output::Send { to, datagram } => {
                    if let Err(error) = self.wire.send(to, &datagram) {
                        tracing::trace!(%error, to = self.wire.name(to), "datagram lost");
                        self.metrics.datagrams_lost.inc();
                    }
                }
                Output::Prepare { address, cause } => {
                    self.addresses.asked.entry(address).or_insert_with(now);
                    let (first, handed) = (cause == Cause::First, cause == Cause::Handover);
                    self.tell(MembershipEvent::Prepare { address, first, handed });
                }
                Output::Granted { address } => self.tell(MembershipEvent::Granted(address)),
                Output::Discard { address } => {
                    self.addresses.asked.remove(&address);
                    self.addresses.links.remove(&address);
                    self.tell(MembershipEvent::Discard(address));
                }
                Output::Announce { address, cause } => {
                    if armed {
                        self.fencing.refresh();
                    }
                    self.announce(address);
                    let asked = self.addresses.asked.remove(&address);
                    let took = asked.map_or(Duration::ZERO, |asked| now().since(asked));
                    self.tell(MembershipEvent::Holds { address, cause, took });
                }
                Output::Lost { address, cause } => {
                    if cause == Loss::Expired {
                        self.survey.lateness.lapsed(self.node.lease(), now());
                    }
                    self.addresses.links.remove(&address);
                    self.tell(MembershipEvent::Lost { address, cause });
                }
                Output::ProposeView { from_epoch, view } => {
                    let voters = view.voters().nodes().iter().map(|node| self.wire.name(*node));
                    let voters = voters.collect();
                    let _ = self.proposals.send(Proposal { from_epoch, view, voters });
                }
                Output::Keep(view) => self.keep(Keep::View(view)),
                Output::Adopted { epoch } => {
                    let voters =
                        self.node.view().map_or(&[][..], |(view, _)| view.voters().nodes());
                    let voters: Vec<String> =
                        voters.iter().map(|node| self.wire.name(*node)).collect();
                    tracing::info!(epoch, voters = voters.join(", "), "the voters are these now");
                    self.metrics.epoch.set(epoch.try_into().unwrap_or(i64::MAX));
                }
                Output::Activated { epoch } => tracing::debug!(epoch, "earlier voters are sealed"),
                Output::Refused(_) => _ = self.metrics.datagrams_refused.inc(),
                // Taken in where it came.
                Output::Heard { .. } => {}
                Output::Deaf { node } => tracing::warn!(
                    node = self.wire.name(node),
                    "it is heard and does not answer: is UDP to its port (berth_peer_port) dropped on the way? It votes the \
                     more seldom the more often that is so"
                ),
                Output::Former { node } => tracing::info!(
                    node = self.wire.name(node),
                    "its announcer is older and speaks version 1 of heartbeats, which a later release takes no more"
                ),
                Output::Left => self.tell(MembershipEvent::Left),
            }
        }
        if armed {
            self.fencing.refresh();
        }
    }

    /// A node with another list of members or another key would be taken for one that is dead, and nobody would know why.
    fn note_refused(&mut self, from: SocketAddr, error: DatagramError) {
        let (others, from) = (&mut self.survey.others, from.ip());
        match error {
            DatagramError::OtherMembers(node) => {
                let name = self.wire.name(node);
                let name = if name == node.to_string() { from.to_string() } else { name };
                if others.other_list(node, &name, now()) {
                    tracing::error!("{}", others::list(&name));
                }
            }
            DatagramError::Forged if others.forged(from, now()) => {
                tracing::warn!("{}", others::key(&from));
            }
            error => tracing::debug!(%error, %from, "datagram refused"),
        }
    }

    /// The first announcement leaves from here, without waiting for a round; the rest of the burst follows.
    fn announce(&mut self, address: IpAddr) {
        let Some(link) = self.addresses.links.get(&address) else { return };
        for bytes in frame::announce(address, link.mac) {
            match self.frames.send(&Frame { index: link.index, bytes }) {
                Ok(()) => self.metrics.frames_sent.inc(),
                Err(error) => {
                    tracing::debug!(%error, %address, "frame lost");
                    self.metrics.frames_lost.inc()
                }
            };
        }
    }

    fn tell(&self, told: MembershipEvent) {
        // Nobody listens at the end of the program.
        let _ = self.told.send(told);
    }

    fn keep(&self, what: Keep) {
        // Nobody keeps anything at the end of the program.
        let _ = self.keep.as_ref().map(|keep| keep.send(what));
    }

    fn end(mut self, unfence: bool) {
        if unfence {
            self.fencing.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lets an address pass for twice this without a refresh needs leases that are longer.
    #[test]
    fn leases_are_as_long_as_the_fence_needs_them() {
        let needs = 2 * berth_fence::Options::default().life;
        for (kind, shortest) in [(Kind::Bpf, 100), (Kind::NftTimeout, 350), (Kind::Unfenced, 350)] {
            let parameters = parameters(kind);
            assert_eq!(parameters.shortest, Duration::from_millis(shortest));
            assert_eq!(parameters.check(), Ok(()));
            assert!(kind != Kind::NftTimeout || parameters.shortest > needs);
        }
    }
}
