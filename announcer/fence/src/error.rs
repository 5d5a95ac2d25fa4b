//! Owns what can go wrong, by operation. Reasons are stable: users alert on them.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use crate::kind::Kind;

/// Why a kind of fence cannot be had on this node.
#[derive(Debug, thiserror::Error)]
#[error("{kind} fence: {cause}")]
pub struct Refusal {
    /// The fence that was asked for.
    pub kind: Kind,
    /// What stands in its way.
    #[source]
    pub cause: RefusalCause,
}

/// What stands in the way of a fence.
#[derive(Debug, thiserror::Error)]
pub enum RefusalCause {
    /// The process lacks a capability; the remedy is in the DaemonSet.
    #[error("{operation} needs the capabilities {needed}, and the process has not got {missing}")]
    Capability {
        /// What was tried.
        operation: &'static str,
        /// What it needs, all of them.
        needed: &'static str,
        /// Which of them are missing.
        missing: String,
    },
    /// The kernel said no although the capabilities are there.
    #[error(
        "{operation} is not permitted although the capabilities are there ({source}); look at {look_at}"
    )]
    Denied {
        /// What was tried.
        operation: &'static str,
        /// What else can say no.
        look_at: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel cannot do it.
    #[error("{operation} failed: {source}{detail}; it needs {needed}")]
    Unsupported {
        /// What was tried.
        operation: &'static str,
        /// The kernel and its options that can.
        needed: &'static str,
        /// The kernel's answer.
        source: io::Error,
        /// What else it said.
        detail: String,
    },
    /// A program that the kernel took does not do what it should.
    #[error(
        "the self-test failed: {frame} gave {verdict}, expected {expected}; is the process in a time namespace?"
    )]
    SelfTest {
        /// The frame that was shown to the program.
        frame: &'static str,
        /// What the program said.
        verdict: i32,
        /// What it should have said.
        expected: i32,
    },
    /// The `nft` program is not there or refused the table.
    #[error("{operation} failed: {message}; it needs {needed}")]
    Nft {
        /// What was tried.
        operation: &'static str,
        /// The kernel and tool that can.
        needed: &'static str,
        /// What `nft` said.
        message: String,
    },
    /// The configuration asks for a weaker fence.
    #[error("not wanted by configuration")]
    NotWanted,
}

/// An interface that is not guarded.
#[derive(Debug, thiserror::Error)]
#[error("interface {interface}: {cause}")]
pub struct AttachError {
    /// Its name; `*` where what failed concerns all.
    pub interface: String,
    /// Why.
    #[source]
    pub cause: AttachCause,
}

impl AttachError {
    /// Whether neighbours who ask there may be answered without a fence: not where there is nobody to ask.
    pub fn is_exposed(&self) -> bool {
        !matches!(self.cause, AttachCause::NoInterface | AttachCause::NotEthernet)
    }

    /// Those of `interfaces` that it is about.
    pub fn names<'a>(
        &'a self,
        interfaces: &'a BTreeSet<String>,
    ) -> impl Iterator<Item = &'a String> {
        interfaces.iter().filter(|name| self.interface == "*" || self.interface == **name)
    }

    pub(crate) fn everywhere(operation: &'static str, source: io::Error) -> AttachError {
        AttachError { interface: "*".to_owned(), cause: AttachCause::Kernel { operation, source } }
    }
}

/// Why an interface is not guarded.
#[derive(Debug, thiserror::Error)]
pub enum AttachCause {
    /// There is none of this name now.
    #[error("does not exist")]
    NoInterface,
    /// It has no Ethernet header, so nobody resolves addresses on it.
    #[error("is not Ethernet; expected an interface on which ARP or neighbour discovery run")]
    NotEthernet,
    /// A qdisc without egress hook is in the way.
    #[error("has the qdisc {kind}, which has no egress hook; expected clsact or none")]
    NoEgressHook {
        /// The kind of the qdisc.
        kind: String,
    },
    /// Another kind of filter has the first priority.
    #[error("priority 1 at egress belongs to a filter of kind {kind}; expected bpf or none")]
    PriorityTaken {
        /// The kind of the filter.
        kind: String,
    },
    /// The handle of our filter is another's, which would be replaced.
    #[error(
        "at egress {name:?} has the handle {handle:#x} of this fence; expected nobody: remove it if its owner is gone"
    )]
    HandleTaken {
        /// The name of the filter that has it.
        name: String,
        /// The handle.
        handle: u32,
    },
    /// There is none, although one is wanted.
    #[error("this node has no fence; expected eBPF or nftables")]
    NoFence,
    /// Its name cannot be written in a rule.
    #[error("its name cannot be quoted in an nft rule; expected no quote, backslash or asterisk")]
    UnquotableName,
    /// The kernel refused.
    #[error("{operation} failed: {source}")]
    Kernel {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Why not all addresses are covered. What was covered before and is still to be, is.
#[derive(Debug, thiserror::Error)]
pub enum CoverError {
    /// More addresses than the fence was made for.
    #[error("{wanted} addresses are {over} more than the fence holds ({capacity})")]
    TooMany {
        /// How many were asked for.
        wanted: usize,
        /// How many do not fit.
        over: usize,
        /// How many do.
        capacity: u32,
    },
    /// The kernel refused one; those before it are done.
    #[error("covering {address}: {source}")]
    Kernel {
        /// The address at which it stopped.
        address: IpAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `nft` refused the whole set.
    #[error("covering {count} addresses: {message}")]
    Nft {
        /// How many were asked for.
        count: usize,
        /// What `nft` said.
        message: String,
    },
}

/// Why an address was not armed. It is mute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    /// It would answer without a fence.
    #[error("{address} is not covered: an address is covered before it is armed")]
    NotCovered {
        /// The address.
        address: IpAddr,
    },
    /// A predecessor's fence is still in force.
    #[error("{address} cannot be armed before the fence is settled")]
    Unsettled {
        /// The address.
        address: IpAddr,
    },
}

/// Why an address may still answer until its deadline.
#[derive(Debug, thiserror::Error)]
#[error("muting {addresses}: {source}")]
pub struct MuteError {
    /// Which, as a list.
    pub addresses: String,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Why the deadlines did not reach the kernel. Every address falls silent by its last one.
#[derive(Debug, thiserror::Error)]
#[error("refreshing the fence: {source}")]
pub struct PollError {
    /// The kernel's answer.
    pub source: io::Error,
}
