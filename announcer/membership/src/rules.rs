//! Owns the rules that safety rests on. In a program all of them hold, and nothing can say otherwise; with the feature
//! `simulation` each can be taken out, to see that the protocol then fails.

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $rule:ident,)*) => {
        /// The rules that safety rests on. All of them hold unless a simulation says otherwise: a node without one of
        /// them is not safe, and neither is its cluster.
        #[cfg(feature = "simulation")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Rules {
            $($(#[doc = $doc])+ pub $rule: bool,)*
        }

        #[cfg(feature = "simulation")]
        impl Default for Rules {
            fn default() -> Self {
                Self { $($rule: true,)* }
            }
        }

        #[cfg(feature = "simulation")]
        impl Rules {
            $($(#[doc = $doc])+ pub(crate) const fn $rule(&self) -> bool {
                self.$rule
            })*
        }

        /// The rules that safety rests on: all of them hold.
        #[cfg(not(feature = "simulation"))]
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Rules;

        #[cfg(not(feature = "simulation"))]
        impl Rules {
            $($(#[doc = $doc])+ pub(crate) const fn $rule(&self) -> bool {
                true
            })*
        }
    };
}

rules! {
    /// A voter refuses an address that another session was promised.
    promises_exclude,
    /// A promise covers the owner's lease, clock drift and the kernel's lateness; else it is a lease long, less drift.
    promise_outlasts_lease,
    /// A promise is never shortened: who asks for less later is owed what it was promised; else the last promise counts.
    promise_is_kept,
    /// A voter promises no more than its view allows; else what was asked for.
    ceiling,
    /// A grant lasts for what its voter said; else for what its owner asks for.
    said_lease,
    /// A grant of a voter that does not say lasts for what every version promises; else for what its owner asks for.
    unsaid_lease,
    /// Who cannot know what was promised waits for the longest promise there may be; else for what every version promises.
    longest_wait,
    /// A lease needs a majority; else one voter fewer.
    majority,
    /// A lease counts from the send time of what was granted; else from the arrival of the grant.
    lease_from_send,
    /// A lapsed lease ends the hold; else a later grant revives it.
    lapsed_is_lost,
    /// A grant counts only if the voter had read that this claim, or this hold, began.
    versions,
    /// A claim becomes a hold by a second majority, asked for while the first one lasts; else by the first.
    second_majority,
    /// Only grants of the owner's own epoch count.
    grants_of_my_epoch,
    /// Only grants made in an active view count.
    grants_of_active_view,
    /// A view is active only when every earlier voter set is sealed; else at once.
    seal,
    /// A view proposed before its own became active names the earlier sets that are still to be sealed.
    pending_previous,
    /// Claims wait out a promise after a view became active.
    wait_after_activation,
    /// The wait is dropped only for a direct step out of an active view of at most two voters.
    two_voter_conditions,
    /// A voter that starts grants nothing until what an earlier run of it promised has run out.
    restart_wait,
    /// A claim passes the checks of a claim, also where an entry names its session already.
    entry_is_no_pass,
    /// The kernel is muted before voters hear that an address was dropped.
    mute_first,
}
