//! The table of the guard as a value: how it is written, and whether it is this one that stands. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::kernel::nftables::shown::Chain;
use crate::kernel::{Guarded, Port};

/// Priorities in the hooks `input` and `prerouting` ([`super`]).
const PRIORITY: i32 = 150;
const AHEAD: i32 = -140;

/// The hooks, as the kernel counts them (`NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`, `NF_INET_FORWARD`).
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;

/// So long an address stays doubted when nobody says so again: where endpoints lead is known by who lives.
const DOUBT: Duration = Duration::from_secs(120);

/// So many elements are written with the table, in one transaction: each costs `nft` a kilobyte.
const WITH_IT: usize = 1024;

/// The table as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name.
    pub table: String,
    /// Whether the ports of the host are closed behind the addresses that it guards.
    pub closes: bool,
}

/// What the table has for one family.
pub(super) struct Sets {
    pub(super) v4: bool,
    /// What nftables calls an address, and the protocol that has it.
    kind: &'static str,
    protocol: &'static str,
    /// The number of its ICMP.
    icmp: u8,
    /// The set of ports that Services serve.
    pub(super) services: &'static str,
    /// That of the addresses behind which the others are closed.
    pub(super) closed: &'static str,
    /// That of the addresses whose ports others may take as well, and where these may lead.
    pub(super) doubted: &'static str,
    pub(super) leads: &'static str,
}

pub(super) const SETS: [Sets; 2] = [
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
    /// Writes the table anew, in one transaction, with as much of `guarded` in it as it gives back. Not in `full` it lacks what
    /// takes more of a kernel than sets: who listens on the host is closed, and what others rewrite is not.
    pub(super) fn whole(&self, guarded: &Guarded, full: bool) -> (String, Guarded) {
        let led: usize = guarded.doubted.values().map(BTreeSet::len).sum();
        let few = guarded.ports.len() + guarded.doubted.len() + led <= WITH_IT;
        let with_it = if few { guarded.clone() } else { Guarded::default() };
        (self.script(&with_it, full), with_it)
    }

    fn script(&self, guarded: &Guarded, full: bool) -> String {
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
            if full {
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
        if full {
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

    /// Whether these are its chains, and the number of its rules.
    pub(super) fn stands(&self, chains: &[Chain], rules: usize) -> bool {
        let hooks = match self.closes {
            true => &[(INPUT, PRIORITY), (FORWARD, PRIORITY), (PREROUTING, AHEAD)][..],
            false => &[(INPUT, PRIORITY)],
        };
        let known = if self.closes { 11 } else { 2 };
        let mut hooks = hooks.iter().map(|(hook, priority)| Chain {
            hook: *hook,
            priority: *priority,
            accepts: true,
        });
        rules == known && hooks.all(|chain| chains.contains(&chain))
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

pub(super) fn of_family(ports: &BTreeSet<Port>, v4: bool) -> impl Iterator<Item = &Port> {
    ports.iter().filter(move |port| port.address.is_ipv4() == v4)
}

pub(super) fn addresses(ports: &BTreeSet<Port>, v4: bool) -> BTreeSet<IpAddr> {
    of_family(ports, v4).map(|port| port.address).collect()
}

pub(super) fn asked_for(
    doubted: &BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    v4: bool,
) -> BTreeSet<IpAddr> {
    doubted.keys().filter(|address| address.is_ipv4() == v4).copied().collect()
}

pub(super) fn led(
    doubted: &BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    v4: bool,
) -> BTreeSet<(IpAddr, IpAddr)> {
    let pairs = doubted.iter().flat_map(|(asked, to)| to.iter().map(|to| (*asked, *to)));
    pairs.filter(|(asked, to)| asked.is_ipv4() == v4 && to.is_ipv4() == v4).collect()
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

#[cfg(test)]
mod tests {
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
        let (script, with_it) = layout(false).whole(&ports, false);
        assert_eq!(with_it, ports);
        assert!(script.contains("192.0.2.1 . 6 . 80"), "{script}");
        assert!(script.contains("2001:db8::1 . 17 . 53"), "{script}");
        assert!(script.starts_with("add table inet berth\ndelete table inet berth\n"), "{script}");
        assert!(!script.contains("closed") && !script.contains("ct "), "{script}");
        let (script, _) = layout(true).whole(&ports, true);
        assert!(
            script.contains("set closed4 { type ipv4_addr; elements = { 192.0.2.1 } }"),
            "{script}"
        );
    }

    #[test]
    fn a_table_of_many_elements_is_written_without_them() {
        let ports: BTreeSet<Port> = (1..2000).map(|n| port("192.0.2.1", 6, n)).collect();
        let (script, with_it) = layout(true).whole(&ports.into(), true);
        assert_eq!(with_it, Guarded::default());
        assert!(!script.contains("192.0.2.1") && script.contains("@services4"), "{script}");
    }

    #[test]
    fn a_table_without_its_chains_or_a_rule_is_not_ours() {
        let chain = |hook, priority| Chain { hook, priority, accepts: true };
        let [input, forward, ahead] = [chain(1, 150), chain(2, 150), chain(0, -140)];
        assert!(layout(false).stands(&[input], 2) && !layout(false).stands(&[], 0));
        assert!(layout(true).stands(&[ahead, input, forward], 11));
        for (chains, rules) in [
            (&[input, forward, ahead][..], 10),
            (&[input, forward], 11),
            (&[input, forward, chain(0, -100)], 11),
            (&[input, Chain { accepts: false, ..forward }, ahead], 11),
        ] {
            assert!(!layout(true).stands(chains, rules), "{chains:?} {rules}");
        }
    }
}
