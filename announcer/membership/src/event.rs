//! Owns what a driver tells a [`Node`](crate::Node) and what it has to do for it.

use std::net::IpAddr;

use crate::moment::Moment;
use crate::name::NodeId;
use crate::placement::Request;
use crate::view::View;
use crate::wire::DatagramError;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A datagram arrived. The driver reads the clock *after* it received it.
    Datagram(&'a [u8]),
    /// The view as the API has it: read at start, watched later, or stored by this node's own proposal.
    ///
    /// The first one must come from a read that cannot be stale (a GET with no `resourceVersion`), made after this
    /// `Node` was: a view from before a restart could undo a seal.
    View(View),
    /// The members are those of a list, and there is no API: this view, of the voters that the list names, is the view
    /// for ever. No other is adopted or proposed, and nodes with other voters are refused
    /// ([`DatagramError::OtherMembers`]). Ignored once there was a view.
    Fixed(View),
    /// A read that cannot be stale found that there is no view yet. Ignored once there was one: a view that vanished
    /// is an error for the driver to report, never a reason to start over.
    NoView,
    /// A view is on the disk of this node, so that no later run of it stands in an older one: as [`Output::Keep`] asked for it, or as
    /// an earlier run left it. Ignored unless the node [keeps views](crate::Node::keeping).
    Kept(View),
    /// A proposal is surely not stored: it was refused, or a read after its time-out shows the old epoch.
    NotStored {
        /// The epoch it was to follow.
        from_epoch: u64,
    },
    /// An address is to be served, or its candidates changed.
    Request {
        /// The address.
        address: IpAddr,
        /// Who may have it.
        request: Request,
    },
    /// An address is not to be served any more.
    Withdraw {
        /// The address.
        address: IpAddr,
    },
    /// What [`Output::Prepare`] asked for is done: addresses, rules and routes are in place, silent, and the last probe
    /// for a foreign holder stayed unanswered.
    Prepared {
        /// The address.
        address: IpAddr,
    },
    /// An address should move to another node; it stays if there is none.
    HandOver {
        /// The address.
        address: IpAddr,
    },
    /// The node stops: everything moves, then it leaves the view.
    Leave,
}

/// What a driver has to do, in this order: each one has taken effect before the next begins.
///
/// Above all a `Mute` is acknowledged by the kernel before anything behind it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Silence every address of ours: an earlier run may have left some armed.
    MuteAll,
    /// Send a datagram.
    Send {
        /// To this node.
        to: NodeId,
        /// The UDP payload.
        datagram: Vec<u8>,
    },
    /// Get an address ready, silently, and answer with [`Input::Prepared`].
    Prepare {
        /// The address.
        address: IpAddr,
        /// Why this node is to have it.
        cause: Cause,
    },
    /// Undo [`Output::Prepare`]: the address went elsewhere.
    Discard {
        /// The address.
        address: IpAddr,
    },
    /// A majority granted an address that may not be ready yet: whoever else answers for it is no node of this cluster.
    Granted {
        /// The address.
        address: IpAddr,
    },
    /// Let the kernel answer for an address until an absolute deadline, whatever becomes of this process. A deadline
    /// that has passed when it is written silences: it is never made relative.
    Arm {
        /// The address.
        address: IpAddr,
        /// The deadline on this host's boot-time clock.
        deadline: Moment,
    },
    /// Tell the LAN. The address is armed.
    Announce {
        /// The address.
        address: IpAddr,
        /// Why this node has it.
        cause: Cause,
    },
    /// Silence an address now.
    Mute {
        /// The address.
        address: IpAddr,
    },
    /// This node has the address no longer; it was muted. Stop announcing, undo the preparation, keep forwarding for a
    /// while.
    Lost {
        /// The address.
        address: IpAddr,
        /// Why.
        cause: Loss,
    },
    /// A datagram was of this node, which has just made it.
    Heard {
        /// The node.
        node: NodeId,
    },
    /// A node knows version 1 of the wire only: it runs an older program. Told when that shows, not again while it is so.
    Former {
        /// The node.
        node: NodeId,
    },
    /// A voter is heard and does not answer. For a while, longer each time, it is none.
    Deaf {
        /// The node.
        node: NodeId,
    },
    /// Replace the stored view by compare-and-swap. Then say [`Input::View`] or [`Input::NotStored`]; after a time-out
    /// read until it is clear.
    ProposeView {
        /// Only if the stored view has this epoch; 0: only if there is none.
        from_epoch: u64,
        /// The new view.
        view: View,
    },
    /// Keep a view on the disk, so that it outlives this host's power, then say [`Input::Kept`]. Until then it counts as not heard of.
    /// Views are asked for in rising order, and what is kept is never an older one than before.
    Keep(View),
    /// The node went over to a view.
    Adopted {
        /// Its epoch.
        epoch: u64,
    },
    /// All earlier voter sets are sealed.
    Activated {
        /// The epoch that is active.
        epoch: u64,
    },
    /// A datagram was thrown away.
    Refused(DatagramError),
    /// Everything was handed over and the view does without this node, or the time for it is over: the driver may exit.
    Left,
}

/// Why a node got an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nobody is known to have had it.
    First,
    /// Its holder is not heard any more.
    Takeover,
    /// Its holder lives and lost it.
    Abandoned,
    /// This node had it and lost it.
    Resumed,
    /// Its holder handed it over.
    Handover,
}

/// Why a node has an address no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// No majority renewed the lease in time.
    Expired,
    /// It was handed over.
    HandedOver {
        /// To this node.
        to: NodeId,
    },
    /// It is not to be served, or this node is no candidate and there is no other.
    Dropped,
}
