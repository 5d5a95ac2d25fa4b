//! The table of the guard as a value: how it is written, what changes in it, and what a listing of it says. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::kernel::nftables::Change;
use crate::kernel::{Guarded, Port};

/// Priorities in the hooks `input` and `prerouting` ([`super`]).
const PRIORITY: i32 = 150;
const AHEAD: i32 = -140;

/// So long an address stays doubted when nobody says so again: where endpoints lead is known by who lives.
const DOUBT: Duration = Duration::from_secs(120);

/// How many elements one transaction may change before it is cheaper to write the table anew.
const PIECEMEAL: usize = 256;

/// The table as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name.
    pub table: String,
    /// Whether the ports of the host are closed behind the addresses that it guards.
    pub closes: bool,
}

/// What the table has for one family.
struct Sets {
    v4: bool,
    /// What nftables calls an address, and the protocol that has it.
    kind: &'static str,
    protocol: &'static str,
    /// The number of its ICMP.
    icmp: u8,
    /// The set of ports that Services serve.
    services: &'static str,
    /// That of the addresses behind which the others are closed.
    closed: &'static str,
    /// That of the addresses whose ports others may take as well, and where these may lead.
    doubted: &'static str,
    leads: &'static str,
}

const SETS: [Sets; 2] = [
    Sets {
        v4: true,
        kind: "ipv4_addr",
        protocol: "ip",
        icmp: 1,
        services: "services4",
        closed: "closed4",
        doubted: "doubted4",
        leads: "leads4",
    },
    Sets {
        v4: false,
        kind: "ipv6_addr",
        protocol: "ip6",
        icmp: 58,
        services: "services6",
        closed: "closed6",
        doubted: "doubted6",
        leads: "leads6",
    },
];

impl Sets {
    /// Where a packet goes, as the set of ports has it.
    fn target(&self) -> String {
        format!("{} daddr . meta l4proto . th dport", self.protocol)
    }

    /// A packet to an address that is closed, and no ICMP.
    fn closed(&self) -> String {
        format!("{} daddr @{} meta l4proto != {}", self.protocol, self.closed, self.icmp)
    }

    /// What begins at a doubted address and was led to where none of its Services does.
    fn misled(&self) -> String {
        let Self { protocol, doubted, leads, .. } = self;
        let asked = format!("ct original {protocol} daddr");
        format!(
            "ct state new ct status dnat {asked} @{doubted} {asked} . {protocol} daddr != @{leads}"
        )
    }
}

impl Layout {
    /// Writes the table whole: afterwards it guards exactly `guarded`.
    pub fn whole(&self, guarded: &Guarded) -> String {
        self.script(guarded, self.closes)
    }

    /// The same without what takes more of a kernel than sets, `ct` and `fib`: who listens on the host is closed, and what
    /// others rewrite is not.
    pub(super) fn plain(&self, guarded: &Guarded) -> String {
        self.script(guarded, false)
    }

    fn script(&self, guarded: &Guarded, ahead: bool) -> String {
        let Guarded { ports, doubted } = guarded;
        let table = &self.table;
        let mut script = absent(table);
        let _ = writeln!(script, "table inet {table} {{");
        for sets in &SETS {
            let Sets { kind, services, closed, v4, .. } = *sets;
            let filled = with(&elements(of_family(ports, v4)));
            let _ = writeln!(
                script,
                "set {services} {{ type {kind} . inet_proto . inet_service; {filled} }}"
            );
            if self.closes {
                let filled = with(&texts(&addresses(ports, v4)));
                let _ = writeln!(script, "set {closed} {{ type {kind}; {filled} }}");
            }
            if ahead {
                let Sets { doubted: asked, leads, .. } = *sets;
                let filled = with(&texts(&asked_for(doubted, v4)));
                let lasts = DOUBT.as_secs();
                let _ = writeln!(
                    script,
                    "set {asked} {{ type {kind}; flags timeout; timeout {lasts}s; {filled} }}"
                );
                let pairs = led(doubted, v4);
                let pairs = pairs.iter().map(|(asked, to)| format!("{asked} . {to}"));
                let filled = with(&pairs.collect::<Vec<_>>().join(", "));
                let _ = writeln!(script, "set {leads} {{ type {kind} . {kind}; {filled} }}");
            }
        }
        let unserved = SETS.iter().map(|sets| format!("{} @{}", sets.target(), sets.services));
        let closed = SETS.iter().map(Sets::closed).filter(|_| self.closes);
        // `fib`: not what only passes through this node, to another that has the address.
        let rewritten = SETS.iter().map(|sets| {
            let (closed, target) = (sets.closed(), sets.target());
            format!(
                "ct state new,invalid,untracked {closed} {target} != @{} fib daddr type local",
                sets.services
            )
        });
        let rules = unserved.chain(closed).map(dropped);
        if ahead {
            // What answers connections that the node has begun is for no port of it, though their source be such an address.
            let replies = ["ct direction reply accept".to_owned()];
            let misled = || SETS.iter().map(Sets::misled).map(dropped);
            let rules = replies.into_iter().chain(rules).chain(misled());
            script += &chain("unserved", "input", PRIORITY, rules);
            script += &chain("misled", "forward", PRIORITY, misled());
            script += &chain("closed", "prerouting", AHEAD, rewritten.map(dropped));
        } else {
            script += &chain("unserved", "input", PRIORITY, rules);
        }
        script + "}\n"
    }

    /// What changes in the table from guarding `now` to guarding `wanted`; nothing if writing it whole is cheaper.
    pub(super) fn change(&self, now: &Guarded, wanted: &Guarded) -> Option<Vec<Change>> {
        let gone: BTreeSet<Port> = now.ports.difference(&wanted.ports).copied().collect();
        let new: BTreeSet<Port> = wanted.ports.difference(&now.ports).copied().collect();
        let mut count = gone.len() + new.len();
        let mut changes = Vec::new();
        let mut change = |adds: bool, set: &'static str, keys: Vec<Vec<u8>>| {
            if !keys.is_empty() {
                changes.push(Change { adds, set, keys });
            }
        };
        for (adds, ports, from, to) in [(false, &gone, now, wanted), (true, &new, wanted, now)] {
            for Sets { services, closed, doubted, leads, v4, .. } in SETS {
                change(adds, services, of_family(ports, v4).map(key).collect());
                if self.closes {
                    let (ports, others) = (addresses(ports, v4), addresses(&to.ports, v4));
                    change(adds, closed, ports.difference(&others).map(octets).collect());
                    let asked = [from, to].map(|all| asked_for(&all.doubted, v4));
                    change(adds, doubted, asked[0].difference(&asked[1]).map(octets).collect());
                    let pairs = [from, to].map(|all| led(&all.doubted, v4));
                    let keys = pairs[0].difference(&pairs[1]);
                    let keys = keys.map(|(asked, to)| [octets(asked), octets(to)].concat());
                    let keys: Vec<_> = keys.collect();
                    count += keys.len();
                    change(adds, leads, keys);
                }
            }
        }
        (count <= PIECEMEAL).then_some(changes)
    }

    /// Changes by which the addresses that are doubted stay so for as long again: before Linux 6.12 an element takes no
    /// other time. None where there are too many for one transaction.
    pub(super) fn renewal(&self, guarded: &Guarded) -> Option<Vec<Change>> {
        let changes = SETS.iter().filter(|_| self.closes).flat_map(|sets| {
            let keys = asked_for(&guarded.doubted, sets.v4).iter().map(octets).collect();
            let gone = Change { adds: false, set: sets.doubted, keys };
            [gone.clone(), Change { adds: true, ..gone }]
        });
        let changes: Vec<_> = changes.filter(|change| !change.keys.is_empty()).collect();
        let are_few = changes.iter().all(|change| change.keys.len() <= PIECEMEAL);
        are_few.then_some(changes)
    }

    /// What `nft -j list table` shows; nothing if it is not the table that [`Layout::whole`] writes.
    pub fn read(&self, listing: &str) -> Option<Guarded> {
        let listing: Value = serde_json::from_str(listing).ok()?;
        let items = listing.get("nftables")?.as_array()?;
        let rules = items.iter().filter(|item| item.get("rule").is_some()).count();
        let chains: Vec<&Value> = items.iter().filter_map(|item| item.get("chain")).collect();
        let is_hooked = |hook: &str, priority: i32| {
            let is_it = |chain: &&Value| {
                chain["hook"] == hook && chain["prio"] == priority && chain["policy"] == "accept"
            };
            chains.iter().any(is_it)
        };
        let (known, hooked) = match self.closes {
            true => {
                let hooks = [("input", PRIORITY), ("forward", PRIORITY), ("prerouting", AHEAD)];
                (11, hooks.into_iter().all(|(hook, priority)| is_hooked(hook, priority)))
            }
            false => (2, is_hooked("input", PRIORITY)),
        };
        if rules != known || !hooked {
            return None;
        }
        let (mut guarded, mut closed, mut leads) =
            (Guarded::default(), BTreeSet::new(), Vec::new());
        for set in items.iter().filter_map(|item| item.get("set")) {
            let name = set.get("name")?.as_str()?;
            let is = |of: fn(&Sets) -> &'static str| SETS.iter().any(|sets| of(sets) == name);
            let elements = set.get("elem").and_then(Value::as_array);
            for element in elements.into_iter().flatten() {
                let fields = element.get("concat").and_then(Value::as_array);
                if is(|sets| sets.services) {
                    guarded.ports.insert(port(fields?)?);
                } else if is(|sets| sets.leads) {
                    let [asked, to] = &fields?[..] else { return None };
                    leads.push((address(asked)?, address(to)?));
                } else if is(|sets| sets.doubted) {
                    guarded.doubted.entry(address(element)?).or_default();
                } else {
                    closed.insert(address(element)?);
                }
            }
        }
        for (asked, to) in leads {
            guarded.doubted.get_mut(&asked)?.insert(to);
        }
        let own = guarded.ports.iter().filter(|_| self.closes).map(|port| port.address);
        (closed == own.collect()).then_some(guarded)
    }
}

/// A chain of the table that drops or passes on, and decides on nothing else.
fn chain(name: &str, hook: &str, priority: i32, rules: impl Iterator<Item = String>) -> String {
    let rules: String = rules.map(|rule| rule + "\n").collect();
    format!(
        "chain {name} {{\ntype filter hook {hook} priority {priority}; policy accept;\n{rules}}}\n"
    )
}

fn dropped(rule: String) -> String {
    rule + " counter drop"
}

fn of_family(ports: &BTreeSet<Port>, v4: bool) -> impl Iterator<Item = &Port> {
    ports.iter().filter(move |port| port.address.is_ipv4() == v4)
}

fn addresses(ports: &BTreeSet<Port>, v4: bool) -> BTreeSet<IpAddr> {
    of_family(ports, v4).map(|port| port.address).collect()
}

fn asked_for(doubted: &BTreeMap<IpAddr, BTreeSet<IpAddr>>, v4: bool) -> BTreeSet<IpAddr> {
    doubted.keys().filter(|address| address.is_ipv4() == v4).copied().collect()
}

fn led(doubted: &BTreeMap<IpAddr, BTreeSet<IpAddr>>, v4: bool) -> BTreeSet<(IpAddr, IpAddr)> {
    let pairs = doubted.iter().flat_map(|(asked, to)| to.iter().map(|to| (*asked, *to)));
    pairs.filter(|(asked, to)| asked.is_ipv4() == v4 && to.is_ipv4() == v4).collect()
}

/// An address as a listing shows it: with when it ends, or without.
fn address(shown: &Value) -> Option<IpAddr> {
    let shown = shown.get("elem").and_then(|element| element.get("val")).unwrap_or(shown);
    shown.as_str()?.parse().ok()
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

/// An element of a set of ports as the kernel has it: the address, the protocol, the port, each filled up to four octets.
fn key(port: &Port) -> Vec<u8> {
    let [high, low] = port.port.to_be_bytes();
    [octets(&port.address), vec![port.protocol, 0, 0, 0, high, low, 0, 0]].concat()
}

fn texts(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The elements of a set that is made; it has none where there are none.
fn with(elements: &str) -> String {
    if elements.is_empty() { String::new() } else { format!("elements = {{ {elements} }}") }
}

/// Removes the table, if it is there: adding before deleting makes the deletion valid when it is not.
pub(super) fn absent(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

fn elements<'a>(ports: impl Iterator<Item = &'a Port>) -> String {
    // Numbers only: `nft` would look names up in files that an image need not carry, or in the DNS.
    let element = |port: &Port| format!("{} . {} . {}", port.address, port.protocol, port.port);
    ports.map(element).collect::<Vec<_>>().join(", ")
}

fn port(fields: &[Value]) -> Option<Port> {
    let [address, protocol, port] = fields else { return None };
    Some(Port {
        address: self::address(address)?,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn port(address: &str, protocol: u8, port: u16) -> Port {
        Port { address: address.parse().unwrap(), protocol, port }
    }

    fn layout(closes: bool) -> Layout {
        Layout { table: "berth".to_owned(), closes }
    }

    #[test]
    fn the_whole_table_names_every_port_by_number() {
        let ports = BTreeSet::from([port("192.0.2.1", 6, 80), port("2001:db8::1", 17, 53)]).into();
        let script = layout(false).whole(&ports);
        assert!(script.contains("192.0.2.1 . 6 . 80"), "{script}");
        assert!(script.contains("2001:db8::1 . 17 . 53"), "{script}");
        assert!(script.starts_with("add table inet berth\ndelete table inet berth\n"), "{script}");
        assert!(!script.contains("closed") && !script.contains("ct "), "{script}");
        let script = layout(true).whole(&ports);
        assert!(
            script.contains("set closed4 { type ipv4_addr; elements = { 192.0.2.1 } }"),
            "{script}"
        );
    }

    #[test]
    fn a_small_change_touches_only_what_differs() {
        let now = BTreeSet::from([port("192.0.2.1", 6, 80), port("192.0.2.2", 6, 80)]).into();
        let wanted = BTreeSet::from([port("192.0.2.2", 6, 81), port("2001:db8::1", 6, 443)]).into();
        let changes = |closes| layout(closes).change(&now, &wanted).unwrap();
        let change = |adds, set, keys: &[&[u8]]| {
            let keys = keys.iter().map(|key| key.to_vec()).collect();
            Change { adds, set, keys }
        };
        let v6 = [32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let v6_port = [&v6[..], &[6, 0, 0, 0, 1, 187, 0, 0]].concat();
        let gone = change(
            false,
            "services4",
            &[&[192, 0, 2, 1, 6, 0, 0, 0, 0, 80, 0, 0], &[192, 0, 2, 2, 6, 0, 0, 0, 0, 80, 0, 0]],
        );
        let new = change(true, "services4", &[&[192, 0, 2, 2, 6, 0, 0, 0, 0, 81, 0, 0]]);
        let new6 = change(true, "services6", &[&v6_port]);
        assert_eq!(changes(false), [gone.clone(), new.clone(), new6.clone()]);
        // An address that keeps a port stays closed.
        let opened = change(false, "closed4", &[&[192, 0, 2, 1]]);
        let closed = change(true, "closed6", &[&v6]);
        assert_eq!(changes(true), [gone, opened, new, new6, closed]);
    }

    #[test]
    fn what_is_doubted_is_said_again_family_by_family() {
        let doubted = ["192.0.2.1", "192.0.2.2"].map(|a| (a.parse().unwrap(), BTreeSet::new()));
        let guarded = Guarded { doubted: doubted.into(), ..Guarded::default() };
        let keys = vec![vec![192, 0, 2, 1], vec![192, 0, 2, 2]];
        let change = |adds| Change { adds, set: "doubted4", keys: keys.clone() };
        assert_eq!(layout(true).renewal(&guarded), Some(vec![change(false), change(true)]));
        assert_eq!(layout(false).renewal(&guarded), Some(vec![]));
        let shown = json!({ "elem": { "val": "192.0.2.1", "timeout": 120, "expires": 90 } });
        assert_eq!([address(&shown), address(&json!("192.0.2.1"))], ["192.0.2.1".parse().ok(); 2]);
    }

    #[test]
    fn a_large_change_is_written_whole() {
        let wanted: BTreeSet<Port> = (0..1000).map(|n| port("192.0.2.1", 6, n)).collect();
        assert_eq!(layout(true).change(&Guarded::default(), &wanted.into()), None);
    }

    #[test]
    fn a_table_without_its_chain_is_not_ours() {
        let bare = r#"{"nftables": [{"table": {"family": "inet", "name": "berth"}}]}"#;
        assert_eq!(layout(false).read(bare), None);
        assert_eq!(layout(true).read("garbage"), None);
    }
}
