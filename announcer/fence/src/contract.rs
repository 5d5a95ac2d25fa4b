//! Owns what every fence promises to whoever drives it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::error::{ArmError, AttachError, CoverError, MuteError, PollError};
use crate::kind::Kind;
use crate::time::BootTime;

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

    /// From now on what passes only while it is refreshed passes for this long: see [`Options::life`](crate::Options::life).
    fn set_life(&mut self, _life: Duration) {}

    /// Covers exactly `addresses`, or as many of them as it can: what is covered already stays so. An address that is new
    /// is mute. One that is no longer covered passes, so it has to be gone from the node before.
    fn cover(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), CoverError>;

    /// Whether `address` is covered.
    fn covers(&self, address: &IpAddr) -> bool;

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
