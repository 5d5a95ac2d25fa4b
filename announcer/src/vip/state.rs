//! One record of everything that is known of a VIP, for people.

use std::net::IpAddr;

use serde::Serialize;

/// Everything that is known of one VIP on this node.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Its address; none while it has none.
    pub address: Option<IpAddr>,
    /// Who wants it, oldest first.
    pub claimants: Vec<String>,
    /// The nodes that could serve it, for each claimant.
    pub candidates: Vec<String>,
    /// The node that is said to have it.
    pub said_to_be_on: Option<String>,
    /// Index of the interface that it belongs on here.
    pub interface: Option<u32>,
    /// Why it cannot be here, or is not announced, by stable reasons.
    pub refusals: Vec<&'static str>,
    /// How far this node is with owning it: `none`, `asks`, `owns`.
    pub ownership: &'static str,
    /// Whether it is bound, and on which interfaces.
    pub bound_on: Vec<u32>,
    /// Whether it is announced here.
    pub announced: bool,
    /// The routers that were told of it by BGP.
    pub told_to: Vec<String>,
    /// Whether another host has it: `not asked now`, `asking`, `free`, or its hardware address.
    pub conflict: String,
    /// The address of the VM that it leads to.
    pub leads_to: Option<IpAddr>,
    /// How many of its ports are guarded while kube-proxy does not serve them.
    pub guarded_ports: usize,
}
