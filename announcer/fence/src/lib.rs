//! Keeps a node from answering for an address once its grant has ended, whatever state this process is in.
//!
//! A node owns an address until a deadline that its peers know. The process that should release it may be stopped,
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
mod contract;
mod error;
mod instance;
mod kind;
mod nft;
mod tc;
mod time;
mod unfenced;

use std::collections::BTreeSet;
use std::time::Duration;

pub use contract::{Fence, Finding, Inspection};
pub use error::{
    ArmError, AttachCause, AttachError, CoverError, MuteError, PollError, Refusal, RefusalCause,
};
pub use instance::{Instance, InvalidInstance};
pub use kind::Kind;
pub use time::BootTime;

/// How a fence is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many addresses it can cover.
    pub capacity: u32,
    /// The strongest kind to try.
    pub strongest: Kind,
    /// How long [`Kind::NftTimeout`] lets held addresses pass without a refresh, which it makes three times as often. It
    /// falls silent up to twice as long before a deadline, so it is to be short beside how long addresses are armed for.
    pub life: Duration,
    /// Whose it is, among those of this node.
    pub instance: Instance,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            capacity: 8192,
            strongest: Kind::Bpf,
            life: Duration::from_millis(120),
            instance: Instance::services(),
        }
    }
}

/// The strongest fence that the node allows, and why it is not a stronger one.
pub struct Opened {
    /// The fence, without interfaces and addresses yet.
    pub fence: Box<dyn Fence>,
    /// One for each stronger kind, strongest first. To be shown in status: a node whose fence is weaker is degraded.
    pub refusals: Vec<Refusal>,
}

/// The names of all filters of fences in the network namespace of this thread, whosever they are: each is `berth-fence`,
/// or that and a name behind it.
///
/// # Errors
/// When the interfaces cannot be listed.
pub fn left() -> std::io::Result<BTreeSet<String>> {
    tc::names(&mut tc::Rtnetlink::open()?)
}

/// The programs that get at what comes in by these interfaces before netfilter does, for people, each with its interface.
/// What they lead elsewhere no rule of netfilter sees.
///
/// # Errors
/// When the interfaces cannot be listed.
pub fn before_netfilter(interfaces: &BTreeSet<String>) -> std::io::Result<Vec<(String, String)>> {
    bpf::before_netfilter(interfaces)
}

/// Opens the strongest fence there is, in the network namespace of this thread. It always gets one, if only
/// [`Kind::Unfenced`].
pub fn open(options: &Options) -> Opened {
    let mut refusals = Vec::new();
    for kind in [Kind::Bpf, Kind::NftTimeout] {
        let opened: Result<Box<dyn Fence>, RefusalCause> = match kind {
            kind if kind > options.strongest => Err(RefusalCause::NotWanted),
            Kind::Bpf => bpf::BpfFence::open(options.capacity, &options.instance)
                .map(|fence| Box::new(fence) as _),
            _ => nft::NftFence::open(&options.instance, options.life)
                .map(|fence| Box::new(fence) as _),
        };
        match opened {
            Ok(fence) => return Opened { fence, refusals },
            Err(cause) => refusals.push(Refusal { kind, cause }),
        }
    }
    let is_wanted = options.strongest == Kind::Unfenced;
    Opened { fence: Box::new(unfenced::Unfenced::new(&options.instance, is_wanted)), refusals }
}

/// What others send may take memory in proportion only.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: berth_hostile::Counting = berth_hostile::Counting;
