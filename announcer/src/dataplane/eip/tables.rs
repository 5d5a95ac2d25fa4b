//! The chains as values, what `iptables-save` shows of them, and what to feed to `iptables-restore --noflush`. Pure.
//!
//! A rule is compared as the whole line that `iptables-save` prints: 10.244.0.4 is not found in 10.244.0.48.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use super::sets::Set;
use super::state::Nat;
use crate::vip::Family;

const PREROUTING: &str = "KUBE-EIP-PREROUTING";
const POSTROUTING: &str = "KUBE-EIP-POSTROUTING";
/// Ours beyond docs/contract.md: who calls an elastic IP on its own node from a VM there appears as its own elastic
/// IP. Its answers would else go past this node, or to itself.
const HAIRPIN: &str = "KUBE-EIP-HAIRPIN";

/// How the names of all our chains begin.
pub(super) const OURS: &str = "KUBE-EIP-";

/// A rule of ours in a chain that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hook {
    table: &'static str,
    chain: &'static str,
    rule: String,
    /// Whether it has to be the first of its chain; else it comes after what is there, so that whoever refuses, does.
    first: bool,
}

/// What is wanted in the tables of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    hooks: Vec<Hook>,
    /// The rules of our chains in `nat`, in order.
    chains: BTreeMap<&'static str, Vec<String>>,
}

fn hooks(family: Family) -> Vec<Hook> {
    let (eip, vmi) = (Set::Eip.name(family), Set::Vmi.name(family));
    let (moving, internal) = (Set::Moving.name(family), Set::Internal.name(family));
    let set = |name: &str, side: &str| format!("-m set --match-set {name} {side}");
    let hook = |table, chain, rule, first| Hook { table, chain, rule, first };
    // What was not translated, as the kernel does not what it finds invalid: the node itself would reset a connection that
    // is the VM's. Neighbour discovery is never tracked.
    let stray = format!("{} -m conntrack ! --ctstate UNTRACKED -j DROP", set(eip, "dst"));
    // What the node before sends on has been translated there. Tracked here it would be a connection of its own, and what
    // the VM answers would leave under the VM's own address.
    let moving =
        format!("{} -m set ! --match-set {internal} src -j CT --notrack", set(moving, "dst"));
    vec![
        hook("raw", "PREROUTING", moving, true),
        hook("filter", "INPUT", stray, true),
        hook("filter", "FORWARD", format!("{} -j ACCEPT", set(vmi, "src")), false),
        hook("nat", "PREROUTING", format!("{} -j {PREROUTING}", set(eip, "dst")), true),
        hook("nat", "POSTROUTING", format!("{} -j {POSTROUTING}", set(vmi, "src")), true),
    ]
}

/// What `nat` asks for; nothing of a family without pairs.
pub(super) fn tables(nat: &Nat, family: Family) -> Tables {
    if nat.of(family).next().is_none() {
        return Tables::default();
    }
    let one = |address: &IpAddr| format!("{address}/{}", family.bits());
    let internal = Set::Internal.name(family);
    let (mut pre, mut post, mut hairpin) = (Vec::new(), Vec::new(), Vec::new());
    for (eip, pair) in nat.led(family) {
        let vmi = pair.vmi;
        pre.push(format!("-d {} -j DNAT --to-destination {vmi}", one(eip)));
        // The destination is the VM's by now; what was called tells whether it came by way of an elastic IP.
        post.push(format!(
            "-d {} -m conntrack --ctstate DNAT --ctorigdst {eip} -j {HAIRPIN}",
            one(&vmi)
        ));
    }
    for (vmi, eip) in nat.sources(family) {
        hairpin.push(format!("-s {} -j SNAT --to-source {eip}", one(&vmi)));
        post.push(format!(
            "-s {} -m set ! --match-set {internal} dst -j SNAT --to-source {eip}",
            one(&vmi)
        ));
    }
    let chains = [(PREROUTING, pre), (POSTROUTING, post), (HAIRPIN, hairpin)].into();
    Tables { hooks: hooks(family), chains }
}

/// What `iptables-save` shows, as far as it is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Our chains in `nat`, whatever is in them.
    chains: BTreeMap<String, Vec<String>>,
    /// The places of our rules in chains that are not ours, from 0; rules that name our chains or sets, whatever else
    /// they say.
    hooks: BTreeMap<(String, String), Vec<(usize, String)>>,
}

/// Reads what `iptables-save` prints of all tables or of some.
pub(super) fn read(text: &str, family: Family) -> Seen {
    let mut seen = Seen::default();
    let known: BTreeSet<String> = hooks(family).into_iter().map(|hook| hook.rule).collect();
    let (mut table, mut places): (&str, BTreeMap<&str, usize>) = ("", BTreeMap::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
            places.clear();
        } else if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
            if table == "nat" && chain.starts_with(OURS) {
                seen.chains.entry(chain.to_owned()).or_default();
            }
        } else if let Some((chain, rule)) =
            line.strip_prefix("-A ").and_then(|rest| rest.split_once(' '))
        {
            let place = places.entry(chain).or_default();
            if table == "nat" && chain.starts_with(OURS) {
                seen.chains.entry(chain.to_owned()).or_default().push(rule.to_owned());
            } else if known.contains(rule) {
                let key = (table.to_owned(), chain.to_owned());
                seen.hooks.entry(key).or_default().push((*place, rule.to_owned()));
            }
            *place += 1;
        }
    }
    seen
}

impl Seen {
    /// The elastic IPs that are led somewhere already, and where.
    pub(super) fn led(&self) -> BTreeMap<IpAddr, IpAddr> {
        let rules = self.chains.get(PREROUTING).into_iter().flatten();
        let led = rules.filter_map(|rule| {
            let (eip, vmi) = rule.strip_prefix("-d ")?.split_once(" -j DNAT --to-destination ")?;
            Some((eip.split('/').next()?.parse().ok()?, vmi.parse().ok()?))
        });
        led.collect()
    }

    fn hook(&self, hook: &Hook) -> &[(usize, String)] {
        let key = (hook.table.to_owned(), hook.chain.to_owned());
        self.hooks.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// What is between `seen` and `wanted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Nothing.
    None,
    /// Somebody has put a rule before ours that has to be first. Who did may insist on it, too.
    Order,
    /// Something is missing, or too much.
    Content,
}

/// What is between `seen` and `wanted`.
pub(super) fn difference(wanted: &Tables, seen: &Seen) -> Difference {
    let chains: BTreeMap<String, Vec<String>> =
        wanted.chains.iter().map(|(name, rules)| ((*name).to_owned(), rules.clone())).collect();
    let hooked: usize = seen.hooks.values().map(Vec::len).sum();
    let each = |hook: &Hook| seen.hook(hook).iter().filter(|(_, rule)| *rule == hook.rule).count();
    let there = hooked == wanted.hooks.len() && wanted.hooks.iter().all(|hook| each(hook) == 1);
    if seen.chains != chains || !there {
        return Difference::Content;
    }
    let in_order = |hook: &Hook| !hook.first || seen.hook(hook)[0].0 == 0;
    if wanted.hooks.iter().all(in_order) { Difference::None } else { Difference::Order }
}

/// What to feed to `iptables-restore --noflush` so that `seen` becomes `wanted`: our chains whole, and our rules in
/// chains of others only where they are not as they should be. Each table is changed in one step.
pub(super) fn restore(wanted: &Tables, seen: &Seen) -> String {
    let mut script = String::new();
    for table in ["raw", "filter", "nat"] {
        let mut lines = String::new();
        if table == "nat" {
            for chain in wanted.chains.keys() {
                // Makes it, or empties it.
                let _ = writeln!(lines, ":{chain} - [0:0]");
            }
        }
        for ((of, chain), rules) in seen.hooks.iter().filter(|((of, _), _)| of == table) {
            for (place, rule) in rules {
                let right = |hook: &Hook| {
                    (hook.table, hook.chain, &hook.rule) == (of.as_str(), chain.as_str(), rule)
                        && (!hook.first || *place == 0)
                };
                if rules.len() > 1 || !wanted.hooks.iter().any(right) {
                    let _ = writeln!(lines, "-D {chain} {rule}");
                }
            }
        }
        if table == "nat" {
            let obsolete: Vec<&String> =
                seen.chains.keys().filter(|c| !wanted.chains.contains_key(c.as_str())).collect();
            for (chain, rules) in &wanted.chains {
                for rule in rules {
                    let _ = writeln!(lines, "-A {chain} {rule}");
                }
            }
            // They may refer to each other.
            for verb in ["-F", "-X"] {
                for chain in &obsolete {
                    let _ = writeln!(lines, "{verb} {chain}");
                }
            }
        }
        for hook in wanted.hooks.iter().filter(|hook| hook.table == table) {
            let shown = seen.hook(hook);
            let stays = shown.len() == 1 && (!hook.first || shown[0].0 == 0);
            if !stays {
                let verb = if hook.first { "-I" } else { "-A" };
                let _ = writeln!(lines, "{verb} {} {}", hook.chain, hook.rule);
            }
        }
        if !lines.is_empty() {
            let _ = write!(script, "*{table}\n{lines}COMMIT\n");
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::super::state::{Stage, testing::nat};
    use super::*;

    const KUBE_PROXY: &str = "\
*filter
:FORWARD ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
COMMIT
";

    fn wanted() -> Tables {
        tables(&nat(&[("192.0.2.1", "10.244.0.4")]), Family::V4)
    }

    fn seen(text: &str) -> Seen {
        read(text, Family::V4)
    }

    /// What would be shown after our own rules have come to be first and last.
    fn applied() -> String {
        let mut text = KUBE_PROXY.to_owned();
        for hook in wanted().hooks {
            if hook.table == "raw" {
                text += &format!("*raw\n-A {} {}\nCOMMIT\n", hook.chain, hook.rule);
                continue;
            }
            let line = format!("-A {} {}\n", hook.chain, hook.rule);
            let first = text.find(&format!("-A {} ", hook.chain)).filter(|_| hook.first);
            let at = first.unwrap_or_else(|| text.find("COMMIT").unwrap());
            text.insert_str(at, &line);
        }
        let mut chains = String::new();
        for (chain, rules) in wanted().chains {
            chains += &format!(":{chain} - [3:180]\n");
            rules.iter().for_each(|rule| chains += &format!("-A {chain} {rule}\n"));
        }
        text.replace(":KUBE-SERVICES - [0:0]\n", &format!(":KUBE-SERVICES - [0:0]\n{chains}"))
    }

    #[test]
    fn the_rules_are_those_of_the_contract() {
        assert_eq!(
            restore(&wanted(), &seen(KUBE_PROXY)),
            "\
*raw
-I PREROUTING -m set --match-set kube-eip-moving dst -m set ! --match-set k8s_internal_net src -j CT --notrack
COMMIT
*filter
-I INPUT -m set --match-set kube-eip-eip dst -m conntrack ! --ctstate UNTRACKED -j DROP
-A FORWARD -m set --match-set kube-eip-vmi src -j ACCEPT
COMMIT
*nat
:KUBE-EIP-HAIRPIN - [0:0]
:KUBE-EIP-POSTROUTING - [0:0]
:KUBE-EIP-PREROUTING - [0:0]
-A KUBE-EIP-HAIRPIN -s 10.244.0.4/32 -j SNAT --to-source 192.0.2.1
-A KUBE-EIP-POSTROUTING -d 10.244.0.4/32 -m conntrack --ctstate DNAT --ctorigdst 192.0.2.1 -j KUBE-EIP-HAIRPIN
-A KUBE-EIP-POSTROUTING -s 10.244.0.4/32 -m set ! --match-set k8s_internal_net dst -j SNAT --to-source 192.0.2.1
-A KUBE-EIP-PREROUTING -d 192.0.2.1/32 -j DNAT --to-destination 10.244.0.4
-I PREROUTING -m set --match-set kube-eip-eip dst -j KUBE-EIP-PREROUTING
-I POSTROUTING -m set --match-set kube-eip-vmi src -j KUBE-EIP-POSTROUTING
COMMIT
"
        );
        let v6 = tables(&nat(&[("2001:db8::1", "fd00:244::4")]), Family::V6);
        let script = restore(&v6, &Seen::default());
        assert!(
            script.contains("-d 2001:db8::1/128 -j DNAT --to-destination fd00:244::4\n"),
            "{script}"
        );
        assert!(script.contains("--match-set k8s_internal_net6 dst"), "{script}");
    }

    #[test]
    fn what_a_machine_sends_is_translated_before_it_is_there_and_what_comes_to_it_is_not() {
        let mut nat = nat(&[("192.0.2.1", "10.244.0.4")]);
        nat.pairs.values_mut().for_each(|pair| pair.stage = Stage::Expected);
        let script = restore(&tables(&nat, Family::V4), &seen(KUBE_PROXY));
        assert!(script.contains("dst -j SNAT --to-source 192.0.2.1"), "{script}");
        assert!(!script.contains("DNAT --to-destination"), "{script}");
    }

    #[test]
    fn both_10_244_0_4_and_10_244_0_48_are_programmed() {
        let both = nat(&[("192.0.2.1", "10.244.0.48"), ("192.0.2.10", "10.244.0.4")]);
        let script = restore(&tables(&both, Family::V4), &seen(&applied()));
        for rule in [
            "-d 192.0.2.1/32 -j DNAT --to-destination 10.244.0.48\n",
            "-d 192.0.2.10/32 -j DNAT --to-destination 10.244.0.4\n",
        ] {
            assert!(script.contains(rule), "{script}");
        }
        let only_48 = tables(&nat(&[("192.0.2.1", "10.244.0.48")]), Family::V4);
        assert_eq!(difference(&only_48, &seen(&applied())), Difference::Content);
    }

    #[test]
    fn what_is_as_wanted_needs_nothing_whatever_the_counters_say() {
        assert_eq!(difference(&wanted(), &seen(&applied())), Difference::None);
        assert_eq!(difference(&Tables::default(), &seen(KUBE_PROXY)), Difference::None);
        assert_eq!(seen(KUBE_PROXY), Seen::default());
    }

    #[test]
    fn a_flush_a_foreign_rule_in_our_chain_and_a_missing_jump_are_seen_and_mended() {
        let flushed = applied().replace("-A KUBE-EIP-PREROUTING -d", "#");
        let added = applied() + "*nat\n-A KUBE-EIP-HAIRPIN -j ACCEPT\nCOMMIT\n";
        let hook = &wanted().hooks[3];
        let jump = format!("-A {} {}\n", hook.chain, hook.rule);
        let missing = applied().replace(&jump, "");
        let twice = applied().replace(&jump, &jump.repeat(2));
        for text in [&flushed, &added, &missing, &twice] {
            assert_eq!(difference(&wanted(), &seen(text)), Difference::Content, "{text}");
        }
        let insert = format!("-I {} {}\n", hook.chain, hook.rule);
        assert!(!restore(&wanted(), &seen(&flushed)).contains(&insert), "the jump is in its place");
        assert!(restore(&wanted(), &seen(&missing)).contains(&insert));
        let again = restore(&wanted(), &seen(&twice));
        assert_eq!(again.matches(&format!("-D {} {}\n", hook.chain, hook.rule)).count(), 2);
        assert_eq!(again.matches(&insert).count(), 1);
    }

    #[test]
    fn a_jump_that_is_no_longer_first_is_put_first_again() {
        let hook = &wanted().hooks[4];
        let jump = format!("-A {} {}\n", hook.chain, hook.rule);
        let second = applied().replace(&jump, &format!("-A {} -j CNI\n{jump}", hook.chain));
        assert_eq!(difference(&wanted(), &seen(&second)), Difference::Order);
        let script = restore(&wanted(), &seen(&second));
        assert!(script.contains(&format!("-D {} {}\n", hook.chain, hook.rule)), "{script}");
        assert!(script.contains(&format!("-I {} {}\n", hook.chain, hook.rule)), "{script}");
    }

    #[test]
    fn nothing_wanted_takes_away_what_is_ours_and_nothing_else() {
        let script = restore(&Tables::default(), &seen(&applied()));
        assert_eq!(
            script,
            "\
*raw
-D PREROUTING -m set --match-set kube-eip-moving dst -m set ! --match-set k8s_internal_net src -j CT --notrack
COMMIT
*filter
-D FORWARD -m set --match-set kube-eip-vmi src -j ACCEPT
-D INPUT -m set --match-set kube-eip-eip dst -m conntrack ! --ctstate UNTRACKED -j DROP
COMMIT
*nat
-D POSTROUTING -m set --match-set kube-eip-vmi src -j KUBE-EIP-POSTROUTING
-D PREROUTING -m set --match-set kube-eip-eip dst -j KUBE-EIP-PREROUTING
-F KUBE-EIP-HAIRPIN
-F KUBE-EIP-POSTROUTING
-F KUBE-EIP-PREROUTING
-X KUBE-EIP-HAIRPIN
-X KUBE-EIP-POSTROUTING
-X KUBE-EIP-PREROUTING
COMMIT
"
        );
        assert_eq!(restore(&Tables::default(), &seen(KUBE_PROXY)), "");
    }

    #[test]
    fn what_is_led_where_is_read_back() {
        let led = seen(&applied()).led();
        assert_eq!(led, [("192.0.2.1".parse().unwrap(), "10.244.0.4".parse().unwrap())].into());
    }
}
