//! Keeps a node from answering for an address once its grant has ended, whatever state this process is in.
//!
//! A node owns an address until a deadline that its peers know. The process that should let go of it may be stopped,
//! killed or starved at that moment; the kernel would go on answering. So the kernel itself is told the deadline: from
//! then on it drops every frame that would teach a neighbour where the address is, by ARP or by neighbour discovery.
//!
//! **Promise.** On an interface that is attached, no such frame for a covered address leaves at or after its deadline,
//! none at all while it has no deadline, and no other frame is touched. The promise holds without the process: the
//! fence stays in the kernel until [`Fence::remove`]. Docs: `docs/fence.md`.
//!
//! Life of a fence: [`open`] it, [`Fence::cover`] what is found bound on the node, [`Fence::attach`]; once *all*
//! addresses are known, cover them and [`Fence::settle`]. Only then can addresses be armed. In between a predecessor's
//! fence stays in force, so a restart opens nothing.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod bpf;
mod capability;
mod error;
mod nft;
mod tc;
mod time;
mod unfenced;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

pub use error::{
    ArmError, AttachCause, AttachError, CoverError, MuteError, PollError, Refusal, RefusalCause,
};
pub use time::BootTime;

/// Which fence holds. The order is that of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// None: an address is silent only when this process makes it so.
    Unfenced,
    /// A timeout in nftables: bounds a stalled process, silences a healthy one when the rule set is busy. Degraded.
    NftTimeout,
    /// An absolute deadline, judged for each frame.
    Bpf,
}

impl Kind {
    /// The stable name for status and metrics: `bpf`, `nft-timeout` or `unfenced`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Unfenced => "unfenced",
            Kind::NftTimeout => "nft-timeout",
            Kind::Bpf => "bpf",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A flaw in a fence that stands, as it is seen in the kernel now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// It is no longer there; [`Fence::attach`] puts it back.
    Missing {
        /// Where.
        interface: String,
    },
    /// Something foreign runs first, and may let frames by without asking us.
    Preceded {
        /// Where.
        interface: String,
        /// What it is, for people.
        by: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Missing { interface } => write!(f, "interface {interface}: the fence is gone"),
            Finding::Preceded { interface, by } => {
                write!(f, "interface {interface}: {by} runs before the fence")
            }
        }
    }
}

/// Looks for flaws from outside; none is good. It may take as long as somebody holds the kernel's locks: run it on a thread
/// that nothing waits for, in the same network namespace.
pub type Inspection = Box<dyn FnOnce() -> Vec<Finding> + Send>;

/// A fence in the kernel. Calls may block while the kernel's rules are locked: keep it on a thread of its own.
pub trait Fence: Send {
    /// Which fence it is.
    fn kind(&self) -> Kind;

    /// Guards exactly `interfaces`, which includes repairing what was taken away. Returns those that are not guarded.
    fn attach(&mut self, interfaces: &BTreeSet<String>) -> Vec<AttachError>;

    /// Covers exactly `addresses`. An address that is new is mute. One that is no longer covered passes, so it has to
    /// be gone from the node before.
    fn cover(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), CoverError>;

    /// Declares that every address of ours is covered, and takes a predecessor's place. Returns the interfaces where
    /// that did not succeed; there the predecessor stays in force, and `attach` tries again.
    fn settle(&mut self) -> Vec<AttachError>;

    /// Lets the node answer for `address` until `deadline`. To take time back, [`Fence::mute`] first: an earlier
    /// deadline takes effect at once in one kind of fence, and with the next `poll` in another.
    fn arm(&mut self, address: IpAddr, deadline: BootTime) -> Result<(), ArmError>;

    /// Silences `address` now. Once this has returned, no frame that asks the fence gets past it.
    fn mute(&mut self, address: IpAddr) -> Result<(), MuteError>;

    /// Silences every address now.
    fn mute_all(&mut self) -> Result<(), MuteError>;

    /// Does what is due, and says when to call again if nothing else happens. To be called after `arm` too: the nft
    /// fence carries deadlines into the kernel here and nowhere else.
    fn poll(&mut self, now: BootTime) -> Result<Option<BootTime>, PollError>;

    /// A look for flaws of the fence as it is wanted now.
    fn inspection(&self) -> Inspection;

    /// Removes every trace from every interface, a predecessor's too. Goes on after an error.
    fn remove(&mut self) -> Vec<AttachError>;
}

/// How a fence is to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many addresses it can cover.
    pub capacity: u32,
    /// The strongest kind to try.
    pub strongest: Kind,
}

impl Default for Options {
    fn default() -> Options {
        Options { capacity: 8192, strongest: Kind::Bpf }
    }
}

/// The strongest fence that the node allows, and why it is not a stronger one.
pub struct Opened {
    /// The fence, without interfaces and addresses yet.
    pub fence: Box<dyn Fence>,
    /// One for each stronger kind, strongest first. To be shown in status: a node whose fence is weaker is degraded.
    pub refusals: Vec<Refusal>,
}

/// Opens the strongest fence there is, in the network namespace of this thread. It always gets one, if only
/// [`Kind::Unfenced`].
pub fn open(options: &Options) -> Opened {
    let mut refusals = Vec::new();
    for kind in [Kind::Bpf, Kind::NftTimeout] {
        let opened: Result<Box<dyn Fence>, RefusalCause> = match kind {
            kind if kind > options.strongest => Err(RefusalCause::NotWanted),
            Kind::Bpf => bpf::BpfFence::open(options.capacity).map(|fence| Box::new(fence) as _),
            _ => nft::NftFence::open().map(|fence| Box::new(fence) as _),
        };
        match opened {
            Ok(fence) => return Opened { fence, refusals },
            Err(cause) => refusals.push(Refusal { kind, cause }),
        }
    }
    Opened { fence: Box::new(unfenced::Unfenced::default()), refusals }
}
