//! What the driver is told, and what it tells.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_membership::{Cause, Loss, NodeId, Request, View};

use super::super::fence::{Fencing, Uncovered};
use crate::vip::Link;
use crate::vip::nodes::Peers;

/// What the driver is to do, in the order in which it is told.
#[derive(Clone, Debug)]
pub enum Command {
    /// What concerns all of the fence.
    Fence(Fencing),
    /// An address is to be served.
    Request(IpAddr, Request),
    /// An address is not to be served any more.
    Withdraw(IpAddr),
    /// An address is bound, silently, and is announced here; nowhere if there is no LAN.
    Prepared(IpAddr, Option<Link>),
    /// An address should move to another node.
    HandOver(IpAddr),
    /// These are the nodes.
    Peers(Peers),
    /// The API has this view.
    View(View),
    /// This is the view for ever: there is no API.
    Fixed(View),
    /// The API has no view.
    NoView,
    /// This view is on the disk.
    Kept(View),
    /// A proposal to follow this epoch is surely not stored.
    NotStored(u64),
    /// Hand everything over and leave the view.
    Leave,
    /// End the thread. The fence goes if nothing is bound any more.
    End {
        /// Whether to remove the fence.
        unfence: bool,
    },
}

/// What the driver tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// Bind an address; it is silent.
    Prepare {
        /// The address.
        address: IpAddr,
        /// Whether no other node is known to have had it.
        first: bool,
        /// Whether a live node hands it over, which answers for it until then.
        handed: bool,
    },
    /// A majority granted an address that this node asks for. It answers once it is bound.
    Granted(IpAddr),
    /// Unbind it: it went elsewhere.
    Discard(IpAddr),
    /// This node answers for an address, and has told the LAN once.
    Holds {
        /// The address.
        address: IpAddr,
        /// Why this node has it.
        cause: Cause,
        /// How long it took since this node first asked for it.
        took: Duration,
    },
    /// This node is silent about an address again.
    Lost {
        /// The address.
        address: IpAddr,
        /// Why.
        cause: Loss,
    },
    /// This is all that the fence does not cover.
    Uncovered(Uncovered),
    /// These nodes are alive as a majority sees it; none while no majority answers.
    Live(BTreeSet<NodeId>),
    /// This is all that no live node has had for a while, as a majority sees it.
    Orphans(BTreeSet<IpAddr>),
    /// These voters have not answered this node for a while, by name.
    Unheard(BTreeSet<String>),
    /// Everything was handed over, or the time for it is over.
    Left,
}

/// What is to be kept on the disk, where anything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// This view, before anything is said in it.
    View(View),
    /// Where the peers are.
    Peers(Peers),
}

/// A view to store in place of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The epoch of the stored view; 0: there is none.
    pub from_epoch: u64,
    /// The new view.
    pub view: View,
    /// The names of its voters, for people.
    pub voters: Vec<String>,
}
