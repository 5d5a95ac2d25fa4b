//! What every way of deciding on owners looks at.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::kernel::Host;
use crate::vip::Wanted;
use crate::vip::nodes::Peers;

/// What every way of deciding on owners looks at.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What is wanted of what is decided on here.
    pub wanted: &'a Wanted,
    /// All that is wanted, by whichever way neighbours or routers come to know of it.
    pub all: &'a Wanted,
    /// This node.
    pub node: &'a str,
    /// What the kernel has shown.
    pub host: &'a Host,
    /// The nodes there are; nothing before they were shown, or where they may not be looked at.
    pub nodes: Option<&'a Peers>,
    /// Whether this node has the interface for addresses that name none.
    pub usable: bool,
    /// The addresses that the kernel does not take.
    pub refused: &'a BTreeSet<IpAddr>,
    /// Whether every Service and its endpoints were shown.
    pub known: bool,
    /// Whether every `EipBinding` was shown.
    pub bindings_known: bool,
}
