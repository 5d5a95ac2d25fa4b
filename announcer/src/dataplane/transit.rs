//! What passes through this node and is not to, where routers lead addresses here.
//!
//! **To routers, as this node.** A router knows a node by its address, at whichever of its own it is spoken to. What a pod sends
//! to it, by itself where the CNI masquerades or by a Service whose endpoint is the router, comes from that address: without a
//! password the router would take it for the node that begins anew (RFC 4724 §4.2), and end the session. A chain in the `postrouting`
//! hook, behind whoever translates sources (priority 100), drops what goes to a port of BGP with a source of this node's own and did
//! not begin here.
//!
//! **Back to where it came from, for a prefix that stands for addresses (`aggregate`).** What is in it and nobody's is led
//! here, goes on by the default route, comes back, and does so until its TTL ends: who announces a prefix discards what it has no
//! better way for (RFC 4632 §5.1). A chain in the `forward` hook drops what would leave by the link that it came by, but for
//! elastic IPs that another node has by now and routers do not know there yet.
//!
//! Owns the table `inet berth.transit` (each instance has one of its own name), which stands while there is anything in it.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::Family;
use berth_bgp::Prefix;

use crate::kernel::Door;
use crate::kernel::events::{Event, Signal};
use crate::kernel::nft::{self, Error};
use crate::kernel::reconciler::{Keep, Why};

/// The name of the task that keeps it.
pub const TASK: &str = "transit";

/// Behind translation of sources, which is at 100 (`NF_IP_PRI_NAT_SRC`).
const BEHIND: i32 = 150;

/// Pause between looks at the table: somebody may have changed an element.
const LOOK: Duration = Duration::from_secs(30);

/// Whether what is not to pass is kept from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It is.
    Barred,
    /// It is not, and why.
    Open(String),
}

/// What is not to pass through this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transit {
    /// The ports at which routers are spoken to.
    pub ports: BTreeSet<u16>,
    /// The prefixes that stand for addresses.
    pub wide: BTreeSet<Prefix>,
    /// Those that go on by the link that they come by.
    pub moved: BTreeSet<IpAddr>,
    /// The links that routers may be on, by their indices.
    pub links: BTreeSet<u32>,
}

impl Transit {
    fn is_nothing(&self) -> bool {
        self.ports.is_empty() && self.wide.is_empty()
    }

    /// The table of this name as a script, which puts it in the place of what is there; without anything in it there is none.
    fn script(&self, table: &str) -> String {
        // Adding before deleting makes the deletion valid when there is no table yet.
        let mut script = format!("add table inet {table}\ndelete table inet {table}\n");
        if self.is_nothing() {
            return script;
        }
        let mut sets = String::new();
        let mut passes = String::new();
        for (family, name, kind, count) in
            [(Family::V4, "ip", "ipv4_addr", 4), (Family::V6, "ip6", "ipv6_addr", 6)]
        {
            let is_of = |address: &IpAddr| Family::of(address) == family;
            let wide = self.wide.iter().filter(|wide| is_of(&wide.address()));
            set(
                &mut sets,
                &format!("wide{count}"),
                &format!("type {kind}; flags interval; auto-merge;"),
                wide,
            );
            let moved = self.moved.iter().filter(|own| is_of(own));
            set(&mut sets, &format!("moved{count}"), &format!("type {kind};"), moved);
            let _ = writeln!(
                passes,
                "{name} daddr @wide{count} {name} daddr != @moved{count} iif . oif @back counter drop"
            );
        }
        set(&mut sets, "ports", "type inet_service;", self.ports.iter());
        let back = self.links.iter().map(|link| format!("{link} . {link}"));
        set(&mut sets, "back", "typeof iif . oif;", back);
        let _ = write!(
            script,
            "table inet {table} {{
{sets}chain leaves {{
type filter hook postrouting priority {BEHIND}; policy accept;
iif != 0 tcp dport @ports fib saddr type local counter drop
}}
chain passes {{
type filter hook forward priority 0; policy accept;
{passes}}}
}}
"
        );
        script
    }
}

fn set(sets: &mut String, name: &str, kind: &str, elements: impl Iterator<Item = impl Display>) {
    let elements = elements.map(|element| element.to_string()).collect::<Vec<_>>().join(", ");
    let elements = match elements.is_empty() {
        true => elements,
        false => format!(" elements = {{ {elements} }};"),
    };
    let _ = writeln!(sets, "set {name} {{ {kind}{elements} }}");
}

/// The name of the table of an instance whose guard has this one. No instance can have such a name, nor the table of one.
fn name(table: &str) -> String {
    format!("{table}.transit")
}

/// Removes the table beside the guard of this name, if it is there.
///
/// # Errors
/// When it could not be removed.
pub async fn remove(table: &str) -> Result<(), Error> {
    nft::load(&Transit::default().script(&name(table))).await
}

/// Keeps the table. Tells why it cannot be had, or that it is.
pub(super) struct Table {
    name: String,
    /// What was written, and how `nft` lists it.
    holds: Option<(Transit, String)>,
    losses: Signal,
}

impl Table {
    pub(super) fn new(door: &Door, table: &str) -> Self {
        let (name, ours) = (name(table), name(table));
        let losses = door.events.signal(move |event| match event {
            Event::Lost { table, .. } => *table == ours,
            Event::AnyRules => true,
            _ => false,
        });
        Self { name, holds: None, losses }
    }

    async fn listed(&self) -> Result<String, Error> {
        nft::run(&["-n", "-s", "list", "table", "inet", &self.name], "").await
    }

    async fn write(&mut self, wanted: &Transit) -> Result<(), Error> {
        self.holds = None;
        nft::load(&wanted.script(&self.name)).await?;
        if !wanted.is_nothing() {
            self.holds = Some((wanted.clone(), self.listed().await?));
        }
        Ok(())
    }
}

impl Keep for Table {
    type Wanted = Transit;
    type Event = Passage;

    const GLANCE: Duration = LOOK;
    /// The cheap look sees everything.
    const LOOK: Duration = Duration::from_secs(3600);

    async fn make(
        &mut self,
        wanted: &Transit,
        why: Why,
    ) -> Result<Option<Self::Event>, Self::Event> {
        // What was written tells of a loss itself.
        let is_doubted = why == Why::Doubt && !self.stands(wanted).await;
        let is_written = match &self.holds {
            Some((holds, _)) => holds == wanted,
            // What an earlier life has written stays until anything else is wanted.
            None => wanted.is_nothing(),
        };
        if is_written && !is_doubted {
            return Ok(Some(Passage::Barred));
        }
        match self.write(wanted).await {
            Ok(()) => Ok(Some(Passage::Barred)),
            Err(error) => Err(Passage::Open(error.to_string())),
        }
    }

    fn is_watched(&self, wanted: &Transit) -> bool {
        !wanted.is_nothing()
    }

    async fn lost(&mut self) {
        self.losses.next().await;
    }

    async fn stands(&mut self, wanted: &Transit) -> bool {
        match &self.holds {
            Some((holds, listed)) if holds == wanted => {
                self.listed().await.is_ok_and(|now| now == *listed)
            }
            _ => wanted.is_nothing(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_both_families_and_is_none_where_nothing_is_kept_from_passing() {
        let name = name("berth");
        let none = "add table inet berth.transit\ndelete table inet berth.transit\n";
        assert_eq!(Transit::default().script(&name), none);
        let transit = Transit {
            ports: [179, 1790].into(),
            wide: ["10.99.0.0/24"].map(|at| at.parse().unwrap()).into(),
            moved: ["10.99.0.7".parse().unwrap()].into(),
            links: [2, 5].into(),
        };
        let script = transit.script(&name);
        for line in [
            "set ports { type inet_service; elements = { 179, 1790 }; }",
            "set wide4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.99.0.0/24 }; }",
            "set wide6 { type ipv6_addr; flags interval; auto-merge; }",
            "set moved4 { type ipv4_addr; elements = { 10.99.0.7 }; }",
            "set back { typeof iif . oif; elements = { 2 . 2, 5 . 5 }; }",
        ] {
            assert!(script.contains(line), "{line} in {script}");
        }
    }
}
