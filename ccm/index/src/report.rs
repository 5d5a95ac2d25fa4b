//! Owns what is told to people: which object, how bad, and why. Reasons are those of [`berth_api::reason`].

use berth_api::NamespacedName;

use crate::claimant::Id;

/// The object that a report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A Service or EipBinding, with its uid.
    Claimant(Id, String),
    /// The pool ConfigMap, with its uid.
    Pools(NamespacedName, String),
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The object.
    pub about: About,
    /// Whether somebody should look at it.
    pub is_warning: bool,
    /// The stable reason.
    pub reason: &'static str,
    /// The same for people.
    pub note: String,
}
