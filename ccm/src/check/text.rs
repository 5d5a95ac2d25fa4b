//! Owns how a review reads. The same review always reads the same.

use std::collections::BTreeSet;
use std::fmt;

use berth_api::Quoted;
use berth_ipam::{AddressSet, Crossing, Owner, Scope};

use super::review::{Effect, Finding, PoolLine, Review};

/// So many ranges of a set are shown; the rest is counted.
const RANGES_SHOWN: usize = 4;

impl fmt::Display for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pools.is_empty() {
            table(f, &self.pools, self.assigned.is_some())?;
            writeln!(f)?;
        }
        if let Some(assigned) = self.assigned {
            let kept = if assigned == 0 { "" } else { "; every one stays where it is" };
            writeln!(f, "{} assigned{kept}", counted(assigned, "address", "addresses"))?;
        }
        let (problems, notes): (Vec<_>, Vec<_>) =
            self.findings.iter().partition(|finding| finding.is_problem());
        match problems.len() {
            0 => writeln!(f, "no problem found")?,
            count => section(f, &counted(count, "problem", "problems"), &problems)?,
        }
        match notes.len() {
            0 => Ok(()),
            count => section(f, &counted(count, "note", "notes"), &notes),
        }
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, findings: &[&Finding]) -> fmt::Result {
    writeln!(f, "{title}:")?;
    findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))
}

/// Columns as wide as their widest entry: names to the left, numbers to the right.
fn table(f: &mut fmt::Formatter<'_>, lines: &[PoolLine], with_used: bool) -> fmt::Result {
    let mut rows = vec![["POOL", "FAMILY", "SIZE", "USED", "FREE"].map(str::to_owned)];
    for PoolLine { scope, family, usage } in lines {
        let numbers = match usage {
            Some(usage) => [usage.size.to_string(), usage.used.to_string(), usage.free.to_string()],
            None => ["DHCP", "-", "-"].map(str::to_owned),
        };
        let [size, used, free] = numbers;
        rows.push([scope.name().to_owned(), family.to_string(), size, used, free]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    for row in &rows {
        write!(f, "{:<2$}  {:<3$}", row[0], row[1], widths[0], widths[1])?;
        for column in [2, 3, 4].into_iter().filter(|column| with_used || *column != 3) {
            write!(f, "  {:>1$}", row[column], widths[column])?;
        }
        writeln!(f)?;
    }
    Ok(())
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText(error) => write!(f, "{error}"),
            Self::OtherName(found, wanted) => write!(
                f,
                "the file has ConfigMap {found}, which berth-ccm reads where its KUBEVIP_NAMESPACE and KUBEVIP_CONFIG_MAP name \
                 that; as they are here it reads {wanted}"
            ),
            Self::BadKey(error, effect) => write!(f, "{error}; {effect}"),
            Self::UnknownKey(key) => write!(
                f,
                "key {} means nothing to Berth; accepted are cidr-, range-, exclude-, drain-, pins-, allow-share- and \
                 interface- followed by global or a namespace, quota-, overflow- and share-with- followed by a namespace, \
                 namespace-quota, search-order, skip-end-ips-in-cidr, avoid-buggy-ips and reuse-delay",
                Quoted::of(key)
            ),
            Self::EmptyKey(key, says) => write!(f, "key `{key}` is an empty list: {says}"),
            Self::HostBits(key, entry, network) => write!(
                f,
                "key `{key}`: {entry} is all of {network}; where no more than what begins at {} was meant, write a range",
                entry.split('/').next().unwrap_or_default()
            ),
            Self::NoPool => {
                write!(f, "no key `cidr-` or `range-` fills a pool: nobody gets an address")
            }
            Self::Overlap(scopes, addresses) => {
                write!(
                    f,
                    "{} would be handed out by {}: leave it to one of them",
                    shown(addresses),
                    named(scopes)
                )
            }
            Self::Reserved(scopes, addresses, by) => {
                write!(
                    f,
                    "{} in {} is never given out: it belongs to {by}",
                    shown(addresses),
                    named(scopes)
                )
            }
            Self::Conflict(address, owners) => {
                write!(
                    f,
                    "{address} is held by {} at once: nothing is moved, change all but one",
                    everyone(owners)
                )
            }
            Self::Outside(address, owner, scope) => {
                write!(
                    f,
                    "{address} of {owner} would be outside {scope}: it stays until it is released"
                )
            }
            Self::Occupied(address, owner, by) => write!(f, "{address} of {owner} belongs to {by}"),
            Self::Listed(address, owner, by) => write!(
                f,
                "{address} of {owner} is listed by {by}, as by one that answers for it; nobody else gets it"
            ),
            Self::Dhcp(scope, family) => write!(
                f,
                "{scope} asks for DHCP ({}): announcers of Berth ask no server yet, and a Service waits for one of kube-vip",
                family.dhcp_marker()
            ),
            Self::Draining(address, owner, scope) => {
                write!(f, "{address} of {owner} drains from {scope}: it stays until it is released")
            }
            Self::Excluded(address, owner, scope) => {
                write!(
                    f,
                    "{address} of {owner} is in `exclude-{}`: it stays until it is released",
                    scope.name()
                )
            }
            Self::QuotaReached(namespace, held, quota, key) => write!(
                f,
                "namespace {namespace} holds {held} of the {quota} addresses that `{key}` allows: it gets no more"
            ),
            Self::Crossing(Crossing { address, namespaces }) => write!(
                f,
                "{address} is shared by the namespaces {}, which do not name each other in `share-with-`: they keep it",
                namespaces.join(", ")
            ),
            Self::NotOfAll(key) => write!(
                f,
                "`{key}` concerns only a namespace called global; {}",
                match key.as_str() {
                    "quota-global" => "the quota of every namespace is `namespace-quota`",
                    _ => "each namespace has a key of its own",
                }
            ),
            Self::InNoPool(addresses) => write!(
                f,
                "no pool has {}: what was asked for, or held before, stays until it is released",
                shown(addresses)
            ),
            Self::Untold(namespace) => write!(
                f,
                "no node tells its own addresses by a Lease in namespace {namespace}, so that pools are compared with what Nodes \
                 list alone: no announcer has run there, or `--leases` is to name the namespace in which they run"
            ),
            Self::OpenPins(Scope::Global) => write!(
                f,
                "`pins-global` is not set, or any: whoever may edit a Service may ask for any address that nobody has, also \
                 outside all pools; `pool` closes that"
            ),
            Self::OpenPins(Scope::Namespace(name)) => write!(
                f,
                "`pins-{name}` is any: whoever may edit a Service there may ask for any address that nobody has, also outside \
                 all pools; `pool` closes that"
            ),
            Self::NoQuota => write!(
                f,
                "`namespace-quota` is not set: a namespace without a `quota-` of its own may use up a pool that others share"
            ),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaysAsItIs => write!(f, "the value that the cluster has stays in force"),
            Self::Stops(scope) => write!(f, "so {scope} hands out nothing"),
            Self::StopsAll => write!(f, "so no pool hands out anything"),
            Self::StopsPins(Scope::Global) => {
                write!(f, "so a namespace without a `pins-` of its own may ask for no address")
            }
            Self::StopsPins(Scope::Namespace(name)) => {
                write!(f, "so namespace {name} may ask for no address")
            }
            Self::StopsUnlimited => {
                write!(f, "so a namespace without a `quota-` of its own gets nothing")
            }
            Self::Ignored => write!(f, "so the key counts as absent"),
        }
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

fn shown(addresses: &AddressSet) -> String {
    let all: Vec<String> = addresses.iter().map(|range| range.to_string()).collect();
    let rest = all.len().saturating_sub(RANGES_SHOWN);
    let text = all[..all.len() - rest].join(", ");
    if rest == 0 { text } else { format!("{text} and {rest} more") }
}

fn named(scopes: &[Scope]) -> String {
    scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" and ")
}

fn everyone(owners: &BTreeSet<Owner>) -> String {
    owners.iter().map(Owner::to_string).collect::<Vec<_>>().join(" and ")
}
