//! The guard: an nftables table of our own that drops, rather than refuses, what kube-proxy does not yet serve.
//!
//! kube-proxy programs an address after it has seen it in a Service's status, so for a moment after binding it the node
//! itself would answer a client's SYN with a reset. A dropped SYN is sent again a second later, and finds kube-proxy.
//!
//! The chain sits in the `input` hook at priority 150: after kube-proxy's own filters (0, so that its rejections of
//! Services without endpoints still reach the client) and after IPVS, which takes its packets at 98 and 99
//! (`ip_vs_ops4` in Linux). What kube-proxy serves in any of its modes never comes by here, because its destination has
//! been rewritten before; and a packet dropped here leaves no connection tracking entry behind that would keep the next
//! one from being rewritten.
//!
//! Owns the table `inet berth`. Replaces it whole or changes elements of its sets, each in one transaction.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::kernel::nft;
pub use crate::kernel::nft::Error;
use crate::kernel::tables::Losses;
use crate::kernel::{Guard, Port};

/// Priority in the `input` hook; see above.
const PRIORITY: i32 = 150;

/// How many elements one transaction may change before it is cheaper to write the table anew.
const PIECEMEAL: usize = 256;

/// Pause between looks at the table when nothing happens: somebody may have changed an element.
const LOOK: Duration = Duration::from_secs(30);

/// The name of the table.
const TABLE: &str = "berth";

/// Writes the table whole: afterwards it guards exactly `ports`.
pub fn whole(ports: &BTreeSet<Port>) -> String {
    let sets = [("services4", "ipv4_addr", true), ("services6", "ipv6_addr", false)];
    // Adding before deleting makes the deletion valid when there is no table yet.
    let mut script =
        String::from("add table inet berth\ndelete table inet berth\ntable inet berth {\n");
    for (name, kind, v4) in sets {
        let elements = elements(ports.iter().filter(|port| port.address.is_ipv4() == v4));
        let elements =
            if elements.is_empty() { elements } else { format!("elements = {{ {elements} }}") };
        let _ = writeln!(
            script,
            "set {name} {{ type {kind} . inet_proto . inet_service; {elements} }}"
        );
    }
    let _ = write!(
        script,
        "chain unserved {{
type filter hook input priority {PRIORITY}; policy accept;
ip daddr . meta l4proto . th dport @services4 counter drop
ip6 daddr . meta l4proto . th dport @services6 counter drop
}}
}}
"
    );
    script
}

/// Changes the table from guarding `now` to guarding `wanted`; nothing if writing it whole is cheaper.
pub fn change(now: &BTreeSet<Port>, wanted: &BTreeSet<Port>) -> Option<String> {
    let gone: Vec<&Port> = now.difference(wanted).collect();
    let new: Vec<&Port> = wanted.difference(now).collect();
    if gone.len() + new.len() > PIECEMEAL {
        return None;
    }
    let mut script = String::new();
    for (verb, ports) in [("delete", gone), ("add", new)] {
        for (set, v4) in [("services4", true), ("services6", false)] {
            let of_family = ports.iter().copied().filter(|port| port.address.is_ipv4() == v4);
            let elements = elements(of_family);
            if !elements.is_empty() {
                let _ = writeln!(script, "{verb} element inet berth {set} {{ {elements} }}");
            }
        }
    }
    Some(script)
}

fn elements<'a>(ports: impl Iterator<Item = &'a Port>) -> String {
    // Numbers only: `nft` would look names up in files that an image need not carry, or in the DNS.
    let element = |port: &Port| format!("{} . {} . {}", port.address, port.protocol, port.port);
    ports.map(element).collect::<Vec<_>>().join(", ")
}

/// The ports that `nft -j list table inet berth` shows; nothing if it is not the table that [`whole`] writes.
pub fn read(listing: &str) -> Option<BTreeSet<Port>> {
    let listing: Value = serde_json::from_str(listing).ok()?;
    let items = listing.get("nftables")?.as_array()?;
    let rules = items.iter().filter(|item| item.get("rule").is_some()).count();
    let hooked = items.iter().filter_map(|item| item.get("chain")).any(|chain| {
        chain["hook"] == "input" && chain["prio"] == PRIORITY && chain["policy"] == "accept"
    });
    if rules != 2 || !hooked {
        return None;
    }
    let mut ports = BTreeSet::new();
    for set in items.iter().filter_map(|item| item.get("set")) {
        let elements = set.get("elem").and_then(Value::as_array);
        for element in elements.into_iter().flatten() {
            ports.insert(port(element.get("concat")?.as_array()?)?);
        }
    }
    Some(ports)
}

fn port(fields: &[Value]) -> Option<Port> {
    let [address, protocol, port] = fields else { return None };
    Some(Port {
        address: address.as_str()?.parse().ok()?,
        protocol: protocol_number(protocol)?,
        port: u16::try_from(port.as_u64()?).ok()?,
    })
}

/// `nft` shows names where `/etc/protocols` knows them, whatever it was given.
fn protocol_number(shown: &Value) -> Option<u8> {
    match shown.as_str() {
        Some("tcp") => Some(6),
        Some("udp") => Some(17),
        Some("sctp") => Some(132),
        Some(other) => other.parse().ok(),
        None => u8::try_from(shown.as_u64()?).ok(),
    }
}

/// Removes the table, if it is there.
pub async fn remove() -> Result<(), Error> {
    nft::load("add table inet berth\ndelete table inet berth\n").await
}

async fn list() -> Result<String, Error> {
    nft::run(&["-j", "list", "table", "inet", "berth"], "").await
}

/// Keeps the table as `wanted` says and tells each change of what holds. A kernel or an `nft` that is busy for seconds
/// delays nobody but this. Ends when `wanted` is dropped.
pub async fn keep(mut wanted: watch::Receiver<BTreeSet<Port>>, told: mpsc::Sender<Guard>) {
    let mut holds: Option<BTreeSet<Port>> = None;
    let mut warned = false;
    let mut losses = Losses::listen().ok();
    loop {
        let ports = wanted.borrow_and_update().clone();
        if holds.as_ref() != Some(&ports) {
            match write(holds.as_ref(), &ports).await {
                Ok(()) => {
                    holds = Some(ports.clone());
                    let _ = told.send(Guard::Holds(ports)).await;
                }
                Err(error) => {
                    if !warned {
                        tracing::warn!(
                            %error,
                            "no guard in nftables: until kube-proxy has programmed a new address, connections to it \
                             are refused instead of delayed"
                        );
                    }
                    warned = true;
                    let _ = told.send(Guard::Unavailable).await;
                    if wanted.changed().await.is_err() {
                        return;
                    }
                    holds = None;
                    continue;
                }
            }
        }
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
            () = lost(&mut losses) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        let listing = list().await.ok();
        holds = listing.as_deref().and_then(read);
    }
}

async fn lost(losses: &mut Option<Losses>) {
    match losses {
        Some(losses) => losses.next(TABLE).await,
        None => std::future::pending().await,
    }
}

async fn write(holds: Option<&BTreeSet<Port>>, ports: &BTreeSet<Port>) -> Result<(), Error> {
    if let Some(script) = holds.and_then(|holds| change(holds, ports))
        && nft::load(&script).await.is_ok()
    {
        return Ok(());
    }
    nft::load(&whole(ports)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str, protocol: u8, port: u16) -> Port {
        Port { address: address.parse().unwrap(), protocol, port }
    }

    #[test]
    fn the_whole_table_names_every_port_by_number() {
        let ports = [port("192.0.2.1", 6, 80), port("2001:db8::1", 17, 53)].into();
        let script = whole(&ports);
        assert!(script.contains("192.0.2.1 . 6 . 80"), "{script}");
        assert!(script.contains("2001:db8::1 . 17 . 53"), "{script}");
        assert!(script.starts_with("add table inet berth\ndelete table inet berth\n"), "{script}");
    }

    #[test]
    fn a_small_change_touches_only_what_differs() {
        let now = [port("192.0.2.1", 6, 80), port("192.0.2.2", 6, 80)].into();
        let wanted = [port("192.0.2.2", 6, 80), port("2001:db8::1", 6, 443)].into();
        assert_eq!(
            change(&now, &wanted).unwrap(),
            "delete element inet berth services4 { 192.0.2.1 . 6 . 80 }\n\
             add element inet berth services6 { 2001:db8::1 . 6 . 443 }\n"
        );
    }

    #[test]
    fn a_large_change_is_written_whole() {
        let wanted: BTreeSet<Port> = (0..1000).map(|n| port("192.0.2.1", 6, n)).collect();
        assert_eq!(change(&BTreeSet::new(), &wanted), None);
    }

    #[test]
    fn a_table_without_its_chain_is_not_ours() {
        assert_eq!(read(r#"{"nftables": [{"table": {"family": "inet", "name": "berth"}}]}"#), None);
        assert_eq!(read("garbage"), None);
    }
}
