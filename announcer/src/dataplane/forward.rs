//! Forwards to the previous owner: connections that began at it go on through it.
//!
//! A connection is known to the node that took its first packet: that node chose the endpoint and translates between
//! the two. When the address moves, the client's packets come to a node that knows nothing of them; kube-proxy there
//! would take them for the start of a connection (`nf_conntrack_tcp_loose`), choose an endpoint anew, and that endpoint
//! would reset it. So TCP packets that begin nothing and belong to no connection of this node are handed on to the
//! previous owner as they are; it translates them as before and answers the client by itself. The same idea serves large
//! load balancers (GitHub's GLB Director calls it second chance).
//!
//! The chain stands in the `prerouting` hook at priority -150: after connection tracking (-200), which tells what is
//! known here, and before kube-proxy's translation (-100). `dup` exists in the families `ip` and `ip6` only, so there is
//! a table for each, while there is something to forward and no longer.
//!
//! Owns the tables `ip berth` and `ip6 berth` (each instance has two of its own name).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::kernel::nft;
pub use crate::kernel::nft::Error;
use crate::kernel::reconciler::{Keep, Why};
use crate::vip::{Family, Forwards};

/// Priority in the `prerouting` hook; see above.
const PRIORITY: i32 = -150;

/// Pause between looks at the tables while there are any: somebody may have flushed them.
const LOOK: Duration = Duration::from_secs(1);

/// Writes the table of a family whole; without a pair in it there is none afterwards.
pub fn whole(family: Family, table: &str, forwards: &Forwards) -> String {
    let (name, kind) = names(family);
    // Adding before deleting makes the deletion valid when there is no table yet.
    let mut script = format!("add table {name} {table}\ndelete table {name} {table}\n");
    let elements: Vec<String> = of(family, forwards).map(|(a, b)| format!("{a} : {b}")).collect();
    if elements.is_empty() {
        return script;
    }
    let elements = elements.join(", ");
    // An address without an element ends the rule.
    let _ = write!(
        script,
        "table {name} {table} {{
map former {{ type {kind} : {kind}; elements = {{ {elements} }} }}
chain detour {{
type filter hook prerouting priority {PRIORITY}; policy accept;
tcp flags & syn == 0 ct state new,invalid dup to {name} daddr map @former counter drop
}}
}}
"
    );
    script
}

/// What nftables calls a family, and an address of it.
fn names(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("ip", "ipv4_addr"),
        Family::V6 => ("ip6", "ipv6_addr"),
    }
}

fn of(family: Family, forwards: &Forwards) -> impl Iterator<Item = (&IpAddr, &IpAddr)> {
    forwards.iter().filter(move |(address, _)| Family::of(address) == family)
}

/// Removes the tables of this name, if they are there.
///
/// # Errors
/// The first one that could not be removed.
pub async fn remove(table: &str) -> Result<(), Error> {
    let nothing = Forwards::new();
    let v4 = nft::load(&whole(Family::V4, table, &nothing)).await;
    // A host without IPv6 has no such family either.
    let _ = nft::load(&whole(Family::V6, table, &nothing)).await;
    v4
}

/// Keeps the tables. Tells each set of pairs once it has done with it what can be done.
pub(super) struct Tables {
    name: String,
    holds: Forwards,
    warned: bool,
}

impl Tables {
    pub(super) fn new(name: String) -> Self {
        Self { name, holds: Forwards::new(), warned: false }
    }
}

impl Keep for Tables {
    type Wanted = Forwards;
    type Event = Forwards;

    const GLANCE: Duration = LOOK;
    /// The cheap look sees everything.
    const LOOK: Duration = Duration::from_secs(3600);

    async fn make(&mut self, forwards: &Forwards, why: Why) -> Result<Option<Forwards>, Forwards> {
        if why == Why::Doubt {
            self.holds = Forwards::new();
        }
        for family in Family::ALL {
            if of(family, &self.holds).eq(of(family, forwards)) {
                continue;
            }
            if let Err(error) = nft::load(&whole(family, &self.name, forwards)).await
                && !std::mem::replace(&mut self.warned, true)
            {
                tracing::warn!(
                    %error,
                    "no forwarding in nftables: connections that began at an address's previous owner are reset when it moves"
                );
            }
        }
        self.holds = forwards.clone();
        Ok(Some(forwards.clone()))
    }

    fn is_watched(&self, forwards: &Forwards) -> bool {
        !forwards.is_empty()
    }

    /// There only while an address moves: looking is enough.
    async fn lost(&mut self) {
        std::future::pending().await
    }

    async fn stands(&mut self, forwards: &Forwards) -> bool {
        for family in Family::ALL {
            let mut pairs = of(family, forwards).peekable();
            if pairs.peek().is_none() {
                continue;
            }
            let (family, _) = names(family);
            let listing = nft::run(&["-n", "list", "table", family, &self.name], "").await;
            let stands = |text: &String| {
                text.contains("dup to") && pairs.all(|(a, b)| text.contains(&format!("{a} : {b}")))
            };
            if !listing.as_ref().is_ok_and(stands) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_written_whole_and_only_where_there_is_something_to_forward() {
        let forwards: Forwards =
            [("192.0.2.1".parse().unwrap(), "198.51.100.11".parse().unwrap())].into();
        let v4 = whole(Family::V4, "berth", &forwards);
        assert!(v4.starts_with("add table ip berth\ndelete table ip berth\ntable ip berth {"));
        assert!(v4.contains("elements = { 192.0.2.1 : 198.51.100.11 }"), "{v4}");
        assert!(v4.contains("dup to ip daddr map @former counter drop"), "{v4}");
        assert_eq!(
            whole(Family::V6, "berth", &forwards),
            "add table ip6 berth\ndelete table ip6 berth\n"
        );
    }
}
