//! Owns what is to be said about pools before they are in force. The answers are those of [`berth_ipam`] itself, asked
//! in advance; nothing is worked out a second time here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::NamespacedName;
use berth_index::may_be_vips;
use berth_ipam::{
    AddressSet, Crossing, Families, Family, Grant, KeyError, Ledger, Owner, OwnerKind, Pools,
    Range, Refusal, Request, Scope, Sharing, Usage, allocate,
};

/// The data of a ConfigMap.
pub type Data = BTreeMap<String, String>;

/// An address that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub owner: Owner,
    /// The pool that its claim says it came from.
    pub pool: Option<Scope>,
    /// The ports, by which others may share it.
    pub sharing: Option<Sharing>,
}

/// A cluster as far as it matters for its pools.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The pools in force, if there are any.
    pub live: Option<Data>,
    /// Every address that is assigned.
    pub assigned: Vec<Holding>,
    /// Addresses that are never given out, by what has them.
    pub reserved: BTreeMap<String, AddressSet>,
    /// Where nodes were looked for that tell their addresses, if none does there.
    pub untold: Option<String>,
}

/// What there is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Each family of each pool.
    pub pools: Vec<PoolLine>,
    /// How many addresses are assigned, if a cluster was asked.
    pub assigned: Option<usize>,
    /// What is wrong, or good to know.
    pub findings: Vec<Finding>,
}

/// One family of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLine {
    /// The pool.
    pub scope: Scope,
    /// The family.
    pub family: Family,
    /// Its numbers; `None` where the addresses come by DHCP.
    pub usage: Option<Usage>,
}

/// What follows from a key that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Its value in the cluster stays in force.
    StaysAsItIs,
    /// The pool hands out nothing.
    Stops(Scope),
    /// No pool hands out anything.
    StopsAll,
    /// What the pool does not give, nobody of the scope may ask for either.
    StopsPins(Scope),
    /// Namespaces without a quota of their own get nothing.
    StopsUnlimited,
    /// It counts as absent.
    Ignored,
}

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The API server refuses the ConfigMap.
    NotText(KeyError),
    /// The file has another ConfigMap than the one that is read in the cluster.
    OtherName(String, NamespacedName),
    /// A value is not accepted.
    BadKey(KeyError, Effect),
    /// A key means nothing.
    UnknownKey(String),
    /// A list has nothing in it, and says so much.
    EmptyKey(String, &'static str),
    /// A network is named by an address inside it.
    HostBits(String, String, Range),
    /// Nobody gets an address.
    NoPool,
    /// Several pools would hand out the same addresses.
    Overlap(Vec<Scope>, AddressSet),
    /// A pool would hand out what is never given out: by what has it.
    Reserved(Vec<Scope>, AddressSet, String),
    /// Several have an address already.
    Conflict(IpAddr, BTreeSet<Owner>),
    /// An assigned address is not in its pool any more.
    Outside(IpAddr, Owner, Scope),
    /// An assigned address belongs to something else, such as a node.
    Occupied(IpAddr, Owner, String),
    /// An assigned address is listed as one of a node, as of one that answers for it.
    Listed(IpAddr, Owner, String),
    /// A pool asks for DHCP.
    Dhcp(Scope, Family),
    /// An assigned address stays until it is released, and is then handed out no more.
    Draining(IpAddr, Owner, Scope),
    /// The same, because of an `exclude-` key.
    Excluded(IpAddr, Owner, Scope),
    /// A namespace has more than it may have, or all: it gets nothing more.
    QuotaReached(String, u64, u64, String),
    /// Namespaces share an address and do not name each other.
    Crossing(Crossing),
    /// A key that every namespace has for itself is written as if there were one for all.
    NotOfAll(String),
    /// Assigned addresses that no pool has.
    InNoPool(AddressSet),
    /// Nothing is known of the nodes' own addresses: no node tells them in this namespace.
    Untold(String),
    /// Whoever may edit a Service of the scope may ask for any address that nobody has.
    OpenPins(Scope),
    /// Not every namespace has a limit.
    NoQuota,
}

/// Kinds of keys of which there is none for all namespaces.
const OF_NAMESPACES: [&str; 3] = ["quota-", "overflow-", "share-with-"];

impl Finding {
    /// Whether somebody should act before the pools are applied.
    pub fn is_problem(&self) -> bool {
        !matches!(
            self,
            Self::OtherName(..)
                | Self::EmptyKey(..)
                | Self::HostBits(..)
                | Self::Listed(..)
                | Self::Dhcp(..)
                | Self::Draining(..)
                | Self::Excluded(..)
                | Self::QuotaReached(..)
                | Self::Crossing(..)
                | Self::InNoPool(..)
                | Self::Untold(..)
                | Self::OpenPins(..)
                | Self::NoQuota
        )
    }
}

impl Review {
    /// What somebody should act on.
    pub fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.is_problem())
    }
}

/// Says what would be if the cluster, or an empty one, had pools of this data.
pub fn review(data: &Data, cluster: Option<&Cluster>) -> Review {
    let nothing = Cluster::default();
    let Cluster { live, assigned, reserved, untold } = cluster.unwrap_or(&nothing);
    let mut ledger = Ledger::new();
    let mut refused = Vec::new();
    if let Some(live) = live {
        refused = ledger.update_pools(live);
    } else {
        ledger.update_pools(data);
    }
    reserved.iter().for_each(|(name, addresses)| ledger.reserve(name, addresses.clone()));
    let conflicts = assign(&mut ledger, assigned);
    let errors = ledger.update_pools(data);

    let was_good = |key: &String| {
        live.as_ref().is_some_and(|live| live.contains_key(key))
            && !refused.iter().any(|error| error.key == *key)
    };
    let mut findings = Vec::new();
    for error in errors {
        let effect =
            if was_good(&error.key) { Effect::StaysAsItIs } else { effect(&ledger, &error) };
        findings.push(Finding::BadKey(error, effect));
    }
    findings.extend(
        Pools::unknown_keys(data).into_iter().map(|key| Finding::UnknownKey(key.to_owned())),
    );
    let of_namespaces = OF_NAMESPACES.iter().map(|kind| format!("{kind}global"));
    findings.extend(of_namespaces.filter(|key| data.contains_key(key)).map(Finding::NotOfAll));
    let empty = Pools::empty_keys(data).into_iter();
    findings.extend(empty.map(|(key, says)| Finding::EmptyKey(key.to_owned(), says)));
    let host_bits = Pools::with_host_bits(data).into_iter();
    findings.extend(
        host_bits.map(|(key, entry, network)| {
            Finding::HostBits(key.to_owned(), entry.to_owned(), network)
        }),
    );
    if ledger.pools().iter().all(|(_, pool)| pool.addresses().is_empty()) {
        findings.push(Finding::NoPool);
    }
    findings.extend(overlaps(&ledger));
    findings.extend(reserved_overlaps(&ledger));
    findings.extend(
        ledger.unusable_overlaps().into_iter().map(|overlap| {
            Finding::Reserved(overlap.pools, overlap.addresses, overlap.reservation)
        }),
    );
    findings
        .extend(conflicts.into_iter().map(|(address, owners)| Finding::Conflict(address, owners)));
    findings.extend(fates(&ledger));
    findings.extend(by_dhcp(ledger.pools()));
    findings.extend(untold.clone().map(Finding::Untold));
    findings.extend(open(ledger.pools()));
    let assigned = cluster.map(|_| ledger.claims().count());
    Review { pools: lines(&ledger), assigned, findings }
}

/// Records who has what, and returns what more than one has.
fn assign(ledger: &mut Ledger, assigned: &[Holding]) -> BTreeMap<IpAddr, BTreeSet<Owner>> {
    let mut conflicts: BTreeMap<IpAddr, BTreeSet<Owner>> = BTreeMap::new();
    for Holding { address, owner, pool, sharing } in assigned {
        let pool =
            pool.clone().or_else(|| ledger.pools().locate(&owner.namespace, *address).cloned());
        let grant = Grant::new(owner.clone()).in_pool(pool).sharing(sharing.clone());
        if let Err(conflict) = ledger.insert(*address, grant) {
            conflicts
                .entry(*address)
                .or_default()
                .extend(conflict.holders.into_iter().chain([owner.clone()]));
        }
    }
    conflicts
}

/// The pools that ask for DHCP.
fn by_dhcp(pools: &Pools) -> impl Iterator<Item = Finding> + '_ {
    let all = pools.iter().flat_map(|pool| Family::ALL.map(|family| (pool, family)));
    let all = all.filter(|((_, pool), family)| pool.is_dhcp(*family));
    all.map(|((scope, _), family)| Finding::Dhcp(scope.clone(), family))
}

/// What the pools leave open to everybody who may edit a Service.
fn open(pools: &Pools) -> impl Iterator<Item = Finding> + '_ {
    let any = pools.iter().next().is_some();
    let pins = pools.with_any_pin().into_iter().filter(move |_| any);
    let quotas = (any && !pools.limits_all()).then_some(Finding::NoQuota);
    pins.map(|scope| Finding::OpenPins(scope.clone())).chain(quotas)
}

fn lines(ledger: &Ledger) -> Vec<PoolLine> {
    let mut lines = Vec::new();
    for (scope, pool) in ledger.pools().iter() {
        for family in Family::ALL.into_iter().filter(|family| pool.addresses().has(*family)) {
            let usage = (!pool.is_dhcp(family)).then(|| ledger.usage(scope, family));
            lines.push(PoolLine { scope: scope.clone(), family, usage });
        }
    }
    lines
}

/// Somebody of the scope who asks for an address.
fn asker(scope: &Scope) -> Request {
    let owner = Owner::new(OwnerKind::Service, scope.name(), "", "");
    Request::new(owner, Families::single(Family::V4))
}

/// What a key that was never good does to its scope. Only addresses and limits on them stop a pool.
fn effect(ledger: &Ledger, error: &KeyError) -> Effect {
    if error.key == "namespace-quota" {
        return Effect::StopsUnlimited;
    }
    let Some((kind, name)) = error.key.split_once('-') else { return Effect::Ignored };
    let scope = Scope::of(name);
    if kind == "pins" {
        return Effect::StopsPins(scope);
    }
    match (kind, allocate(ledger, &asker(&scope))) {
        ("exclude", _) if scope == Scope::Global => Effect::StopsAll,
        (
            "cidr" | "range" | "exclude" | "drain" | "quota",
            Err(Refusal::InvalidPool { scope: stopped, .. }),
        ) if stopped == scope => Effect::Stops(scope),
        _ => Effect::Ignored,
    }
}

fn offered(ledger: &Ledger, scope: &Scope, within: &AddressSet) -> AddressSet {
    ledger.pools().pool(scope).map(|pool| pool.offered().intersection(within)).unwrap_or_default()
}

/// What at least two pools would hand out. What one of them leaves out is no overlap.
fn overlaps(ledger: &Ledger) -> Vec<Finding> {
    let mut findings = Vec::new();
    for overlap in ledger.overlaps() {
        let mut seen = AddressSet::new();
        let mut doubled = AddressSet::new();
        let mut scopes = Vec::new();
        for scope in overlap.pools {
            let offers = offered(ledger, &scope, &overlap.addresses);
            doubled.extend_with(&seen.intersection(&offers));
            seen.extend_with(&offers);
            if !offers.is_empty() {
                scopes.push(scope);
            }
        }
        if !doubled.is_empty() {
            findings.push(Finding::Overlap(scopes, doubled));
        }
    }
    findings
}

fn reserved_overlaps(ledger: &Ledger) -> Vec<Finding> {
    let mut findings = Vec::new();
    for overlap in ledger.reserved_overlaps(may_be_vips) {
        let mut addresses = AddressSet::new();
        let mut scopes = Vec::new();
        for scope in overlap.pools {
            let offers = offered(ledger, &scope, &overlap.addresses);
            if !offers.is_empty() {
                addresses.extend_with(&offers);
                scopes.push(scope);
            }
        }
        if !addresses.is_empty() {
            findings.push(Finding::Reserved(scopes, addresses, overlap.reservation));
        }
    }
    findings
}

/// What becomes of the addresses that are assigned, in order.
fn fates(ledger: &Ledger) -> Vec<Finding> {
    let pools = ledger.pools();
    let excluded = |scope: &Scope, address| {
        let has = |scope: &&Scope| {
            pools.pool(scope).is_some_and(|pool| pool.excluded().contains(address))
        };
        [scope, &Scope::Global].into_iter().find(has).cloned()
    };
    let (mut findings, mut alone) = (Vec::new(), BTreeSet::new());
    for stray in ledger.strays() {
        findings.push(Finding::Outside(stray.address, stray.owner, stray.pool));
    }
    for (address, claim) in ledger.claims() {
        for grant in claim.grants() {
            let owner = grant.owner.clone();
            if let Some(first) = ledger.reserved_by(address) {
                let mut all = ledger.reservations().filter(|(_, all)| all.contains(address));
                findings.push(match all.find(|(name, _)| !may_be_vips(name)) {
                    Some((by, _)) => Finding::Occupied(address, owner, by.to_owned()),
                    None => Finding::Listed(address, owner, first.to_owned()),
                });
                continue;
            }
            let Some(scope) = &grant.pool else {
                alone.insert(address);
                continue;
            };
            let Some(pool) = pools.pool(scope).filter(|pool| pool.addresses().contains(address))
            else {
                continue;
            };
            if let Some(by) = excluded(scope, address) {
                findings.push(Finding::Excluded(address, owner, by));
            } else if pool.draining().contains(address) {
                findings.push(Finding::Draining(address, owner, scope.clone()));
            }
        }
    }
    if !alone.is_empty() {
        findings.push(Finding::InNoPool(alone.into_iter().collect()));
    }
    let owners = ledger.claims().flat_map(|(_, claim)| claim.owners());
    for namespace in owners.map(|owner| owner.namespace.as_str()).collect::<BTreeSet<_>>() {
        let held = ledger.held_in(namespace);
        if let Some(quota) = pools.quota(namespace).filter(|quota| held >= *quota) {
            let key = pools.quota_key(namespace);
            findings.push(Finding::QuotaReached(namespace.to_owned(), held, quota, key));
        }
    }
    findings.extend(ledger.crossings().into_iter().map(Finding::Crossing));
    findings
}
