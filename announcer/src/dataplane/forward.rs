//! The detour: connections that began at an address's former owner go on through it.
//!
//! A connection is known to the node that took its first packet: that node chose the endpoint and translates between
//! the two. When the address moves, the client's packets come to a node that knows nothing of them; kube-proxy there
//! would take them for the start of a connection (`nf_conntrack_tcp_loose`), choose an endpoint anew, and that endpoint
//! would reset it. So TCP packets that begin nothing and belong to no connection of this node are handed on to the
//! former owner as they are; it translates them as before and answers the client by itself. The same idea serves large
//! load balancers (GitHub's GLB Director calls it second chance).
//!
//! The chain stands in the `prerouting` hook at priority -150: after connection tracking (-200), which tells what is
//! known here, and before kube-proxy's translation (-100). `dup` exists in the families `ip` and `ip6` only, so there is
//! a table for each, while there is a detour and no longer.
//!
//! Owns the tables `ip berth` and `ip6 berth`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::kernel::nft;
pub use crate::kernel::nft::Error;
use crate::vip::Forwards;

/// Priority in the `prerouting` hook; see above.
const PRIORITY: i32 = -150;

/// Pause between looks at the tables while there are any: somebody may have flushed them.
const LOOK: Duration = Duration::from_secs(1);

/// A family of nftables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `ip`.
    V4,
    /// `ip6`.
    V6,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Writes the table of a family whole; without a detour in it there is none afterwards.
pub fn whole(family: Family, detours: &Forwards) -> String {
    let name = family.name();
    // Adding before deleting makes the deletion valid when there is no table yet.
    let mut script = format!("add table {name} berth\ndelete table {name} berth\n");
    let elements: Vec<String> = family.of(detours).map(|(a, b)| format!("{a} : {b}")).collect();
    if elements.is_empty() {
        return script;
    }
    let elements = elements.join(", ");
    // An address without an element ends the rule.
    let _ = write!(
        script,
        "table {name} berth {{
map former {{ type {kind} : {kind}; elements = {{ {elements} }} }}
chain detour {{
type filter hook prerouting priority {PRIORITY}; policy accept;
tcp flags & syn == 0 ct state new,invalid dup to {name} daddr map @former counter drop
}}
}}
",
        kind = family.kind()
    );
    script
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    fn of(self, detours: &Forwards) -> impl Iterator<Item = (&IpAddr, &IpAddr)> {
        detours.iter().filter(move |(address, _)| address.is_ipv4() == (self == Self::V4))
    }
}

/// Removes both tables, if they are there.
///
/// # Errors
/// The first one that could not be removed.
pub async fn remove() -> Result<(), Error> {
    let nothing = Forwards::new();
    let v4 = nft::load(&whole(Family::V4, &nothing)).await;
    // A host without IPv6 has no such family either.
    let _ = nft::load(&whole(Family::V6, &nothing)).await;
    v4
}

/// Keeps the tables as `wanted` says. Tells each set of detours once it has done with it what can be done. Ends when
/// `wanted` is dropped.
pub async fn keep(mut wanted: watch::Receiver<Forwards>, told: mpsc::UnboundedSender<Forwards>) {
    let mut holds = Forwards::new();
    let mut warned = false;
    loop {
        let detours = wanted.borrow_and_update().clone();
        for family in FAMILIES {
            if family.of(&holds).eq(family.of(&detours)) {
                continue;
            }
            if let Err(error) = nft::load(&whole(family, &detours)).await
                && !std::mem::replace(&mut warned, true)
            {
                tracing::warn!(
                    %error,
                    "no detour in nftables: connections that an address's former owner began are reset when it moves"
                );
            }
        }
        let _ = told.send(detours.clone());
        holds = detours;
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = flushed(&holds), if !holds.is_empty() => holds = Forwards::new(),
        }
    }
}

/// Waits until a table is not as it was written.
async fn flushed(holds: &Forwards) {
    loop {
        tokio::time::sleep(LOOK).await;
        for family in FAMILIES {
            let mut of = family.of(holds).peekable();
            if of.peek().is_none() {
                continue;
            }
            let listing = nft::run(&["-n", "list", "table", family.name(), "berth"], "").await;
            let stands = |text: &String| {
                text.contains("dup to") && of.all(|(a, b)| text.contains(&format!("{a} : {b}")))
            };
            if !listing.as_ref().is_ok_and(stands) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_written_whole_and_only_where_there_is_a_detour() {
        let detours: Forwards =
            [("192.0.2.1".parse().unwrap(), "198.51.100.11".parse().unwrap())].into();
        let v4 = whole(Family::V4, &detours);
        assert!(v4.starts_with("add table ip berth\ndelete table ip berth\ntable ip berth {"));
        assert!(v4.contains("elements = { 192.0.2.1 : 198.51.100.11 }"), "{v4}");
        assert!(v4.contains("dup to ip daddr map @former counter drop"), "{v4}");
        assert_eq!(whole(Family::V6, &detours), "add table ip6 berth\ndelete table ip6 berth\n");
    }
}
