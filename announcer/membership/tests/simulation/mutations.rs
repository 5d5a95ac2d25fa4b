//! Owns the proof that the rules are needed: each is taken out, and the simulation finds two owners.

use crate::world::Settings;

/// A rule and how to take it out.
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    pub(crate) take_out: fn(&mut Settings),
}

macro_rules! rule {
    ($name:ident) => {
        Mutation { name: stringify!($name), take_out: |settings| settings.rules.$name = false }
    };
}

/// All of them.
pub(crate) const MUTATIONS: &[Mutation] = &[
    rule!(promises_exclude),
    rule!(promise_outlasts_lease),
    rule!(majority),
    rule!(lease_from_send),
    rule!(lapsed_is_lost),
    rule!(versions),
    rule!(second_majority),
    rule!(grants_of_my_epoch),
    rule!(grants_of_active_view),
    rule!(seal),
    rule!(pending_previous),
    rule!(wait_after_activation),
    rule!(two_voter_conditions),
    rule!(restart_wait),
    rule!(entry_is_no_pass),
    rule!(mute_first),
    Mutation { name: "absolute_deadline", take_out: |settings| settings.absolute_deadline = false },
    Mutation { name: "fresh_read", take_out: |settings| settings.fresh_read = false },
    Mutation { name: "compare_and_swap", take_out: |settings| settings.compare_and_swap = false },
];
