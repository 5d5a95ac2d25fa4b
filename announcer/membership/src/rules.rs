//! Owns what only a simulation does: it takes a rule of the protocol out, to see that it then fails, and presses nodes
//! against their policy.

use std::net::IpAddr;

use crate::view::Voters;

/// The rules that safety rests on. All of them hold unless a simulation says otherwise.
///
/// A program never changes them: a node without one of them is not safe, and neither is its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A voter refuses an address that another session was promised.
    pub promises_exclude: bool,
    /// A promise covers the owner's lease, clock drift and the kernel's lateness; else it is a lease long, less drift.
    pub promise_outlasts_lease: bool,
    /// A lease needs a majority; else one voter fewer.
    pub majority: bool,
    /// A lease counts from the send time of what was granted; else from the arrival of the grant.
    pub lease_from_send: bool,
    /// A lapsed lease ends the hold; else a later grant revives it.
    pub lapsed_is_lost: bool,
    /// A grant counts only if the voter had read that this claim, or this hold, began.
    pub versions: bool,
    /// A claim becomes a hold by a second majority, asked for while the first one lasts; else by the first.
    pub second_majority: bool,
    /// Only grants of the owner's own epoch count.
    pub grants_of_my_epoch: bool,
    /// Only grants made in an active view count.
    pub grants_of_active_view: bool,
    /// A view is active only when every earlier voter set is sealed; else at once.
    pub seal: bool,
    /// A view proposed before its own became active names the earlier sets that are still to be sealed.
    pub pending_previous: bool,
    /// Claims wait out a promise after a view became active.
    pub wait_after_activation: bool,
    /// The wait is dropped only for a direct step out of an active view of at most two voters.
    pub two_voter_conditions: bool,
    /// A voter that starts grants nothing until what an earlier run of it promised has run out.
    pub restart_wait: bool,
    /// A claim passes the checks of a claim, also where an entry names its session already.
    pub entry_is_no_pass: bool,
    /// The kernel is muted before voters hear that an address was dropped.
    pub mute_first: bool,
}

/// What a simulation makes a node do against its policy, so that nothing but the rules keeps two nodes apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Ask for an address at once, whatever placement says, if this node may have it.
    Take {
        /// The address.
        address: IpAddr,
    },
    /// Propose these voters, if this node is one now.
    Propose(Voters),
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            promises_exclude: true,
            promise_outlasts_lease: true,
            majority: true,
            lease_from_send: true,
            lapsed_is_lost: true,
            versions: true,
            second_majority: true,
            grants_of_my_epoch: true,
            grants_of_active_view: true,
            seal: true,
            pending_previous: true,
            wait_after_activation: true,
            two_voter_conditions: true,
            restart_wait: true,
            entry_is_no_pass: true,
            mute_first: true,
        }
    }
}
