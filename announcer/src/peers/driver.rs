//! Owns the thread on which the protocol runs, its clock, the fence, and the order in which things take effect: above
//! all that the kernel is silent about an address before anybody hears that it was let go.

mod fencing;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use berth_fence::{BootTime, Fence, Finding};
use berth_membership::{
    Cause, Input, Keyring, Moment, Node, NodeId, Output, ParameterError, Parameters,
};
use berth_runtime::http::Health;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinHandle, spawn_blocking};

use self::fencing::found;
use super::priority;
use super::udp::{Running, Wire};
use crate::advertise::arp_nd::frame;
use crate::advertise::arp_nd::schedule::{Frame, Link};
use crate::advertise::arp_nd::socket::Sockets;
use crate::metrics::{Metrics, cause};
use crate::ownership::membership::{Command, Proposal, Told};

/// Between looks at whether the fence still stands, if nobody tells that something went.
const INSPECT: Duration = Duration::from_secs(1);

/// Filters go in crowds: they are looked at together.
const CROWD: Duration = Duration::from_millis(5);

/// Between looks at who lives.
const SURVEY: Duration = Duration::from_millis(50);

/// The thread must come by this often, or it is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// A heartbeat that is later than this is told of, this often.
const LATE: Duration = Duration::from_millis(100);
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The longest sleep: to say that the thread is alive.
const NAP: Duration = Duration::from_secs(10);

/// What a keeper begins with.
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
    pub told: UnboundedSender<Told>,
    /// Where it asks for views to be stored.
    pub proposals: UnboundedSender<Proposal>,
    /// Numbers.
    pub metrics: Metrics,
    /// Probes.
    pub health: Health,
}

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The times of the protocol do not fit each other.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The thread, its runtime or its sockets cannot be had.
    #[error("starting the thread of membership: {0}")]
    Thread(#[from] io::Error),
}

/// Starts the thread, in the network namespace of the calling thread. It ends with [`Command::End`], or when nobody can
/// tell it anything any more; then the fence stays.
///
/// # Errors
/// When the thread cannot be had.
pub fn start(
    parts: Parts,
    commands: UnboundedReceiver<Command>,
) -> Result<thread::JoinHandle<()>, StartError> {
    let me = NodeId::of(&parts.node);
    let node = Node::new(me, Parameters::default(), parts.keyring, parts.seed, now())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wire = {
        let _inside = runtime.enter();
        parts.wire.run()?
    };
    let keeper = Driver {
        node,
        fence: parts.fence,
        wire,
        frames: Sockets::default(),
        links: BTreeMap::new(),
        asked: BTreeMap::new(),
        deadlines: BTreeMap::new(),
        interfaces: BTreeSet::new(),
        flaws: Vec::new(),
        live: BTreeSet::new(),
        fence_due: None,
        inspect_at: now(),
        inspecting: None,
        survey_at: now(),
        warned_at: None,
        told: parts.told,
        proposals: parts.proposals,
        metrics: parts.metrics,
        health: parts.health,
    };
    let thread = thread::Builder::new().name("membership".to_owned());
    Ok(thread.spawn(move || {
        runtime.block_on(keeper.run(commands));
        // An inspection may wait for the kernel still.
        runtime.shutdown_background();
    })?)
}

/// The clock of both the protocol and the fence.
fn now() -> Moment {
    Moment::from_nanos(BootTime::now().as_nanos())
}

struct Driver {
    node: Node,
    fence: Box<dyn Fence>,
    wire: Running,
    frames: Sockets,
    /// Where the addresses are bound that are ready.
    links: BTreeMap<IpAddr, Link>,
    /// Since when this node asks for an address that it has not got.
    asked: BTreeMap<IpAddr, Moment>,
    /// What the fence was told last.
    deadlines: BTreeMap<IpAddr, Moment>,
    interfaces: BTreeSet<String>,
    flaws: Vec<String>,
    live: BTreeSet<NodeId>,
    fence_due: Option<BootTime>,
    inspect_at: Moment,
    inspecting: Option<JoinHandle<Vec<Finding>>>,
    survey_at: Moment,
    warned_at: Option<Moment>,
    told: UnboundedSender<Told>,
    proposals: UnboundedSender<Proposal>,
    metrics: Metrics,
    health: Health,
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
                findings = found(&mut self.inspecting) => self.repair(findings),
                () = tokio::time::sleep(nap.min(NAP)) => {}
            }
        }
    }

    /// When there is something to do if nothing happens.
    fn due(&self) -> Moment {
        let fence = self.fence_due.map_or(Moment::NEVER, |due| Moment::from_nanos(due.as_nanos()));
        let inspect = if self.inspecting.is_some() { Moment::NEVER } else { self.inspect_at };
        [self.node.deadline(), fence, inspect, self.survey_at].into_iter().fold(fence, Moment::min)
    }

    /// Does what is due.
    fn turn(&mut self) {
        if self.node.deadline() <= now() {
            self.note_lateness();
            let outputs = self.node.poll(now());
            self.perform(outputs);
        }
        if self.fence_due.is_some_and(|due| due <= BootTime::now()) {
            self.refresh();
        }
        let time = now();
        if self.survey_at <= time {
            self.survey_at = time + SURVEY;
            self.health.alive("membership thread", Instant::now(), STUCK);
            let live: BTreeSet<NodeId> = self.node.live().collect();
            if live != self.live {
                self.metrics.live.set(live.len().try_into().unwrap_or(i64::MAX));
                self.live.clone_from(&live);
                self.tell(Told::Live(live));
            }
        }
        if self.inspect_at <= time && self.inspecting.is_none() {
            self.inspect_at = time + INSPECT;
            self.inspecting = Some(spawn_blocking(self.fence.inspection()));
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
        if late > LATE && self.warned_at.is_none_or(|at| now.since(at) > WARN_EVERY) {
            self.warned_at = Some(now);
            tracing::warn!(?late, "this node is too busy: what is not renewed in time is lost");
        }
    }

    fn receive(&mut self) {
        let (node, mut outputs) = (&mut self.node, Vec::new());
        let mut arrived = Vec::new();
        self.wire.receive(|datagram| arrived.push(datagram.to_vec()));
        for datagram in arrived {
            outputs.extend(node.handle(now(), Input::Datagram(&datagram)));
        }
        self.perform(outputs);
    }

    fn command(&mut self, command: Command) {
        let input = match command {
            Command::Wish(address, wish) => Input::Wish { address, wish },
            Command::Unwish(address) => Input::Unwish { address },
            Command::Prepared(address, link) => {
                self.links.insert(address, link);
                Input::Prepared { address }
            }
            Command::HandOver(address) => Input::HandOver { address },
            Command::View(view) => Input::View(view),
            Command::NoView => Input::NoView,
            Command::NotStored(from_epoch) => Input::NotStored { from_epoch },
            Command::Leave => Input::Leave,
            Command::Peers(peers) => return self.wire.know(&peers),
            Command::Cover(addresses) => {
                if let Err(error) = self.fence.cover(&addresses) {
                    tracing::error!(%error, "an address that is not covered is not served");
                    self.count("cover");
                }
                return;
            }
            Command::Attach(interfaces) => {
                self.interfaces = interfaces;
                return self.attach();
            }
            Command::Inspect => return self.inspect_at = self.inspect_at.min(now() + CROWD),
            Command::Settle => {
                for error in self.fence.settle() {
                    tracing::error!(%error, "the fence is not everywhere");
                    self.count("settle");
                }
                return;
            }
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
                Output::MuteAll => {
                    if let Err(error) = self.fence.mute_all() {
                        tracing::error!(%error);
                        self.wait_out(None);
                    }
                }
                Output::Mute { address } => {
                    if let Err(error) = self.fence.mute(address) {
                        tracing::error!(%error);
                        self.count("mute");
                        self.wait_out(self.deadlines.get(&address).copied());
                    }
                    self.deadlines.remove(&address);
                }
                Output::Arm { address, deadline } => {
                    self.deadlines.insert(address, deadline);
                    armed = true;
                    if let Err(error) =
                        self.fence.arm(address, BootTime::from_nanos(deadline.nanos()))
                    {
                        tracing::debug!(%error);
                        self.count("arm");
                    }
                }
                Output::Send { to, datagram } => {
                    if let Err(error) = self.wire.send(to, &datagram) {
                        tracing::trace!(%error, to = self.wire.name(to), "datagram lost");
                        self.metrics.datagrams_lost.inc();
                    }
                }
                Output::Prepare { address, cause } => {
                    self.asked.entry(address).or_insert_with(now);
                    self.tell(Told::Prepare { address, first: cause == Cause::First });
                }
                Output::Granted { address } => self.tell(Told::Granted(address)),
                Output::Discard { address } => {
                    self.asked.remove(&address);
                    self.links.remove(&address);
                    self.tell(Told::Discard(address));
                }
                Output::Announce { address, cause } => {
                    if armed {
                        self.refresh();
                    }
                    self.announce(address);
                    let asked = self.asked.remove(&address);
                    let took = asked.map_or(Duration::ZERO, |asked| now().since(asked));
                    self.tell(Told::Holds { address, cause, took });
                }
                Output::Lost { address, cause } => {
                    self.links.remove(&address);
                    self.tell(Told::Lost { address, cause });
                }
                Output::ProposeView { from_epoch, view } => {
                    let voters = view.voters().nodes().iter().map(|node| self.wire.name(*node));
                    let voters = voters.collect();
                    let _ = self.proposals.send(Proposal { from_epoch, view, voters });
                }
                Output::Adopted { epoch } => {
                    let voters =
                        self.node.view().map_or(&[][..], |(view, _)| view.voters().nodes());
                    let voters: Vec<String> =
                        voters.iter().map(|node| self.wire.name(*node)).collect();
                    tracing::info!(epoch, voters = voters.join(", "), "the voters are these now");
                    self.metrics.epoch.set(epoch.try_into().unwrap_or(i64::MAX));
                }
                Output::Activated { epoch } => tracing::debug!(epoch, "earlier voters are sealed"),
                Output::Refused(error) => {
                    tracing::debug!(%error, "datagram refused");
                    self.metrics.datagrams_refused.inc();
                }
                Output::Left => self.tell(Told::Left),
            }
        }
        if armed {
            self.refresh();
        }
    }

    /// The first announcement leaves from here, without waiting for a round; the rest of the burst follows.
    fn announce(&mut self, address: IpAddr) {
        let Some(link) = self.links.get(&address) else { return };
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

    fn count(&self, step: &'static str) {
        self.metrics.fence_errors.get_or_create(&cause(step)).inc();
    }

    fn tell(&self, told: Told) {
        // Nobody listens at the end of the program.
        let _ = self.told.send(told);
    }

    fn end(mut self, unfence: bool) {
        if !unfence {
            return;
        }
        for error in self.fence.remove() {
            tracing::warn!(%error, "the fence stays");
        }
    }
}
